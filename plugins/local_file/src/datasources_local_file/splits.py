"""Read a local file in one version only, for the readers of its splits."""

from __future__ import annotations

import os
from typing import BinaryIO

from datasources import DataFetchError, SplitFile


def mark_of(status: os.stat_result) -> str:
    """Return the mark of a file's content: modification time (ns), size and inode, hexadecimal."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


class FileInVersion:
    """An open file whose reads check that it is still of the version that a plan has seen."""

    closed = False  # pyarrow asks

    def __init__(self, source: BinaryIO, file: SplitFile) -> None:
        self._source = source
        self._file = file
        self._stopped = False

    def read(self, size: int = -1, /) -> bytes:
        """Return as many bytes, fewer only at the end of the file.

        Raises:
            DataFetchError: The file has changed, or `stop` was called.
        """
        data = self._source.read(size)
        # After the read: what is read before a change is right.
        if self._stopped or mark_of(os.fstat(self._source.fileno())) != self._file.mark:
            raise DataFetchError(f"{self._file.path!r} was changed since; plan again")
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def stop(self) -> None:
        self._stopped = True
