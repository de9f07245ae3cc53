"""Read a Parquet object by its footer and the pages that are needed, without fetching it."""

from __future__ import annotations

import asyncio
import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO, TypeVar, cast

from datasources.errors import DataFetchError
from datasources.gathering import gather
from datasources.models import ColumnStatistics, Preview
from datasources.objects.download import Download
from datasources.preview import parquet_statistics, preview_parquet
from datasources.threads import run_in_thread

T = TypeVar("T")

# Bytes at the end that are read at once: the footer of a few hundred columns, or a small file.
TAIL = 256 * 1024


async def preview_parquet_object(
    download: Download, name: str, size: int, rows: int, *, head: bytes = b"", distribution: str
) -> Preview:
    """Return the first rows of the object that `download` is pinned to.

    Args:
        download: Reads the object, and is pinned to an ETag.
        name: Its name, for messages.
        size: Its bytes.
        rows: Rows at most.
        head: Its first bytes, where they have been read.
        distribution: The one whose extra `parquet` brings pyarrow.

    Raises:
        DataFetchError: It is not Parquet, or pyarrow is not installed.
    """
    await _require_pyarrow(f"a preview of {name!r}", distribution)

    def show(file: ObjectFile) -> Preview:
        return preview_parquet(cast("BinaryIO", file), name, rows, prefetch=file.prefetch)

    return await _with_file(download, size, head, show)


async def parquet_object_statistics(
    download: Download, name: str, size: int, *, distribution: str
) -> dict[str, ColumnStatistics]:
    """Return the statistics in the footer of the object that `download` is pinned to.

    Raises:
        DataFetchError: It is not Parquet, or pyarrow is not installed.
    """
    await _require_pyarrow(f"statistics of {name!r}", distribution)
    return await _with_file(
        download, size, b"", lambda file: parquet_statistics(cast("BinaryIO", file), name)
    )


async def _require_pyarrow(what: str, distribution: str) -> None:
    try:  # in a thread, because the import would hold up the event loop for 100 ms and more
        await asyncio.to_thread(import_module, "pyarrow.parquet")
    except ImportError as exc:
        raise DataFetchError(
            f"{what} needs pyarrow; pip install '{distribution}[parquet]'"
        ) from exc


async def _with_file(
    download: Download, size: int, head: bytes, read: Callable[[ObjectFile], T]
) -> T:
    """Call a function that blocks with the object as a file, in a thread."""
    file = ObjectFile(download, size)
    try:
        if head:
            file.store(0, head)
        await file.read_tail(len(head))
        return await run_in_thread(partial(read, file), on_cancel=file.stop)
    finally:
        file.stop()


class ObjectFile(io.RawIOBase):
    """An object as a file for a worker thread; each read is a request on the event loop.

    The worker thread blocks in `readinto` until the request is done. `stop`, called on the event
    loop, cancels the request, so that the thread ends when its caller is cancelled; a request
    that the thread begins after that is cancelled there.

    Args:
        download: Reads the object, and is pinned to an ETag.
        size: Bytes of the object.
    """

    def __init__(self, download: Download, size: int) -> None:
        self._download = download
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._position = 0
        self._starts: list[int] = []
        self._parts: dict[int, bytes] = {}
        """The bytes that are here already, by their offset."""
        self._reading: asyncio.Task[Any] | None = None
        self._stopped = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    async def read_tail(self, start: int = 0) -> None:
        """Read the end of the object from `start` on: a footer of Parquet, or a small object."""
        tail = max(start, self._size - TAIL)
        if tail < self._size:
            self.store(tail, await self._download.part(tail, self._size))

    def store(self, offset: int, data: bytes) -> None:
        """Keep bytes that have been read."""
        self._parts[offset] = data
        self._starts = sorted(self._parts)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Read ranges that are not here yet, at once; the pool of connections limits how many."""
        missing = [
            (start, stop) for start, stop in ranges if len(self._stored(start, stop)) < stop - start
        ]
        for (start, _), data in zip(missing, self._request(missing), strict=True):
            self.store(start, data)

    def readinto(self, buffer: Any) -> int:
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        data = self._stored(self._position, stop)
        if (missing := self._position + len(data)) < stop:  # pyarrow takes less for the end
            data += self._request([(missing, stop)])[0]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def stop(self) -> None:
        """Cancel the request under way; its end ends the read that waits for it in the thread."""
        self._stopped = True
        if self._reading is not None:
            self._reading.cancel()

    def _stored(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` on that are here, up to `stop`; fewer, or none, if less."""
        index = bisect_right(self._starts, start) - 1
        if index < 0:
            return b""
        offset = self._starts[index]
        return self._parts[offset][start - offset : stop - offset]

    def _request(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return asyncio.run_coroutine_threadsafe(self._read_all(ranges), self._loop).result()

    async def _read_all(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        if self._stopped:
            raise asyncio.CancelledError
        self._reading = asyncio.current_task()
        return await gather([self._download.part(*span) for span in ranges])
