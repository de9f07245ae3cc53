"""A blob into a workspace file: one request for a small one, parallel ranges for a large one."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import aiohttp

from datasources import DataFetchError, ItemNotFoundError, Workspace, WorkspaceFile
from datasources_azure_blob.errors import TransientError
from datasources_azure_blob.service import BlobService, safe_cause
from datasources_azure_blob.versions import is_version

_PROGRESS = 64 * 1024  # an attempt that brought this much does not count as failed
_LARGER = 4 * 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Version:
    """Which content of a blob is being read."""

    etag: str
    """As the header has it, quotes included."""
    size: int
    md5: bytes | None
    encoding: str
    """The Content-Encoding it is stored with; empty where it has none."""


@dataclass(slots=True)
class Span:
    """A part of a blob: from `at`, which moves, to before `stop`."""

    at: int
    stop: int


class Download:
    """Brings one version of one blob; every request after the first is pinned to its ETag.

    Args:
        service: The container.
        blob: A name in it.
        query: Which snapshot or version; the blob as it is now without.
        etag: The one to pin the first request to as well.
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
        """Write the blob to the workspace as `name`; return the path."""
        response, version = await self._service.retry(lambda: self._open(self._chunk))
        self._etag = version.etag
        try:
            with workspace.create(name, size=version.size) as file:
                file.version = version.etag.strip('"')
                if version.md5 is not None:
                    file.expect_checksum("md5", version.md5)
                # One answer has it all; a server in between may not know ranges.
                if version.size <= self._chunk or response.status != 206:
                    span = Span(0, version.size)
                    await self._pull(span, lambda _, data: file.write(data), response)
                else:
                    await self._parallel(file, version.size, response)
        finally:
            response.close()
        return file.path

    async def head(self, size: int) -> tuple[bytes, Version]:
        """Return the first bytes, `size` at most, and what they are of."""
        response, version = await self._service.retry(lambda: self._open(size))
        self._etag = version.etag
        found = bytearray()
        try:
            span = Span(0, min(size, version.size))
            await self._pull(span, lambda _, data: found.extend(data), response)
        finally:
            response.close()
        return bytes(found), version

    async def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop` of the version it is pinned to."""
        found = bytearray()
        await self._pull(Span(start, stop), lambda _, data: found.extend(data))
        return bytes(found)

    async def _parallel(
        self, file: WorkspaceFile, size: int, response: aiohttp.ClientResponse
    ) -> None:
        spans = _spans(size, self._chunk)
        # The C library keeps freed buffers of a size only once it has seen a larger one freed;
        # until then every piece received costs its page faults anew.
        bytearray(_LARGER)

        async def work(first: aiohttp.ClientResponse | None) -> None:
            for span in spans:
                await self._pull(span, file.write_at, first)
                first = None
                # Follows behind in a thread, from the system's cache: not the loop's time.
                await asyncio.to_thread(file.update_checksums)

        workers = min(self._service.options.concurrency, -(-size // self._chunk))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(workers):
                    group.create_task(work(response if number == 0 else None))
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__

    async def _open(self, size: int) -> tuple[aiohttp.ClientResponse, Version]:
        """Ask for the first bytes, and with them for the version there is."""
        headers = {"Range": f"bytes=0-{size - 1}"}
        try:
            response = await self._get(headers)
        except DataFetchError as exc:
            if exc.code != "InvalidRange":
                raise
            # An empty blob has no range.
            response = await self._get({})
        try:
            return response, self._version(response)
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
        """Read a span to its end, going on at the byte reached after each failure."""
        retries = self._service.retries()
        while True:
            started = span.at
            try:
                response = response or await self._ask(span)
                await self._copy(response, span, write)
                return
            except TransientError as failure:
                if span.at == span.stop:
                    return  # an end that is not as announced takes nothing from it
                if span.at - started >= _PROGRESS:
                    retries.reset()
                await retries.pause(failure)
            finally:
                if response is not None:
                    response.close()
                    response = None

    async def _ask(self, span: Span) -> aiohttp.ClientResponse:
        headers = {"Range": f"bytes={span.at}-{span.stop - 1}"}
        return await self._get(headers)

    async def _copy(
        self, response: aiohttp.ClientResponse, span: Span, write: Callable[[int, bytes], None]
    ) -> None:
        subject = self._service.subject(self._blob)
        if response.status == 206 and _start(response) != span.at:
            raise subject.error(DataFetchError, "the service sent another part than was asked for")
        if response.status != 206 and span.at:
            raise subject.error(DataFetchError, "the service sent the whole instead of a part")
        while piece := await self._piece(response, span):
            if span.at + len(piece) > span.stop and response.status == 206:
                raise subject.error(DataFetchError, "the service sent more than was asked for")
            piece = piece[: span.stop - span.at]
            write(span.at, piece)
            span.at += len(piece)
            if span.at == span.stop and response.status != 206:
                return
        if span.at < span.stop:
            raise self._cut(None, span)

    async def _piece(self, response: aiohttp.ClientResponse, span: Span) -> bytes:
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, OSError) as exc:
            raise self._cut(exc, span) from safe_cause(exc)
        except RuntimeError as exc:
            if not self._service.session.closed:
                raise
            raise self._service.disconnected_error(self._blob) from exc

    def _version(self, response: aiohttp.ClientResponse) -> Version:
        headers, subject = response.headers, self._service.subject(self._blob)
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        size = found[3] if found else headers.get("Content-Length", "")
        etag = headers.get("ETag", "")
        if not size.isdigit() or not etag:
            raise subject.error(DataFetchError, "the service does not tell its length and ETag")
        if not is_version(self._query, headers):
            raise subject.error(ItemNotFoundError, "the service has no such version of it")
        # On a part, Content-MD5 would be the part's; this one is the whole blob's.  There is no
        # CRC64 of a blob: the service makes one of a range, and of no more than 4 MiB.
        text = headers.get("x-ms-blob-content-md5") or ("" if found else headers.get("Content-MD5"))
        return Version(etag, int(size), _digest(text), headers.get("Content-Encoding", ""))

    def _cut(self, exc: Exception | None, span: Span) -> TransientError:
        lost = self._service.network_error(exc, self._blob) if exc else "the answer ended too early"
        reason = f"reading stopped at byte {span.at}: {lost}"
        return TransientError(self._service.subject(self._blob).error(DataFetchError, reason))


def _spans(size: int, chunk: int) -> Iterator[Span]:
    return (Span(at, min(size, at + chunk)) for at in range(0, size, chunk))


def _digest(text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if text else None
    except binascii.Error:
        return None


def _start(response: aiohttp.ClientResponse) -> int:
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1
