"""Upload a local file to a blob through azure-storage-blob, in blocks.

A file of `_MAX_SINGLE_PUT` bytes at most is one request (Put Blob). A larger one is sent as
uncommitted blocks (Put Block), several at once, and becomes the blob when their list is committed
(Put Block List): readers see the old blob or the new one. Blocks of a failed upload stay
uncommitted; the service deletes them after a week.

https://learn.microsoft.com/rest/api/storageservices/put-block-list
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from io import BytesIO
from secrets import token_hex
from typing import Any

from datasources import ConnectorError, DataFetchError, guess_media_type
from datasources.objects import StoredObject, TransientError, UploadSource, http_time
from datasources_azure_blob.authorization import API_VERSION, Token, import_in_thread
from datasources_azure_blob.errors import error_from_response
from datasources_azure_blob.proxies import sdk_transport
from datasources_azure_blob.service import BlobService

_MAX_SINGLE_PUT = 1024 * 1024  # bytes of a file that is one request
_BLOCK_SIZE = 4 * 1024 * 1024  # bytes; `concurrency` blocks are in memory at once
# The service's limit for one blob; a file over 195 GiB has larger blocks.
# https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs
_MAX_BLOCKS = 50_000
# `If-None-Match: *` fails with ConditionNotMet if the blob exists; Put Blob has a code for that.
_BLOB_EXISTS_HEADERS = {"x-ms-error-code": "BlobAlreadyExists"}


async def upload(
    service: BlobService, blob: str, source: UploadSource, *, overwrite: bool
) -> StoredObject:
    """Store a local file as a blob.

    Readers see the old blob or the complete new one. Without `overwrite`, the service checks at
    the moment of storing that there is no such blob, so that one of two uploads at once fails.

    Raises:
        DataFetchError: The file changed while it was read, the blob exists and `overwrite` is
            False, or the upload failed.
        ConnectorError: The service refuses the upload.
    """
    sdk = await import_in_thread("azure.storage.blob.aio")
    upload = _Upload(service, blob, sdk, source, overwrite)
    # Without `overwrite`, a retry finds a blob in the way that may be this upload's own, stored by
    # an attempt whose response was lost. The names of its blocks tell; an empty file has none.
    in_one_request = source.size <= _MAX_SINGLE_PUT and (overwrite or source.size == 0)
    return await (upload.put() if in_one_request else upload.put_blocks())


class _Upload:
    """One upload of a file."""

    def __init__(
        self, service: BlobService, blob: str, sdk: Any, source: UploadSource, overwrite: bool
    ) -> None:
        self._service = service
        self._blob = blob
        self._sdk = sdk
        self._account = service.account
        self._client = _client(service, blob, sdk)
        self._source = source
        self._overwrite = overwrite

    async def put(self) -> StoredObject:
        """Send the file as one request."""
        data = await self._source.read()
        stored = await self._store(
            lambda content: self._client.upload_blob(
                data, overwrite=self._overwrite, content_settings=content
            )
        )
        self._source.report(len(data))
        return stored

    async def put_blocks(self) -> StoredObject:
        """Send the file as blocks and commit them."""
        from azure.storage.blob import BlobBlock

        # All uploads to a blob share the names of its uncommitted blocks, so these must be unique
        # to this upload. All names of a blob must have the same length.
        upload_id = token_hex(8)

        async def stage(number: int, data: bytes) -> str:
            name = b64encode(f"{upload_id}{number:08}".encode()).decode()
            await self._call(
                lambda: self._client.stage_block(name, BytesIO(data), length=len(data))
            )
            return name

        size = max(_BLOCK_SIZE, -(-self._source.size // _MAX_BLOCKS))
        names = await self._source.send_parts(size, self._service.options.concurrency, stage)
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

    async def _stored_with_block(self, block: str) -> StoredObject | None:
        """Return the stored blob if it consists of this upload's blocks, else None."""
        query = {"comp": "blocklist", "blocklisttype": "committed"}
        try:
            headers, body = await self._service.read("GET", self._blob, query=query)
        except ConnectorError:
            return None  # credentials that may only write cannot read the list of blocks
        if b64encode(block.encode()) not in body:  # the XML has names in base64
            return None
        return StoredObject(
            headers.get("ETag", "").strip('"'), http_time(headers.get("Last-Modified", ""))
        )

    async def _store(self, request: Callable[[Any], Awaitable[dict[str, Any]]]) -> StoredObject:
        from azure.storage.blob import ContentSettings

        # The service computes no MD5 of a blob made of blocks; it stores the one that it is given,
        # and every reader can check it.
        content = ContentSettings(
            content_type=guess_media_type(self._blob) or "application/octet-stream",
            content_md5=bytearray(self._source.md5()),
        )
        properties = await self._call(lambda: request(content))
        return StoredObject(properties["etag"].strip('"'), properties["last_modified"].timestamp())

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
                sent = response.request.headers if response is not None else {}
                if isinstance(error, ConnectorError) and await self._service.renew(
                    status, account, sent.get("Authorization")
                ):
                    error = TransientError(error)
                raise error from None
            except AzureError as exc:
                cause = exc.inner_exception or exc
                raise self._service.http.error_of(
                    cause, self._service.account.url, self._service.subject(self._blob)
                ) from None

        return await self._service.retries().call(attempt)


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
