"""Open files of the file system."""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from fsspec.asyn import AbstractAsyncStreamedFile, sync
from fsspec.spec import AbstractBufferedFile

from datasources_fsspec.readers import Reader

if TYPE_CHECKING:
    from datasources_fsspec.filesystem import DataSourceFileSystem


class DataSourceFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file that is read by ranges, or written to a temporary file and stored when it is closed.

    A `with` block of this object that ends in an error stores nothing. Wrappers, such as those for
    text, close it without telling of the error, and what was written is stored.
    """

    def __init__(
        self,
        fs: DataSourceFileSystem,
        path: str,
        mode: str,
        *,
        reader: Reader | None = None,
        **options: Any,
    ) -> None:
        self._reader = reader
        self._written: IO[bytes] | None = None
        if reader is not None:
            options["size"] = reader.size
        super().__init__(fs, path, mode, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        assert self._reader is not None
        content: bytes = sync(self.fs.loop, self._reader.read, start, min(end, self.size))
        return content

    def _initiate_upload(self) -> None:
        self._written = tempfile.NamedTemporaryFile(prefix="datasources-fsspec-")  # noqa: SIM115  (`close` closes it)

    def _upload_chunk(self, final: bool = False) -> bool:
        assert self._written is not None
        self._written.write(self.buffer.getvalue())
        if final:
            self._written.flush()
            if self.autocommit:
                self.commit()
        return True

    def commit(self) -> None:
        """Store what was written."""
        assert self._written is not None
        mode = "create" if self.mode == "xb" else "overwrite"
        try:
            self.fs.put_file(self._written.name, self.path, mode=mode)
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete what was written."""
        if self._written is not None:
            self._written.close()

    def close(self) -> None:
        """Store what was written, and release what is read from."""
        try:
            super().close()
        finally:
            if self._reader is not None:
                self._reader.close()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None and self.mode != "rb":
            self.discard()
            self.closed = True
        self.close()


class AsyncDataSourceFile(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec has no types
    """A file that is read by ranges on the event loop."""

    def __init__(self, fs: DataSourceFileSystem, path: str, reader: Reader) -> None:
        self._reader = reader
        super().__init__(fs, path, "rb", cache_type="none", size=reader.size)

    async def _fetch_range(self, start: int, end: int) -> bytes:
        return await self._reader.read(start, min(end, self.size))

    async def close(self) -> None:
        """Release what is read from."""
        await super().close()
        self._reader.close()
