"""The first rows of a Parquet blob, from the few parts of it that hold them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from typing import Any

from datasources import DataFetchError, Preview
from datasources_azure_blob.authorization import import_in_thread
from datasources_azure_blob.download import Download

_BUFFER = 64 * 1024  # bytes asked for at once, of each column


async def preview_parquet(download: Download, name: str, size: int, rows: int) -> Preview:
    """Return the first rows of the blob that `download` is pinned to.

    Raises:
        DataFetchError: It is not Parquet, or pyarrow is not installed.
    """
    try:
        parquet = await import_in_thread("pyarrow.parquet")
    except ImportError as exc:
        raise DataFetchError(
            f"a preview of {name!r} needs pyarrow; pip install 'datasources-azure-blob[parquet]'"
        ) from exc
    from pyarrow import ArrowException

    loop = asyncio.get_running_loop()
    file = _BlobFile(
        lambda start, stop: asyncio.run_coroutine_threadsafe(download.part(start, stop), loop),
        size,
    )
    try:
        return await asyncio.to_thread(_first_rows, parquet, file, rows)
    except ArrowException as exc:
        reason = str(exc).partition("\n")[0]
        raise DataFetchError(f"{name!r} cannot be read as Parquet: {reason}") from exc
    finally:
        file.stop()


def _first_rows(parquet: Any, file: _BlobFile, rows: int) -> Preview:
    source = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    columns = tuple(source.schema_arrow.names)
    found: list[tuple[Any, ...]] = []
    for batch in source.iter_batches(batch_size=rows + 1, use_threads=False):
        found += islice(zip(*(column.to_pylist() for column in batch.columns), strict=True), rows)
        if len(found) >= rows:
            break
    return Preview(columns, found[:rows], truncated=source.metadata.num_rows > rows)


class _BlobFile(io.RawIOBase):
    """A blob as a file for a worker thread; each read is a request on the event loop."""

    def __init__(self, request: Callable[[int, int], Future[bytes]], size: int) -> None:
        self._request = request
        self._size = size
        self._at = 0
        self._pending: Future[bytes] | None = None
        self._stopped = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        self._pending = self._request(self._at, stop)
        if self._stopped:
            self._pending.cancel()
        data = self._pending.result()
        buffer[: len(data)] = data
        self._at = stop
        return len(data)

    def stop(self) -> None:
        """End the read under way, and with it the thread."""
        self._stopped = True
        if self._pending is not None:
            self._pending.cancel()
