"""Download a blob into a workspace file: in one request, or in parallel ranges if it is large.

The states of a download:

1. The first request (`_open`) asks for the first `chunk_size` bytes. Until it succeeds nothing is
   written, and it is retried as a whole. Its response gives size and ETag.
2. From then on every request carries `If-Match` with that ETag, so that a blob which changes is
   an error (412, ConditionNotMet) and never a mixture of two contents.
3. The body of the first response is the first span. Each span is read by `_pull`: a body that is
   cut or stalls is resumed by a new range request from `span.position`, the first byte that is
   not written yet. Bytes count as read once `write` has returned; none is requested twice.
4. The workspace file owns the temporary file. Leaving its `with` block normally checks length and
   checksums and moves the file to its name; leaving it by an exception deletes it. A download
   therefore resumes within one fetch only; nothing of a failed fetch remains to go on from.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

import aiohttp

from datasources import DataFetchError, ItemNotFoundError, Workspace, WorkspaceFile
from datasources_azure_blob.errors import TransientError
from datasources_azure_blob.folders import require_file
from datasources_azure_blob.service import BlobService, safe_cause
from datasources_azure_blob.versions import is_version

# Bytes. An attempt that brought as many starts the count of retries anew, so that a large blob
# over a bad line arrives, and one that is always cut after a few bytes does not retry for ever.
_MIN_PROGRESS = 64 * 1024
_STREAM_PART = 8 * 1024 * 1024  # bytes of a stream in memory at most, whatever the chunk size is
_PIECE = 256 * 1024  # bytes that a stream hands on at once, so that hashing them takes no time
_MALLOC_WARM_UP = 4 * 1024 * 1024  # bytes, larger than any buffer of a response
# Types of blobs that are written to after they were created.
_CHANGING_TYPES = ("AppendBlob", "PageBlob")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Version:
    """One content of a blob, as the first response describes it."""

    etag: str
    """The value of the header, quotes included."""
    size: int
    """Bytes of the whole blob."""
    md5: bytes | None
    """To check the content with: the stored one of a block blob, None where there is none."""
    encoding: str
    """The blob's Content-Encoding; empty if it has none."""


@dataclass(slots=True)
class Span:
    """A range of bytes that one task reads; `position` advances with each write."""

    position: int
    stop: int
    """The first byte after the range."""


