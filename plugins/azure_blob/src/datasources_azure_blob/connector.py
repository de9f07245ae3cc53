"""One container as a source: what hosts call, in terms of the modules beside it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

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
)
from datasources_azure_blob.download import Download
from datasources_azure_blob.errors import TransientError
from datasources_azure_blob.listing import last_segment, list_blobs, list_page
from datasources_azure_blob.options import AzureBlobOptions
from datasources_azure_blob.parquet import preview_parquet
from datasources_azure_blob.properties import properties_in, tags_in
from datasources_azure_blob.service import BlobService, has_dot_segments
from datasources_azure_blob.text import preview_delimited
from datasources_azure_blob.upload import open_regular, upload
from datasources_azure_blob.versions import (
    is_version,
    list_versions,
    listed_etag,
    split_identifier,
)

T = TypeVar("T")

_PROBE = "datasources-probe"  # a blob that need not exist


class AzureBlobConnector(DataSourceConnector):
    """The blobs of one container, or of one folder of it."""

    type = "azure_blob"
    api_version = 1
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
        folder, level = _folder(path)
        empty = True
        async for item in self._items(folder, level):
            empty = False
            yield item
        if empty and folder:
            raise self._nothing_below(folder)

    async def list_page(
        self, path: str | None = None, *, limit: int, continuation: str | None = None
    ) -> tuple[list[DataItem], str | None]:
        """Return the first `limit` items of `list_items`, and how to go on after them.

        What it returns as second goes into the next call, of any connector to this source, as
        `continuation`; after the last page it is None.

        Raises:
            ItemNotFoundError: There is nothing below the folder.
            OptionError: The continuation is that of another listing, or `limit` is below 1.
        """
        folder, level = _folder(path)
        start = self.options.prefix + folder
        found, more = await list_page(
            self._service, start, delimiter=level, limit=limit, continuation=continuation
        )
        items = [item for item in found if self._take_in(item)]
        if folder and not found and continuation is None:
            raise self._nothing_below(folder)
        return items, more

    async def list_versions(self, identifier: str) -> list[DataItem]:
        """Return the snapshots and earlier versions of a blob, oldest first of each kind.

        Their paths, `?snapshot=TIME/NAME` and `?versionid=TIME/NAME`, are what `fetch_data`,
        `get_metadata` and `preview` take; a blob of exactly such a name goes first.

        Raises:
            ItemNotFoundError: There is no such blob.
        """
        name = self._blob_name(identifier)
        return await self._versions(name, identifier, await self._headers(name, {}))

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

        async def fetch(blob: str, query: Mapping[str, str]) -> str:
            download = Download(self._service, blob, query, etag=await self._etag(blob, query))
            return await download.into(directory, identifier)

        return await self._of(identifier, fetch)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Return size, times, content type, ETag, tier, metadata and tags of a blob.

        Where it has any, also the identifiers of its `snapshots` and `versions`.

        Raises:
            ItemNotFoundError: There is no such blob.
        """

        async def describe(blob: str, query: Mapping[str, str]) -> dict[str, Any]:
            headers = await self._headers(blob, query)
            facts = {"name": last_segment(identifier), "path": identifier} | properties_in(headers)
            if headers.get("x-ms-tag-count", "0") != "0":
                facts["tags"] = await self._tags(blob, query)
            return facts if query else facts | await self._kept(blob, identifier, headers)

        return await self._of(identifier, describe)

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of a text or Parquet blob, reading no more than they need.

        Text with `Content-Encoding: gzip` is shown decompressed.
        """

        async def show(blob: str, query: Mapping[str, str]) -> Preview:
            if identifier.lower().endswith((".parquet", ".pq")):
                headers = await self._headers(blob, query)
                download = Download(self._service, blob, query, etag=headers.get("ETag"))
                size = int(headers.get("Content-Length", 0))
                return await preview_parquet(download, identifier, size, rows)
            download = Download(self._service, blob, query, etag=await self._etag(blob, query))
            return await preview_delimited(download, identifier, rows)

        return await self._of(identifier, show)

    async def upload_file(
        self,
        local_path: str,
        blob_name: str | None = None,
        overwrite: bool = True,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> DataItem:
        """Store a local file; `blob_name` is the file's own name by default.

        Args:
            local_path: The file; it must not change meanwhile.
            blob_name: Its name in the source.
            overwrite: False to leave a blob of that name as it is.
            progress: Called with the bytes stored so far and the file's size.

        Raises:
            DataFetchError: There is such a blob and `overwrite` is off, or the upload failed.
        """
        name = blob_name or os.path.basename(local_path)
        blob = self._blob_name(name)
        try:
            file = open_regular(local_path)
        except OSError as exc:
            raise DataFetchError(f"cannot read {local_path!r}: {exc.strerror}") from exc
        with file:
            size = os.fstat(file.fileno()).st_size
            stored = await upload(
                self._service, blob, file, size, overwrite=overwrite, progress=progress
            )
        metadata = {"kind": "blob", "etag": stored.etag}
        return DataItem(
            last_segment(name), name, size, stored.modified_at, metadata, version=stored.etag
        )

    @property
    def _service(self) -> BlobService:
        service: BlobService = self.require_connection()
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
            if self._take_in(item):
                yield item

    def _take_in(self, item: DataItem) -> bool:
        """Make a container's item the source's; False if it is the folder that the source is."""
        item.path = item.path[len(self.options.prefix) :]
        return bool(item.path)

    def _nothing_below(self, folder: str) -> ItemNotFoundError:
        return ItemNotFoundError(
            f"container {self.options.container!r} has nothing below {folder!r}"
        )

    def _blob_name(self, identifier: str) -> str:
        if not identifier:
            raise ItemNotFoundError("a blob without a name does not exist")
        _require_unicode(identifier)
        return self.options.prefix + identifier

    async def _of(
        self, identifier: str, operation: Callable[[str, Mapping[str, str]], Awaitable[T]]
    ) -> T:
        """Call with the blob of exactly that name, else with the snapshot or version it means."""
        try:
            return await operation(self._blob_name(identifier), {})
        except ItemNotFoundError as exc:
            meant, missing = split_identifier(identifier), exc
            if meant is None:
                raise
        try:
            return await operation(self._blob_name(meant[1]), meant[0])
        except ItemNotFoundError:
            raise missing from None  # it names what was asked for

    async def _headers(self, blob: str, query: Mapping[str, str]) -> Mapping[str, str]:
        etag = await self._etag(blob, query)
        pinned = {"If-Match": etag} if etag else None
        headers, _ = await self._service.read("HEAD", blob, query=query, headers=pinned)
        if not is_version(query, headers):
            raise self._service.subject(blob).error(ItemNotFoundError, "it has no such version")
        return headers

    async def _etag(self, blob: str, query: Mapping[str, str]) -> str | None:
        """Return the listed ETag of a blob whose name has dot segments, else None.

        In a URL's path, some server on the way may resolve them, to a blob outside the folder or
        the container of this source; a listing takes the name as a value.  Pinned to this ETag,
        a request cannot bring another blob.
        """
        if not has_dot_segments(blob):
            return None
        etag = await listed_etag(self._service, blob, query)
        if etag is None:
            raise self._service.subject(blob).error(ItemNotFoundError, "it does not exist")
        return f'"{etag}"'

    async def _versions(
        self, blob: str, identifier: str, headers: Mapping[str, str]
    ) -> list[DataItem]:
        # Asked for versions, an account that keeps none may refuse.
        include = "snapshots,versions" if "x-ms-version-id" in headers else "snapshots"
        return await list_versions(self._service, blob, identifier, include)

    async def _kept(
        self, blob: str, identifier: str, headers: Mapping[str, str]
    ) -> dict[str, list[str]]:
        """Return the identifiers of snapshots and versions; none where listing is not allowed."""
        kept: dict[str, list[str]] = {}
        try:
            items = await self._versions(blob, identifier, headers)
        except ConnectorError as exc:
            hidden = exc.code == "ResourceNotFound"  # as it is to those without credentials
            if not hidden and not isinstance(exc, (PermissionDeniedError, AuthenticationError)):
                raise
            return kept
        for item in items:
            kept.setdefault(f"{item.metadata['kind']}s", []).append(item.path)
        return kept

    async def _tags(self, blob: str, query: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return a blob's tags; None where the credentials do not allow it."""
        try:
            _, body = await self._service.read("GET", blob, query={**query, "comp": "tags"})
        except (PermissionDeniedError, AuthenticationError):
            return None
        try:
            return tags_in(body)
        except SyntaxError as exc:  # as the parser's error is
            subject = self._service.subject(blob)
            raise subject.error(DataFetchError, "the answer is not its tags") from exc


def _folder(path: str | None) -> tuple[str, str]:
    """Return the prefix and the delimiter that list a path."""
    folder = path or ""
    _require_unicode(folder)
    if folder.endswith("/"):
        return ("" if folder == "/" else folder), "/"
    return (f"{folder}/" if folder else ""), ""


def _require_unicode(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ItemNotFoundError(f"{name!r} is not Unicode text, as every blob's name is") from None
