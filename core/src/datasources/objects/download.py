"""Download an object into a workspace file: in one request, or in parallel ranges if it is large.

The states of a download:

1. The first request (`_open`) asks for the first `chunk_size` bytes. Until it succeeds nothing is
   written, and it is retried as a whole. Its response gives size and ETag.
2. From then on every request is pinned to that ETag, so that an object which changes is an error
   and never a mixture of two contents.
3. The body of the first response is the first span. Each span is read by `_pull`: a body that is
   cut or stalls is resumed by a new range request from `span.position`, the first byte that is
   not written yet. Bytes count as read once `write` has returned; none is requested twice.
4. The workspace file owns the temporary file. Leaving its `with` block normally checks length and
   checksums and moves the file to its name; leaving it by an exception deletes it. A download
   therefore resumes within one fetch only; nothing of a failed fetch remains to go on from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from datasources.errors import DataFetchError
from datasources.gathering import gather
from datasources.objects.failures import TransientError
from datasources.objects.folders import require_file
from datasources.objects.store import ObjectBody, ObjectInfo, ObjectStore
from datasources.workspace import Workspace, WorkspaceFile

# Bytes. An attempt that brought as many starts the count of retries anew, so that a large object
# over a bad line arrives, and one that is always cut after a few bytes does not retry for ever.
_MIN_PROGRESS = 64 * 1024
_STREAM_PART = 8 * 1024 * 1024  # bytes of a stream in memory at most, whatever the chunk size is
_PIECE = 256 * 1024  # bytes that a stream hands on at once, so that hashing them takes no time
_MALLOC_WARM_UP = 4 * 1024 * 1024  # bytes, larger than any buffer of a response


@dataclass(slots=True)
class Span:
    """A range of bytes that one task reads; `position` advances with each write."""

    position: int
    stop: int
    """The first byte after the range."""


class Download:
    """Downloads one content of one object; every request after the first is pinned to its ETag.

    Args:
        store: The store.
        name: The object's name in the store.
        version: The version that an identifier names; the current content without.
        etag: An ETag to pin the first request to as well.
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        version: str | None = None,
        *,
        etag: str | None = None,
    ) -> None:
        self._store = store
        self._name = name
        self._version = version
        self._etag = etag
        self._chunk = store.options.chunk_size

    async def into(self, workspace: Workspace, name: str) -> str:
        """Download the object to the workspace as `name`; return the path of the file."""
        body = await self._store.retry(lambda: self._open(self._chunk))
        info = body.info
        self._etag = info.etag
        try:
            with workspace.create(name, size=info.size) as file:
                file.version = info.etag
                for algorithm, digest in info.checksums.items():
                    file.expect_checksum(algorithm, digest)
                # A proxy on the way may not support ranges, and send the whole object.
                if info.size <= self._chunk or not body.partial:
                    await self._pull(Span(0, info.size), lambda _, data: file.write(data), body)
                else:
                    await self._parallel(file, info.size, body)
        except DataFetchError as exc:
            hint = self._store.wrong_checksum_hint
            if not hint or "arrived damaged" not in str(exc):
                raise
            raise DataFetchError(f"{exc}; {hint}") from exc
        finally:
            body.close()
        return file.path

    async def head(self, size: int) -> tuple[bytes, ObjectInfo]:
        """Return the first bytes, `size` at most, and the object that they belong to."""
        body = await self._store.retry(lambda: self._open(size))
        self._etag = body.info.etag
        content = bytearray()
        try:
            span = Span(0, min(size, body.info.size))
            await self._pull(span, lambda _, data: content.extend(data), body)
        finally:
            body.close()
        return bytes(content), body.info

    async def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop`, of the content this is pinned to."""
        content = bytearray()
        await self._pull(Span(start, stop), lambda _, data: content.extend(data))
        return bytes(content)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to before `stop`, of the content this is pinned to."""
        step = min(self._chunk, _STREAM_PART)
        for position in range(start, stop, step):
            part = await self.part(position, min(stop, position + step))
            for offset in range(0, len(part), _PIECE):
                yield part[offset : offset + _PIECE]

    async def _parallel(self, file: WorkspaceFile, size: int, body: ObjectBody) -> None:
        """Read the object in `concurrency` tasks; `body` is that of the first range."""
        spans = _spans(size, self._chunk)  # one iterator for all: each task takes the next span
        # glibc raises its mmap threshold only when a larger block is freed; until then every
        # buffer that is received is mapped anew, at the cost of its page faults.
        bytearray(_MALLOC_WARM_UP)

        async def pull_spans(first_body: ObjectBody | None) -> None:
            for span in spans:
                await self._pull(span, file.write_at, first_body)
                first_body = None
                # Reads what was written from the page cache, in a thread instead of the loop.
                await asyncio.to_thread(file.update_checksums)

        chunks = -(-size // self._chunk)
        tasks = min(self._store.options.concurrency, chunks)
        await gather([pull_spans(body if number == 0 else None) for number in range(tasks)])

    async def _open(self, size: int) -> ObjectBody:
        """Request the first `size` bytes; a folder is refused."""
        body = await self._read(0, size)
        try:
            if self._version is None:
                await require_file(self._store, self._name, body.info)
            return body
        except BaseException:
            body.close()
            raise

    async def _read(self, start: int, stop: int) -> ObjectBody:
        return await self._store.read_object(
            self._name, start, stop, version=self._version, etag=self._etag
        )

    async def _pull(
        self,
        span: Span,
        write: Callable[[int, bytes], None],
        body: ObjectBody | None = None,
    ) -> None:
        """Read a span to its end, resuming at the byte reached after each transient failure.

        Args:
            span: The bytes to read; its position is advanced.
            write: Called with the offset and the bytes, in order.
            body: An open body to begin with; it is closed here.

        Raises:
            ConnectorError: A failure is permanent, or no retry is left.
        """
        retries = self._store.retries()
        while True:
            started = span.position
            try:
                body = body or await self._read(span.position, span.stop)
                await self._copy(body, span, write)
                return
            except TransientError as failure:
                if span.position == span.stop:
                    return  # all bytes have arrived; only the end of the response is broken
                if span.position - started >= _MIN_PROGRESS:
                    retries.reset()
                await retries.pause(failure)
            finally:
                if body is not None:
                    body.close()
                    body = None

    async def _copy(
        self, body: ObjectBody, span: Span, write: Callable[[int, bytes], None]
    ) -> None:
        """Write a body, which must begin at `span.position`.

        Raises:
            TransientError: The body ended early.
            DataFetchError: The body is not the requested range.
        """
        subject = self._store.subject(self._name)
        if body.partial and body.start != span.position:
            raise subject.error(DataFetchError, "the service sent another part than was asked for")
        if not body.partial and span.position:
            raise subject.error(DataFetchError, "the service sent the whole instead of a part")
        while data := await self._receive(body, span):
            if span.position + len(data) > span.stop and body.partial:
                raise subject.error(DataFetchError, "the service sent more than was asked for")
            data = data[: span.stop - span.position]
            write(span.position, data)
            span.position += len(data)
            if span.position == span.stop and not body.partial:
                return
        if span.position < span.stop:
            raise self._interrupted("the answer ended too early", span)

    async def _receive(self, body: ObjectBody, span: Span) -> bytes:
        try:
            return await body.read()
        except TransientError as failure:
            raise self._interrupted(str(failure), span) from failure.__cause__

    def _interrupted(self, why: str, span: Span) -> TransientError:
        reason = f"reading stopped at byte {span.position}: {why}"
        return TransientError(self._store.subject(self._name).error(DataFetchError, reason))


def _spans(size: int, chunk: int) -> Iterator[Span]:
    return (Span(start, min(size, start + chunk)) for start in range(0, size, chunk))
