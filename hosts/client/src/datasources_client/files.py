"""Files that are complete or absent."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from contextlib import suppress
from io import FileIO

from datasources_client.errors import OptionError, ResponseError

_NAME_MAX = 255  # bytes of one path component, on most file systems


class PartFile:
    """A file that is written beside its final name, and renamed when it is complete.

    As a context manager, it deletes what is not complete. It is locked and named like part files of
    the core, so that `datasources clean` deletes those of processes that were killed.

    Raises:
        OSError: The file cannot be created.
        OptionError: The final name is that of a directory.
    """

    def __init__(self, path: str) -> None:
        if os.path.isdir(path):
            raise OptionError(f"{path!r} is a directory; give the path of a file")
        self.path = os.path.abspath(path)
        self.size = 0
        """Bytes that were written."""
        self._hash = hashlib.sha256()
        self._part, self._file = _create_part(os.path.dirname(self.path))

    def __enter__(self) -> PartFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with suppress(FileNotFoundError):  # renamed
            os.unlink(self._part)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Append bytes; raises OSError."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Drop what was written; raises OSError."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    def complete(self) -> None:
        """Sync the bytes to the disk and give the file its final name; raises OSError."""
        os.fsync(self._file.fileno())
        os.replace(self._part, self.path)


def _create_part(folder: str) -> tuple[str, FileIO]:
    """Create a part file; return its path and the file, locked."""
    while True:
        path = os.path.join(folder, f".datasources-{secrets.token_hex(8)}.part")
        file = FileIO(path, "x")
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            os.stat(path)
            return path, file
        except FileNotFoundError:  # deleted as abandoned before it was locked
            file.close()
        except BaseException:
            file.close()
            os.unlink(path)
            raise


def default_path(directory: str, source: str, item: str, filename: str | None) -> str:
    """Return the path of a download below `directory`, and make its folders.

    It is the file name that the server gives, in a folder named like the source. The folders of an
    item that is a path are kept, and so is an extension that the server has replaced: files of one
    name do not replace one another.

    Raises:
        ResponseError: The server gives no name, or one that is no file name.
        OSError: A folder cannot be made.
    """
    if filename is None or not (_is_plain(filename) and _is_plain(source)):
        raise ResponseError("the server's response has no usable file name; give 'path'")
    *folders, last = item.split("/")
    stem, extension = os.path.splitext(last)
    if not (stem and filename.startswith(stem) and all(map(_is_plain, folders))):
        folders = []
    elif extension and not filename.startswith(last) and _is_plain(last):
        filename = last + os.path.splitext(filename)[1]  # such as `book.xlsx.csv`
    folder = os.path.join(os.path.abspath(directory), source, *folders)
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, filename)


def _is_plain(name: str) -> bool:
    """Return True if a text is a name of one file or folder, and no way to another place."""
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= _NAME_MAX