class Download:
    """Downloads one version of one blob; every request after the first is pinned to its ETag.

    Args:
        service: The container.
        blob: The blob's name in the container.
        query: The parameter that selects a snapshot or version; the current content without.
        etag: An ETag to pin the first request to as well.
    """

    def __init__(
        self,
        service: BlobService,
        blob: str,
        query: Mapping[str, str] | None = None,
        *,
        etag: str | None = None,
    ) -> None:
        self._service = service
        self._blob = blob
        self._query = query or {}
        self._etag = etag
        self._chunk = service.options.chunk_size

    async def into(self, workspace: Workspace, name: str) -> str:
        """Download the blob to the workspace as `name`; return the path of the file."""
        response, version = await self._service.retry(lambda: self._open(self._chunk))
        self._etag = version.etag
        try:
            with workspace.create(name, size=version.size) as file:
                file.version = version.etag.strip('"')
                if version.md5 is not None:
                    file.expect_checksum("md5", version.md5)
                # Status 200 is the whole blob: a proxy on the way may not support ranges.
                if version.size <= self._chunk or response.status != 206:
                    span = Span(0, version.size)
                    await self._pull(span, lambda _, data: file.write(data), response)
                else:
                    await self._parallel(file, version.size, response)
        except DataFetchError as exc:
            if version.md5 is None or "its md5 is not" not in str(exc):
                raise
            raise DataFetchError(
                f"{exc}; if it is stored with a wrong MD5, the option 'check_md5' = false fetches it"
            ) from exc
        finally:
            response.close()
        return file.path

    async def head(self, size: int) -> tuple[bytes, Version]:
        """Return the first bytes, `size` at most, and the version they belong to."""
        response, version = await self._service.retry(lambda: self._open(size))
        self._etag = version.etag
        content = bytearray()
        try:
            span = Span(0, min(size, version.size))
            await self._pull(span, lambda _, data: content.extend(data), response)
        finally:
            response.close()
        return bytes(content), version

    async def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop`, of the version this is pinned to."""
        content = bytearray()
        await self._pull(Span(start, stop), lambda _, data: content.extend(data))
        return bytes(content)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to before `stop`, of the version this is pinned to."""
        step = min(self._chunk, _STREAM_PART)
        for position in range(start, stop, step):
            part = await self.part(position, min(stop, position + step))
            for offset in range(0, len(part), _PIECE):
                yield part[offset : offset + _PIECE]

    async def _parallel(
        self, file: WorkspaceFile, size: int, response: aiohttp.ClientResponse
    ) -> None:
        """Read the blob in `concurrency` tasks; `response` is that of the first range."""
        spans = _spans(size, self._chunk)  # one iterator for all: each task takes the next span
        # glibc raises its mmap threshold only when a larger block is freed; until then every
        # buffer that is received is mapped anew, at the cost of its page faults.
        bytearray(_MALLOC_WARM_UP)

        async def pull_spans(first_response: aiohttp.ClientResponse | None) -> None:
            for span in spans:
                await self._pull(span, file.write_at, first_response)
                first_response = None
                # Reads what was written from the page cache, in a thread instead of the loop.
                await asyncio.to_thread(file.update_checksums)

        chunks = -(-size // self._chunk)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(self._service.options.concurrency, chunks)):
                    group.create_task(pull_spans(response if number == 0 else None))
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__

    async def _open(self, size: int) -> tuple[aiohttp.ClientResponse, Version]:
        """Request the first `size` bytes; return the response and the version it describes."""
        headers = {"Range": f"bytes=0-{size - 1}"}
        try:
            response = await self._get(headers)
        except DataFetchError as exc:
            if exc.code != "InvalidRange":
                raise
            # An empty blob has no byte that a range could name.
            response = await self._get({})
        try:
            version = self._version(response)
            if not self._query:
                await require_file(self._service, self._blob, response.headers, version.size)
            return response, version
        except BaseException:
            response.close()
            raise

    async def _get(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        pinned = headers | ({"If-Match": self._etag} if self._etag else {})
        return await self._service.send("GET", self._blob, query=self._query, headers=pinned)

    async def _pull(
        self,
        span: Span,
        write: Callable[[int, bytes], None],
        response: aiohttp.ClientResponse | None = None,
    ) -> None:
        """Read a span to its end, resuming at the byte reached after each transient failure.

        Args:
            span: The bytes to read; its position is advanced.
            write: Called with the offset and the bytes, in order.
            response: An open response to begin with; it is closed here.

        Raises:
            ConnectorError: A failure is permanent, or no retry is left.
        """
        retries = self._service.retries()
        while True:
            started = span.position
            try:
                response = response or await self._request(span)
                await self._copy(response, span, write)
                return
            except TransientError as failure:
                if span.position == span.stop:
                    return  # all bytes have arrived; only the end of the response is broken
                if span.position - started >= _MIN_PROGRESS:
                    retries.reset()
                await retries.pause(failure)
            finally:
                if response is not None:
                    response.close()
                    response = None

    async def _request(self, span: Span) -> aiohttp.ClientResponse:
        headers = {"Range": f"bytes={span.position}-{span.stop - 1}"}
        return await self._get(headers)

    async def _copy(
        self, response: aiohttp.ClientResponse, span: Span, write: Callable[[int, bytes], None]
    ) -> None:
        """Write a response's body, which must begin at `span.position`.

        Raises:
            TransientError: The body ended early.
            DataFetchError: The body is not the requested range.
        """
        subject = self._service.subject(self._blob)
        if response.status == 206 and _start(response) != span.position:
            raise subject.error(DataFetchError, "the service sent another part than was asked for")
        if response.status != 206 and span.position:
            raise subject.error(DataFetchError, "the service sent the whole instead of a part")
        while data := await self._receive(response, span):
            if span.position + len(data) > span.stop and response.status == 206:
                raise subject.error(DataFetchError, "the service sent more than was asked for")
            data = data[: span.stop - span.position]
            write(span.position, data)
            span.position += len(data)
            if span.position == span.stop and response.status != 206:
                return
        if span.position < span.stop:
            raise self._interrupted(None, span)

    async def _receive(self, response: aiohttp.ClientResponse, span: Span) -> bytes:
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, OSError) as exc:
            if self._service.session.closed:
                raise self._service.disconnected_error(self._blob) from safe_cause(exc)
            raise self._interrupted(exc, span) from safe_cause(exc)
        except RuntimeError as exc:
            if not self._service.session.closed:
                raise
            raise self._service.disconnected_error(self._blob) from exc

    def _version(self, response: aiohttp.ClientResponse) -> Version:
        headers, subject = response.headers, self._service.subject(self._blob)
        part = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        size = part[3] if part else headers.get("Content-Length", "")
        etag = headers.get("ETag", "")
        if not size.isdigit() or not etag:
            raise subject.error(DataFetchError, "the service does not tell its length and ETag")
        if not is_version(self._query, headers):
            raise subject.error(ItemNotFoundError, "the service has no such version of it")
        # In a response to a range, Content-MD5 is that of the range, and x-ms-blob-content-md5 that
        # of the blob. There is no CRC64 of a blob: the service makes one of a range of 4 MiB at
        # most. https://learn.microsoft.com/rest/api/storageservices/get-blob
        md5 = headers.get("x-ms-blob-content-md5") or ("" if part else headers.get("Content-MD5"))
        # The service stores the MD5 that a client gave and computes none itself, but for Put Blob.
        # Whoever appends to a blob, or writes pages of it, leaves the one it was created with.
        if headers.get("x-ms-blob-type") in _CHANGING_TYPES or not self._service.options.check_md5:
            md5 = None
        return Version(etag, int(size), _decode_digest(md5), headers.get("Content-Encoding", ""))

    def _interrupted(self, exc: Exception | None, span: Span) -> TransientError:
        why = self._service.network_error(exc, self._blob) if exc else "the answer ended too early"
        reason = f"reading stopped at byte {span.position}: {why}"
        return TransientError(self._service.subject(self._blob).error(DataFetchError, reason))


def _spans(size: int, chunk: int) -> Iterator[Span]:
    return (Span(start, min(size, start + chunk)) for start in range(0, size, chunk))


def _decode_digest(text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if text else None
    except binascii.Error:
        return None


def _start(response: aiohttp.ClientResponse) -> int:
    """Return the offset of a partial response's first byte, or -1 if it does not tell."""
    part = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(part[1]) if part else -1
