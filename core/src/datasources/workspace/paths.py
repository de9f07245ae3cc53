"""Convert the name of an item to a path in a workspace."""

from __future__ import annotations

import itertools
import os
import re

from datasources.errors import DataFetchError

RECEIPTS = ".datasources-receipts.jsonl"
"""The file of a workspace that holds the receipts of what was fetched."""
TEMPORARY = ".datasources-{}.part"
"""The name of a file while it is written; 16 hexadecimal digits stand in it."""
IS_TEMPORARY = re.compile(r"\.datasources-[0-9a-f]{16}\.part")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|%(?=[0-9A-Fa-f]{2})")
_NAME_MAX = 255  # bytes of one path component: NAME_MAX of ext4, XFS, APFS, NFS and most others


def safe_path(name: str, *, flat: bool = False) -> str:
    """Return the relative path at which an item of that name is written.

    An ordinary name is its own path. Percent-encoded are: `.` and `..` as segments, a slash that
    would make an empty segment, backslashes, control characters, a percent sign before two
    hexadecimal digits, and the first character of the names that this package itself uses; with
    `flat`, every slash. Percent-decoding the path therefore gives the name back, so that distinct
    names have distinct paths.

    Raises:
        DataFetchError: The name is empty, not Unicode text, or has a segment over 255 bytes.
    """
    if not name:
        raise DataFetchError("an item without a name cannot be written to a workspace")
    segments: list[str] = []
    for segment in name.split("/"):
        encoded = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", segment)
        if encoded in (".", ".."):
            encoded = encoded.replace(".", "%2E")
        elif encoded == RECEIPTS or IS_TEMPORARY.fullmatch(encoded):
            encoded = "%2E" + encoded[1:]
        segments.append(encoded)
    path = "%2F".join(segments) if flat else _without_empty_segments(segments)
    try:
        too_long = any(len(os.fsencode(part)) > _NAME_MAX for part in path.split("/"))
        path.encode()
    except UnicodeEncodeError:
        raise DataFetchError(f"the name {name!r} is not valid Unicode text") from None
    if too_long:
        raise DataFetchError(f"the name {name!r} has a segment over {_NAME_MAX} bytes")
    return path


def _without_empty_segments(segments: list[str]) -> str:
    path = segments[0]
    for previous, segment in itertools.pairwise(segments):
        path += ("/" if previous and segment else "%2F") + segment
    return path
