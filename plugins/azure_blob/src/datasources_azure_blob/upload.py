"""Upload a local file to a blob through azure-storage-blob, in blocks.

A file of `_MAX_SINGLE_PUT` bytes at most is one request (Put Blob). A larger one is sent as
uncommitted blocks (Put Block), several at once, and becomes the blob when their list is committed
(Put Block List): readers see the old blob or the new one. Blocks of a failed upload stay
uncommitted; the service deletes them after a week.

https://learn.microsoft.com/rest/api/storageservices/put-block-list
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from io import BytesIO
from secrets import token_hex
from typing import Any, BinaryIO

from datasources import (
    ConnectorError,
    DataFetchError,
    guess_media_type,
    open_regular,
    run_in_thread,
)
from datasources_azure_blob.authorization import API_VERSION, Token, import_in_thread
from datasources_azure_blob.errors import TransientError, error_from_response
from datasources_azure_blob.listing import http_time
from datasources_azure_blob.proxies import sdk_transport
from datasources_azure_blob.service import BlobService, has_dot_segments

_MAX_SINGLE_PUT = 1024 * 1024  # bytes of a file that is one request
_BLOCK_SIZE = 4 * 1024 * 1024  # bytes; `concurrency` blocks are in memory at once
# The service's limit for one blob; a file over 195 GiB has larger blocks.
# https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs
_MAX_BLOCKS = 50_000
Progress = Callable[[int, int], None]
# `If-None-Match: *` fails with ConditionNotMet if the blob exists; Put Blob has a code for that.
_BLOB_EXISTS_HEADERS = {"x-ms-error-code": "BlobAlreadyExists"}


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored blob, as the service describes it."""

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

    Readers see the old blob or the complete new one. Without `overwrite`, the service checks at
    the moment of storing that there is no such blob, so that one of two uploads at once fails.

    Raises:
        DataFetchError: The name cannot be stored, the file changed while it was read, the blob
            exists and `overwrite` is False, or the upload failed.
        ConnectorError: The service refuses the upload.
    """
    if has_dot_segments(blob):
        raise service.subject(blob).error(
            DataFetchError, "names with '.' or '..' between slashes cannot be stored"
        )
    sdk = await import_in_thread("azure.storage.blob.aio")
    upload = _Upload(service, blob, sdk, file, size, overwrite, progress)
    # Without `overwrite`, a retry finds a blob in the way that may be this upload's own, stored by
    # an attempt whose response was lost. The names of its blocks tell; an empty file has none.
    in_one_request = size <= _MAX_SINGLE_PUT and (overwrite or size == 0)
    return await (upload.put() if in_one_request else upload.put_blocks())


def open_file(path: str) -> BinaryIO:
    """Open a local regular file, or a link to one, for reading; OSError if that is not possible."""
    return open(path, "rb", opener=partial(open_regular, follow_links=True))


class _Upload:
    """One upload: reads the file in order, once, and hashes it on the way."""

    def __init__(
        self,
        service: BlobService,
        blob: str,
        sdk: Any,
        file: BinaryIO,
        size: int,
        overwrite: bool,
        progress: Progress | None,
    ) -> None:
        self._service = service
        self._blob = blob
        self._sdk = sdk
        self._account = service.account
        self._client = _client(service, blob, sdk)
        self._file = file
        self._size = size
        self._overwrite = overwrite
        self._progress = progress
        self._bytes_read = 0
        self._bytes_sent = 0
        self._md5 = md5(usedforsecurity=False)

    async def put(self) -> Stored:
        """Send the file as one request."""
        data = await run_in_thread(self._read, _MAX_SINGLE_PUT + 1)
        self._check_size()
        stored = await self._store(
            lambda content: self._client.upload_blob(
                data, overwrite=self._overwrite, content_settings=content
            )
        )
        self._report(len(data))
        return stored

    async def put_blocks(self) -> Stored:
        """Send the file as blocks and commit them."""
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
            # The existing blob may be this upload's: committed, and then the response was lost.
            if exc.code != "BlobAlreadyExists":
                raise
            stored = await self._stored_with_block(names[0])
            if stored is None:
                raise
            return stored

    async def _stored_with_block(self, block: str) -> Stored | None:
        """Return the stored blob if it consists of this upload's blocks, else None."""
        query = {"comp": "blocklist", "blocklisttype": "committed"}
        try:
            headers, body = await self._service.read("GET", self._blob, query=query)
        except ConnectorError:
            return None  # credentials that may only write cannot read the list of blocks
        if b64encode(block.encode()) not in body:  # the XML has names in base64
            return None
        return Stored(
            headers.get("ETag", "").strip('"'), http_time(headers.get("Last-Modified", ""))
        )

    async def _stage_all(self) -> list[str]:
        """Send the blocks, `concurrency` at once; return their names in the order of the file."""
        names: list[str] = []
        # All uploads to a blob share the names of its uncommitted blocks, so these must be unique
        # to this upload. All names of a blob must have the same length.
        upload_id = token_hex(8)
        size = max(_BLOCK_SIZE, -(-self._size // _MAX_BLOCKS))
        reading = asyncio.Lock()  # a block and its place in `names` are taken together

        async def send_blocks() -> None:
            while True:
                async with reading:
                    data = await run_in_thread(self._read, size)
                    name = b64encode(f"{upload_id}{len(names):08}".encode()).decode()
                    if not data:
                        return
                    names.append(name)
                await self._stage(name, data)
                self._report(len(data))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._service.options.concurrency):
                    group.create_task(send_blocks())
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__
        return names

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._md5.update(data)
        self._bytes_read += len(data)
        return data

    def _check_size(self) -> None:
        if self._bytes_read != self._size:
            raise self._service.subject(self._blob).error(
                DataFetchError, "the local file changed while it was read; upload it again"
            )

    def _report(self, count: int) -> None:
        self._bytes_sent += count
        if self._progress is not None:
            self._progress(self._bytes_sent, self._size)

    async def _stage(self, name: str, data: bytes) -> None:
        await self._call(lambda: self._client.stage_block(name, BytesIO(data), length=len(data)))

    async def _store(self, request: Callable[[Any], Awaitable[dict[str, Any]]]) -> Stored:
        from azure.storage.blob import ContentSettings

        # The service computes no MD5 of a blob made of blocks; it stores the one that it is given,
        # and every reader can check it.
        content = ContentSettings(
            content_type=guess_media_type(self._blob) or "application/octet-stream",
            content_md5=bytearray(self._md5.digest()),
        )
        properties = await self._call(lambda: request(content))
        return Stored(properties["etag"].strip('"'), properties["last_modified"].timestamp())

    async def _call(self, request: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Call the SDK with this connector's retries and errors.

        The SDK's exceptions are not chained: their text may have the URL, hence a SAS.
        """
        from azure.core.exceptions import AzureError, HttpResponseError

        async def attempt() -> dict[str, Any]:
            account = self._service.account
            if account is not self._account:  # another key or SAS than that of the client
                self._account = account
                self._client = _client(self._service, self._blob, self._sdk)
            try:
                return await request()
            except HttpResponseError as exc:
                status = exc.status_code or 0
                response: Any = exc.response
                headers = response.headers if response is not None else {}
                if headers.get("x-ms-error-code") == "ConditionNotMet":
                    headers = _BLOB_EXISTS_HEADERS
                subject = self._service.subject(self._blob)
                body = response.body() if response is not None else b""
                error = error_from_response(subject, status, headers, body)
                if isinstance(error, ConnectorError) and await self._service.renew(status, account):
                    error = TransientError(error)
                raise error from None
            except AzureError as exc:
                raise self._service.network_error(exc.inner_exception or exc, self._blob) from None

        return await self._service.retry(attempt)


def _client(service: BlobService, blob: str, sdk: Any) -> Any:
    """Return the SDK's client of a blob, on this connector's session and credential.

    Its own retries are off: `_call` retries, and two layers would multiply.
    """
    account, authorization = service.account, service.authorization
    credential: Any = account.sas
    if isinstance(authorization, Token):
        credential = authorization
    elif account.key is not None:
        key = b64encode(account.key).decode()
        credential = {"account_name": account.name, "account_key": key}
    return sdk.BlobClient(
        account.url,
        service.options.container,
        blob,
        credential=credential,
        api_version=API_VERSION,
        transport=sdk_transport(service.session, service.subject(blob)),
        retry_total=0,
        connection_timeout=service.options.connect_timeout,
        read_timeout=service.options.read_timeout,
        max_single_put_size=_BLOCK_SIZE,  # larger than `_MAX_SINGLE_PUT`: never split
    )
