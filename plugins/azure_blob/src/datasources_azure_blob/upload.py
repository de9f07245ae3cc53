"""A local file into a blob, through the SDK, block by block."""

from __future__ import annotations

import asyncio
import mimetypes
from base64 import b64encode
from collections.abc import Awaitable, Callable
from io import BytesIO
from secrets import token_hex
from typing import Any, BinaryIO

from datasources import DataFetchError, run_in_thread
from datasources_azure_blob.authorization import API_VERSION, Token, import_slowly
from datasources_azure_blob.errors import refused
from datasources_azure_blob.service import BlobService, has_dot_segments

_SMALL = 1024 * 1024  # a file of this size or less is one request
_BLOCK = 4 * 1024 * 1024
_MOST_BLOCKS = 50_000  # of one blob
_EXISTS = {"x-ms-error-code": "BlobAlreadyExists"}


async def upload(
    service: BlobService, blob: str, file: BinaryIO, size: int, *, overwrite: bool
) -> dict[str, Any]:
    """Store an open file as a blob; return the service's facts of it, `etag` among them.

    Readers see the old blob or the whole new one.  Without `overwrite` the service itself
    decides when it stores, so that of two uploads at once one fails.
    """
    if has_dot_segments(blob):
        raise service.subject(blob).error(
            DataFetchError, "names with '.' or '..' between slashes cannot be stored"
        )
    sdk = await import_slowly("azure.storage.blob.aio")
    settings = await import_slowly("azure.storage.blob")
    uploading = _Upload(service, blob, _client(service, blob, sdk), overwrite=overwrite)
    content = settings.ContentSettings(content_type=content_type(blob))
    block = max(_BLOCK, -(-size // _MOST_BLOCKS))
    if size <= _SMALL:
        data = await run_in_thread(file.read, _SMALL)
        return await uploading.put(data, content)
    blocks = await uploading.stage(file, block)
    return await uploading.commit([settings.BlobBlock(name) for name in blocks], content)


def content_type(name: str) -> str:
    """Guess the content type from a blob's name."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


class _Upload:
    def __init__(self, service: BlobService, blob: str, client: Any, *, overwrite: bool) -> None:
        self._service = service
        self._blob = blob
        self._client = client
        self._overwrite = overwrite

    async def put(self, data: bytes, content: Any) -> dict[str, Any]:
        return await self._call(
            lambda: self._client.upload_blob(
                data, overwrite=self._overwrite, content_settings=content
            )
        )

    async def stage(self, file: BinaryIO, size: int) -> list[str]:
        """Send the blocks, some at once; return their names in order."""
        names: list[str] = []
        # Blocks wait under their names for whoever commits: these are of this upload only.
        upload_id = token_hex(8)

        reading = asyncio.Lock()

        async def work() -> None:
            while True:
                async with reading:
                    data = await run_in_thread(file.read, size)
                    name = b64encode(f"{upload_id}{len(names):08}".encode()).decode()
                    if not data:
                        return
                    names.append(name)
                await self._stage(name, data)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._service.options.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__
        return names

    async def _stage(self, name: str, data: bytes) -> None:
        await self._call(lambda: self._client.stage_block(name, BytesIO(data), length=len(data)))

    async def commit(self, blocks: list[Any], content: Any) -> dict[str, Any]:
        match = {} if self._overwrite else {"if_none_match": "*"}
        return await self._call(
            lambda: self._client.commit_block_list(blocks, content_settings=content, **match)
        )

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
                raise refused(subject, status, headers, response.body()) from None
            except AzureError as exc:
                raise self._service.lost(exc.inner_exception or exc, self._blob) from None

        return await self._service.retried(attempt)


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
