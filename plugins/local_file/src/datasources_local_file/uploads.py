"""Store a file below the directory of a source."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress

from datasources import DataFetchError, ItemExistsError, open_regular

_PART = re.compile(r"\.datasources-[0-9a-f]{16}\.part")
_CHUNK = 1 << 20  # bytes copied between two looks at `is_stopped`


def store_file(
    local_path: str,
    target: str,
    name: str,
    is_stopped: Callable[[], bool],
    *,
    overwrite: bool,
) -> os.stat_result:
    """Copy a file to a path, where it appears when it is complete; return its status.

    Args:
        local_path: The file; links are not followed.
        target: The path, whose links are resolved; missing folders are made.
        name: The path as people know it, for errors.
        is_stopped: Returns True if the copy should end, without anything left.
        overwrite: False to refuse if there is a file at `target`.

    Raises:
        ItemExistsError: There is one.
        DataFetchError: The copy failed or was stopped.
    """
    folder = os.path.dirname(target)
    part = os.path.join(folder, f".datasources-{secrets.token_hex(8)}.part")
    try:
        os.makedirs(folder, exist_ok=True)
        status = _copy(local_path, part, name, is_stopped)
        if overwrite:
            os.replace(part, target)
        else:
            _link(part, target, name)
        return status
    except OSError as exc:
        raise DataFetchError(f"{name!r} cannot be stored: {exc.strerror}") from exc
    finally:
        with suppress(OSError):  # it has its final name, or was not made
            os.unlink(part)


def is_part(name: str) -> bool:
    """Return True for the name that a file has until it is stored."""
    return _PART.fullmatch(name) is not None


def _copy(local_path: str, part: str, name: str, is_stopped: Callable[[], bool]) -> os.stat_result:
    with open(local_path, "rb", opener=open_regular) as source, open(part, "xb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            if is_stopped():
                raise DataFetchError(f"the upload of {name!r} was stopped")
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


def _link(part: str, target: str, name: str) -> None:
    """Give a file its final name unless another has it: other than a rename, a link refuses."""
    try:
        os.link(part, target)
    except FileExistsError as exc:
        raise ItemExistsError(f"{name!r} exists already, and overwriting is off") from exc
