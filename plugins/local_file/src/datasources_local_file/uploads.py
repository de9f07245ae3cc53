"""Store a file below the directory of a source."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from datasources import DataFetchError, ItemExistsError, open_regular

# Where there is O_PATH, a folder may be passed through that may not be listed.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_PART = re.compile(r"\.datasources-[0-9a-f]{16}\.part")
_CHUNK = 1 << 20  # bytes copied between two looks at `is_stopped`


def store_file(
    local_path: str,
    root: str,
    target: str,
    name: str,
    is_stopped: Callable[[], bool],
    *,
    overwrite: bool,
) -> os.stat_result:
    """Copy a file below a directory, where it appears when it is complete; return its status.

    Args:
        local_path: The file; links are not followed.
        root: The directory.
        target: The path below it, whose links are resolved; missing folders are made.
        name: The path as people know it, for errors.
        is_stopped: Returns True if the copy should end, without anything left.
        overwrite: False to refuse if there is a file at `target`.

    Raises:
        ItemExistsError: There is one.
        DataFetchError: The copy failed or was stopped.
    """
    *folders, file_name = os.path.relpath(target, root).split("/")
    part = f".datasources-{secrets.token_hex(8)}.part"
    try:
        with _open_folder(root, folders) as folder:
            try:
                status = _copy(local_path, folder, part, name, is_stopped)
                if overwrite:
                    os.replace(part, file_name, src_dir_fd=folder, dst_dir_fd=folder)
                else:
                    _link(folder, part, file_name, name)
                return status
            finally:
                with suppress(OSError):  # it has its final name, or was not made
                    os.unlink(part, dir_fd=folder)
    except OSError as exc:
        raise DataFetchError(f"{name!r} cannot be stored: {exc.strerror}") from exc


@contextmanager
def _open_folder(root: str, folders: Sequence[str]) -> Iterator[int]:
    """Open a folder below a directory, each in the one above it without following a link.

    Missing folders are made.
    """
    folder = os.open(root, _FOLDER)
    try:
        for each in folders:
            with suppress(FileExistsError):
                os.mkdir(each, dir_fd=folder)
            above, folder = folder, os.open(each, _FOLDER, dir_fd=folder)
            os.close(above)
        yield folder
    finally:
        os.close(folder)


def is_part(name: str) -> bool:
    """Return True for the name that a file has until it is stored."""
    return _PART.fullmatch(name) is not None


def _copy(
    local_path: str, folder: int, part: str, name: str, is_stopped: Callable[[], bool]
) -> os.stat_result:
    with (
        open(local_path, "rb", opener=open_regular) as source,
        open(part, "xb", opener=partial(os.open, dir_fd=folder)) as file,
    ):
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            if is_stopped():
                raise DataFetchError(f"the upload of {name!r} was stopped")
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


def _link(folder: int, part: str, file_name: str, name: str) -> None:
    """Give a file its final name unless another has it: other than a rename, a link refuses."""
    try:
        os.link(part, file_name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError as exc:
        raise ItemExistsError(f"{name!r} exists already, and overwriting is off") from exc
