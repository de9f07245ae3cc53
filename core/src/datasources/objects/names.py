"""Rules for the names of objects, which are not paths of a file system."""

from __future__ import annotations

import re
from urllib.parse import quote

from datasources.errors import ItemNotFoundError
from datasources.models import DataItem


def last_segment(name: str) -> str:
    """Return the last segment of a name that is not empty, or the name if all are empty."""
    return name.rstrip("/").rpartition("/")[2] or name


def folder_item(path: str) -> DataItem:
    """Return a folder, whose path ends with `/`, as an item."""
    return DataItem(last_segment(path), path, metadata={"kind": "folder"})


def has_dot_segments(name: str) -> bool:
    """Return True if a segment of the name, between slashes or backslashes, is `.` or `..`."""
    return any(segment in (".", "..") for segment in re.split(r"[/\\]", name))


def quote_name(name: str) -> str:
    """Percent-encode an object's name for a URL's path, so that no server on the way changes it."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    # Servers and proxies resolve dot segments and merge slashes, but not encoded slashes.
    encode_slashes = has_dot_segments(name) or "" in name.split("/")
    return quote(name, safe="~" if encode_slashes else "/~")


def require_unicode(name: str, noun: str = "object") -> None:
    """Refuse a name with lone surrogates, which cannot be sent.

    Raises:
        ItemNotFoundError: It has some.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ItemNotFoundError(
            f"{name!r} is not Unicode text, as every {noun}'s name is"
        ) from None
