"""Read ranges of an item, all of one version of its content."""

from __future__ import annotations

import os
import tempfile
import time
import weakref
from dataclasses import dataclass
from typing import Protocol

from datasources import LimitExceededError, Limits, Progress
from datasources_fsspec.errors import as_os_errors
from datasources_fsspec.sources import Operations


@dataclass(frozen=True)
class Item:
    """An item as the file system has it."""

    operations: Operations
    source: str
    identifier: str
    format: str | None
    """The format in which a table is read; None for a file."""
    has_ranges: bool
    """True if the connector reads ranges of it."""
    limits: Limits | None
    """In place of those of the source; None for those."""


class Reader(Protocol):
    """Reads ranges of one version of an item; `close` may be called twice."""

    size: int

    async def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`, which is not behind the last byte."""
        ...

    def close(self) -> None:
        """Release what the bytes are read from."""
        ...


class RangeReader:
    """Reads ranges of a file from its source.

    Args:
        item: The file.
        size: Its bytes.
        version: The version that has as many bytes; None for that of the first range.
    """

    def __init__(self, item: Item, size: int, version: str | None) -> None:
        self.size = size
        self._item = item
        self._version = version

    @as_os_errors
    async def read(self, start: int, end: int) -> bytes:
        """Return a range of the bytes.

        Raises:
            OSError: The file is another one than that of the ranges before, or a limit is reached.
        """
        item = self._item
        async with item.operations.open_stream(
            item.source, item.identifier, start=start, end=end, limits=item.limits
        ) as stream:
            self._version = self._version or stream.etag
            if stream.etag != self._version:
                raise OSError(f"{item.identifier!r} changed while it was read; open it again")
            return b"".join([chunk async for chunk in stream])

    def close(self) -> None:
        """Do nothing: no range is being read."""


class CopyReader:
    """Reads ranges of a copy that has no name and ends with its last reader or the process."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        # Libraries that read do not always close.
        self._close = weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size
        self.copied_at = time.time()

    async def read(self, start: int, end: int) -> bytes:
        """Return a range of the bytes."""
        return os.pread(self._descriptor, end - start, start)

    @property
    def is_open(self) -> bool:
        """True until the copy is closed."""
        return self._close.alive

    def close(self) -> None:
        """Close the copy."""
        self._close()


async def copy_item(item: Item) -> CopyReader:
    """Fetch an item into a temporary file, and return its reader."""
    with tempfile.TemporaryDirectory(prefix="datasources-fsspec-") as folder:
        return CopyReader(await fetch(item, folder))


async def fetch(item: Item, folder: str, progress: Progress | None = None) -> str:
    """Fetch an item into a folder; return the path of the file.

    Raises:
        LimitExceededError: The item has more rows than the limit, and the file would be a part.
    """
    receipt = await item.operations.fetch(
        item.source,
        item.identifier,
        folder,
        format=item.format,
        limits=item.limits,
        progress=progress,
    )
    if receipt.truncated:
        raise LimitExceededError(
            f"{item.identifier!r} of source {item.source!r} has more rows than the limit of "
            f"{receipt.rows}; raise 'max_rows' by the option 'limits' of the file system, or in the "
            "limits of the source"
        )
    return receipt.path
