"""A local file into a blob, through the SDK, block by block."""

from __future__ import annotations

import asyncio
import errno
import mimetypes
import os
import stat
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import md5
from io import BytesIO
from secrets import token_hex
from typing import Any, BinaryIO

from datasources import ConnectorError, DataFetchError, run_in_thread
from datasources_azure_blob.authorization import API_VERSION, Token, import_in_thread
from datasources_azure_blob.errors import error_from_response
from datasources_azure_blob.listing import http_time
from datasources_azure_blob.service import BlobService, has_dot_segments

_SMALL = 1024 * 1024  # a file of this size or less is one request
_BLOCK = 4 * 1024 * 1024
_MOST_BLOCKS = 50_000  # of one blob
Progress = Callable[[int, int], None]
_EXISTS = {"x-ms-error-code": "BlobAlreadyExists"}


@dataclass(frozen=True, slots=True)
class Stored:
    """What the service tells of the blob it has stored."""

    etag: str
    """Without quotes."""
    modified_at: float | None


async def upload(
    service: BlobService,
    blob: str,
    file: BinaryIO,
    size: int,
    *,
    overwrite: bool,
    progress: Progress | None = None,
) -> Stored:
    """Store an open file of `size` bytes as a blob.

    Readers see the old blob or the whole new one.  Without `overwrite` the service itself
    decides when it stores, so that of two uploads at once one fails.
    """
    if has_dot_segments(blob):
        raise service.subject(blob).error(
            DataFetchError, "names with '.' or '..' between slashes cannot be stored"
        )
    sdk = await import_in_thread("azure.storage.blob.aio")
    client = _client(service, blob, sdk)
    uploading = _Upload(service, blob, client, file, size, overwrite, progress)
    # What must not overwrite goes in blocks, whose names tell whose blob is in the way.
    at_once = size <= _SMALL and (overwrite or size == 0)
    return await (uploading.put() if at_once else uploading.put_blocks())


def open_regular(path: str) -> BinaryIO:
    """Open a local file for reading, if it is a regular one.

    Raises:
        OSError: It is none, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep us waiting
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def content_type(name: str) -> str:
    """Guess the content type from a blob's name."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


class _Upload:
    def __init__(
        self,
        service: BlobService,
        blob: str,
        client: Any,
        file: BinaryIO,
        size: int,
        overwrite: bool,
        progress: Progress | None,
    ) -> None:
        self._service = service
        self._blob = blob
        self._client = client
        self._file = file
        self._size = size
        self._overwrite = overwrite
        self._progress = progress
        self._read = self._sent = 0
        self._md5 = md5(usedforsecurity=False)

    async def put(self) -> Stored:
        data = await run_in_thread(self._next, _SMALL + 1)
        self._check_size()
        stored = await self._store(
            lambda content: self._client.upload_blob(
                data, overwrite=self._overwrite, content_settings=content
            )
        )
        self._count(len(data))
        return stored

    async def put_blocks(self) -> Stored:
        from azure.storage.blob import BlobBlock

        names = await self._stage_all()
        self._check_size()
        blocks = [BlobBlock(name) for name in names]
        match = {} if self._overwrite else {"if_none_match": "*"}
        try:
            return await self._store(
                lambda content: self._client.commit_block_list(
                    blocks, content_settings=content, **match
                )
            )
        except DataFetchError as exc:
            # The blob in the way may be this one: stored, and then the answer was lost.
            stored = await self._stored_with(names[0]) if exc.code == "BlobAlreadyExists" else None
            if stored is None:
                raise
            return stored

    async def _stored_with(self, block: str) -> Stored | None:
        query = {"comp": "blocklist", "blocklisttype": "committed"}
        try:
            headers, body = await self._service.read("GET", self._blob, query=query)
        except ConnectorError:
            return None  # who may only write is not told
        if b64encode(block.encode()) not in body:  # names of blocks are of one upload only
            return None
        return Stored(
            headers.get("ETag", "").strip('"'), http_time(headers.get("Last-Modified", ""))
        )

    async def _stage_all(self) -> list[str]:
        """Send the blocks, some at once; return their names in order."""
        names: list[str] = []
        # Blocks wait under their names for whoever commits: these are of this upload only.
        upload_id = token_hex(8)
        size = max(_BLOCK, -(-self._size // _MOST_BLOCKS))
        reading = asyncio.Lock()

        async def work() -> None:
            while True:
                async with reading:
                    data = await run_in_thread(self._next, size)
                    name = b64encode(f"{upload_id}{len(names):08}".encode()).decode()
                    if not data:
                        return
                    names.append(name)
                await self._stage(name, data)
                self._count(len(data))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._service.options.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__
        return names

    def _next(self, size: int) -> bytes:
        data = self._file.read(size)
        self._md5.update(data)
        self._read += len(data)
        return data

    def _check_size(self) -> None:
        if self._read != self._size:
            raise self._service.subject(self._blob).error(
                DataFetchError, "the local file changed while it was read; upload it again"
            )

    def _count(self, sent: int) -> None:
        self._sent += sent
        if self._progress is not None:
            self._progress(self._sent, self._size)

    async def _stage(self, name: str, data: bytes) -> None:
        await self._call(lambda: self._client.stage_block(name, BytesIO(data), length=len(data)))

    async def _store(self, request: Callable[[Any], Awaitable[dict[str, Any]]]) -> Stored:
        from azure.storage.blob import ContentSettings

        # The service makes no MD5 of blocks; given one, it keeps it, and every reader can check.
        content = ContentSettings(
            content_type=content_type(self._blob), content_md5=bytearray(self._md5.digest())
        )
        facts = await self._call(lambda: request(content))
        return Stored(facts["etag"].strip('"'), facts["last_modified"].timestamp())

    async def _call(self, request: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        from azure.core.exceptions import AzureError, HttpResponseError

        subject = self._service.subject(self._blob)

        async def attempt() -> dict[str, Any]:
            try:
                return await request()
            except HttpResponseError as exc:
                status = exc.status_code or 0
                response: Any = exc.response
                headers = response.headers if response is not None else {}
                if headers.get("x-ms-error-code") == "ConditionNotMet":
                    headers = _EXISTS
                raise error_from_response(subject, status, headers, response.body()) from None
            except AzureError as exc:
                raise self._service.network_error(exc.inner_exception or exc, self._blob) from None

        return await self._service.retry(attempt)


def _client(service: BlobService, blob: str, sdk: Any) -> Any:
    """Return the SDK's client: our session and credential, and none of its own retries."""
    from azure.core.pipeline.transport import AioHttpTransport

    account, authorization = service.account, service.authorization
    credential: Any = account.sas
    if isinstance(authorization, Token):
        credential = authorization.credential
    elif account.key is not None:
        key = b64encode(account.key).decode()
        credential = {"account_name": account.name, "account_key": key}
    return sdk.BlobClient(
        account.url,
        service.options.container,
        blob,
        credential=credential,
        api_version=API_VERSION,
        transport=AioHttpTransport(session=service.session, session_owner=False),
        retry_total=0,
        connection_timeout=service.options.connect_timeout,
        read_timeout=service.options.read_timeout,
        max_single_put_size=_BLOCK,
    )
