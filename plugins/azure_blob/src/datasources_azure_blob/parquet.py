"""Preview a Parquet blob by reading its footer and the pages that hold the first rows."""

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

_BUFFER = 64 * 1024  # bytes of one request, per column


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
    values: list[tuple[Any, ...]] = []
    for batch in source.iter_batches(batch_size=rows + 1, use_threads=False):
        values += islice(zip(*(column.to_pylist() for column in batch.columns), strict=True), rows)
        if len(values) >= rows:
            break
    return Preview(columns, values[:rows], truncated=source.metadata.num_rows > rows)


class _BlobFile(io.RawIOBase):
    """A blob as a file for pyarrow in a worker thread; each read is a request on the event loop.

    The worker thread blocks in `readinto` until the request is done. `stop`, called on the event
    loop, cancels the request, so that the thread ends when the preview is cancelled; a request
    that the thread begins after that is cancelled there.
    """

    def __init__(self, request: Callable[[int, int], Future[bytes]], size: int) -> None:
        self._request = request
        self._size = size
        self._position = 0
        self._pending: Future[bytes] | None = None
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

    def readinto(self, buffer: Any) -> int:
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        self._pending = self._request(self._position, stop)
        if self._stopped:
            self._pending.cancel()
        data = self._pending.result()
        buffer[: len(data)] = data
        self._position = stop
        return len(data)

    def stop(self) -> None:
        """Cancel the request under way, and with it the read that waits in the thread."""
        self._stopped = True
        if self._pending is not None:
            self._pending.cancel()
