"""One container as a source: what hosts call, in terms of the modules beside it."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO
from xml.etree import ElementTree as ET

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    DataItem,
    DataSourceConnector,
    ItemNotFoundError,
    PermissionDeniedError,
    Preview,
    Workspace,
    glob_prefix,
    glob_regex,
    preview_text,
)
from datasources_azure_blob.download import Download
from datasources_azure_blob.errors import TransientError
from datasources_azure_blob.listing import http_time, last_segment, list_blobs
from datasources_azure_blob.options import AzureBlobOptions
from datasources_azure_blob.parquet import preview_parquet
from datasources_azure_blob.service import BlobService, has_dot_segments
from datasources_azure_blob.upload import upload

_PREVIEW = 256 * 1024  # bytes read for a preview
_PROBE = "datasources-probe"  # a blob that need not exist
_FACTS = {
    "Content-Type": "content_type",
    "Content-Encoding": "content_encoding",
    "Content-Language": "content_language",
    "Content-Disposition": "content_disposition",
    "Cache-Control": "cache_control",
    "Content-MD5": "content_md5",
    "x-ms-blob-type": "blob_type",
    "x-ms-access-tier": "tier",
    "x-ms-archive-status": "archive_status",
    "x-ms-lease-state": "lease_state",
    "x-ms-version-id": "version_id",
}


class AzureBlobConnector(DataSourceConnector):
    """The blobs of one container, or of one folder of it."""

    type = "azure_blob"
    options_class = AzureBlobOptions
    options: AzureBlobOptions
    shareable = True

    async def connect(self) -> bool:
        """Open the session and make sure that the service lets it in.

        Raises:
            ConnectError: The account cannot be reached, or has no such container.
            AuthenticationError: The service refuses the credentials.
        """
        if self._connection is not None:
            return True
        service = BlobService(self.options, connections=self.pool_config.max_size)
        await service.open()
        try:
            await self._check(service)
        except BaseException:
            await service.close()
            raise
        self._connection = service
        return True

    async def disconnect(self) -> None:
        """Close the session; what is still being read through it fails."""
        service, self._connection = self._connection, None
        if service is not None:
            await service.close()

    async def test_connection(self) -> bool:
        """Tell whether the container answers now."""
        if self._connection is None:
            return False
        try:
            await self._check(self._service)
        except ConnectorError:
            return False
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        """List the blobs below a folder, at any depth; `folder/`, with the slash, one level of it.

        One level has its folders as items of the kind `folder`; `/` is the source's own top.

        Raises:
            ItemNotFoundError: There is nothing below the folder.
        """
        return [item async for item in self.iter_items(path)]

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield what `list_items` returns, page by page."""
        folder, level = path or "", ""
        _require_unicode(folder)
        if folder.endswith("/"):
            folder, level = ("" if folder == "/" else folder), "/"
        elif folder:
            folder += "/"
        empty = True
        async for item in self._items(folder, level):
            empty = False
            yield item
        if empty and folder:
            raise ItemNotFoundError(
                f"container {self.options.container!r} has nothing below {folder!r}"
            )

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the blobs whose path matches, in order of their paths."""
        _require_unicode(pattern)
        prefix, matches = glob_prefix(pattern), glob_regex(pattern).fullmatch
        # Without a slash after the first wildcard nothing deeper can match.
        rest = pattern[len(prefix) :]
        level = "" if "/" in rest or "**" in rest else "/"
        found = [
            item
            async for item in self._items(prefix, level)
            if item.metadata["kind"] == "blob" and matches(item.path)
        ]
        return sorted(found, key=lambda item: item.path)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Bring one blob into the workspace, as it is stored; return the path of the file.

        Raises:
            ItemNotFoundError: There is no such blob.
            DataFetchError: The transfer failed, or the blob changed meanwhile.
        """
        directory = Workspace.of(workspace)
        directory.require_format(None)
        download = await self._download(identifier)
        return await download.into(directory, identifier)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Return size, times, content type, ETag, tier, metadata and tags of a blob.

        Raises:
            ItemNotFoundError: There is no such blob.
        """
        name = self._blob_name(identifier)
        headers = await self._headers(name)
        facts: dict[str, Any] = {
            "name": last_segment(identifier),
            "path": identifier,
            "size": int(headers.get("Content-Length", 0)),
            "modified_at": http_time(headers.get("Last-Modified", "")),
            "created_at": http_time(headers.get("x-ms-creation-time", "")),
            "etag": headers.get("ETag", "").strip('"'),
            **{ours: headers[theirs] for theirs, ours in _FACTS.items() if theirs in headers},
            "metadata": {
                header[len("x-ms-meta-") :]: value
                for header, value in headers.items()
                if header.lower().startswith("x-ms-meta-")
            },
        }
        if headers.get("x-ms-tag-count", "0") != "0":
            facts["tags"] = await self._tags(name)
        return facts

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of a text or Parquet blob, reading no more than they need."""
        if identifier.lower().endswith((".parquet", ".pq")):
            return await self._preview_parquet(identifier, rows)
        download = await self._download(identifier)
        head, complete = await download.head(_PREVIEW)
        return preview_text(identifier, head, rows, complete=complete)

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        """Store a local file; `blob_name` is the file's own name by default.

        Raises:
            DataFetchError: There is such a blob and `overwrite` is off, or the upload failed.
        """
        name = blob_name or os.path.basename(local_path)
        try:
            file = _open_regular(local_path)
        except OSError as exc:
            raise DataFetchError(f"cannot read {local_path!r}: {exc.strerror}") from exc
        with file:
            size = os.fstat(file.fileno()).st_size
            blob = self._blob_name(name)
            facts = await upload(self._service, blob, file, size, overwrite=overwrite)
        metadata = {"kind": "blob", "etag": facts["etag"].strip('"')}
        return DataItem(
            last_segment(name), name, size, facts["last_modified"].timestamp(), metadata
        )

    @property
    def _service(self) -> BlobService:
        if self._connection is None:
            raise ConnectError(f"source {self.config.id!r} is not connected")
        service: BlobService = self._connection
        return service

    async def _check(self, service: BlobService) -> None:
        """Ask for as little as proves that host, credentials and container are right."""
        try:
            async with asyncio.timeout(self.options.connect_timeout):
                await self._probe(service)
        except TransientError as failure:
            raise failure.error from failure.__cause__
        except TimeoutError as exc:
            seconds = f"{self.options.connect_timeout:g} s"
            raise service.subject().error(ConnectError, f"no answer within {seconds}") from exc

    async def _probe(self, service: BlobService) -> None:
        try:
            query = {"restype": "container", "comp": "list", "maxresults": "1"}
            (await service.send("GET", query=query)).close()
        except (AuthenticationError, PermissionDeniedError, ConnectError) as refusal:
            # Who may not list can still be told whether a blob is missing; without credentials,
            # the service says of what is not public that it does not exist.
            hidden = self.options.credential == "anonymous" and refusal.code != "ContainerNotFound"
            if not hidden and not isinstance(refusal, PermissionDeniedError):
                raise
            await self._probe_blob(service, refusal)

    async def _probe_blob(self, service: BlobService, refusal: ConnectorError) -> None:
        try:
            (await service.send("HEAD", self.options.prefix + _PROBE)).close()
        except ConnectorError as answer:
            if answer.code == "ContainerNotFound":
                reason = "the container does not exist"
                raise service.subject().error(ConnectError, reason, code=answer.code) from answer
            # With credentials that are good, what they allow shows when it is needed.
            if answer.code != "BlobNotFound" and not isinstance(answer, PermissionDeniedError):
                raise refusal from refusal.__cause__

    async def _items(self, prefix: str, delimiter: str) -> AsyncIterator[DataItem]:
        start = self.options.prefix
        async for item in list_blobs(self._service, start + prefix, delimiter=delimiter):
            item.path = item.path[len(start) :]
            if item.path:  # the folder that the source is may be a blob as well
                yield item

    async def _preview_parquet(self, identifier: str, rows: int) -> Preview:
        name = self._blob_name(identifier)
        headers = await self._headers(name)
        download = Download(self._service, name, etag=headers.get("ETag"))
        return await preview_parquet(
            download, identifier, int(headers.get("Content-Length", 0)), rows
        )

    def _blob_name(self, identifier: str) -> str:
        if not identifier:
            raise ItemNotFoundError("a blob without a name does not exist")
        _require_unicode(identifier)
        return self.options.prefix + identifier

    async def _download(self, identifier: str) -> Download:
        name = self._blob_name(identifier)
        return Download(self._service, name, etag=await self._etag(name))

    async def _headers(self, blob: str) -> Mapping[str, str]:
        etag = await self._etag(blob)
        pinned = {"If-Match": etag} if etag else None
        headers, _ = await self._service.read("HEAD", blob, headers=pinned)
        return headers

    async def _etag(self, blob: str) -> str | None:
        """Return the listed ETag of a blob whose name has dot segments, else None.

        In a URL's path, some server on the way may resolve them, to a blob outside the folder or
        the container of this source; a listing takes the name as a value.  Pinned to this ETag,
        a request cannot bring another blob.
        """
        if not has_dot_segments(blob):
            return None
        async for item in list_blobs(self._service, blob, page=1):
            if item.path == blob:
                return f'"{item.metadata["etag"]}"'
            break  # the name itself comes first of those that start with it
        raise self._service.subject(blob).error(ItemNotFoundError, "it does not exist")

    async def _tags(self, blob: str) -> Mapping[str, str] | None:
        """Return a blob's tags; None where the credentials do not allow it."""
        try:
            _, body = await self._service.read("GET", blob, query={"comp": "tags"})
        except (PermissionDeniedError, AuthenticationError):
            return None
        tags = ET.fromstring(body).iter("Tag")  # noqa: S314
        return {tag.findtext("Key", ""): tag.findtext("Value", "") for tag in tags}


def _open_regular(path: str) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep us waiting
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def _require_unicode(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ItemNotFoundError(f"{name!r} is not Unicode text, as every blob's name is") from None
