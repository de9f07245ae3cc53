"""Serve one container as a source; the modules beside this one do the work."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar

from datasources import (
    AuthenticationError,
    ConnectorError,
    DataFetchError,
    DataItem,
    DataSourceConnector,
    ItemNotFoundError,
    ItemStream,
    Limits,
    Page,
    PermissionDeniedError,
    Preview,
    UnsupportedError,
    Workspace,
    byte_range,
    glob_prefix,
    glob_regex,
    is_parquet,
    is_workbook,
)
from datasources_azure_blob.discovering import discover
from datasources_azure_blob.download import Download
from datasources_azure_blob.folders import (
    folder_error,
    folder_exists,
    is_folder,
    list_items,
    list_page,
    require_file,
)
from datasources_azure_blob.listing import last_segment
from datasources_azure_blob.options import AzureBlobOptions
from datasources_azure_blob.parquet import preview_parquet_blob
from datasources_azure_blob.probe import check_access
from datasources_azure_blob.properties import properties_in, tags_in
from datasources_azure_blob.service import BlobService, has_dot_segments
from datasources_azure_blob.text import preview_text_blob
from datasources_azure_blob.upload import open_file, upload
from datasources_azure_blob.versions import (
    is_version,
    list_versions,
    listed_etag,
    split_identifier,
)
from datasources_azure_blob.workbooks import convert_workbook_blob, preview_workbook_blob

T = TypeVar("T")


class AzureBlobConnector(DataSourceConnector):
    """The blobs of one container, or of one folder of it."""

    type = "azure_blob"
    api_version = 1
    options_class = AzureBlobOptions
    options: AzureBlobOptions
    shareable = True

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:  # noqa: ARG003  (all are)
        """Return `item`: every identifier is the name of a blob."""
        return "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        """Return the name of a blob.

        None for what may be a snapshot or version, as there may also be a blob of that name, and
        for a name with a backslash, which the service stores as a slash.
        """
        if "\\" in identifier or split_identifier(identifier) is not None:
            return None
        return identifier

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> dict[str, list[str]]:
        """Return the containers of the account.

        Raises:
            ConnectorError: The account cannot be reached, or does not list them to these
                credentials.
        """
        return await discover(AzureBlobOptions.load(options), check_address)

    async def connect(self) -> bool:
        """Open the session and check that the container can be used.

        Raises:
            ConnectError: The account cannot be reached, or has no such container.
            AuthenticationError: The service refuses the credentials.
            PermissionDeniedError: The credentials allow nothing with the container.
        """
        if self._connection is not None:
            return True
        service = BlobService(
            self.options,
            connections=self.pool_config.max_size,
            check_address=self.check_address,
            secret=self.secret,
        )
        await service.open()
        try:
            await check_access(service)
        except BaseException:
            await service.close()
            raise
        self._connection = service
        return True

    async def disconnect(self) -> None:
        """Close the session; requests under way fail with ConnectError."""
        service, self._connection = self._connection, None
        if service is not None:
            await service.close()

    async def test_connection(self) -> bool:
        """Return True if the container can be used now."""
        if self._connection is None:
            return False
        try:
            await check_access(self._service)
        except ConnectorError:
            return False
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        """List the blobs below a folder.

        Args:
            path: `folder` lists all blobs below it, at any depth; `folder/`, with the slash, lists
                one level, with its folders as items whose metadata has the kind `folder`; `/` is
                the top level, and None all blobs.

        Raises:
            ItemNotFoundError: There is nothing below the folder.
        """
        return [item async for item in self.iter_items(path)]

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield the items of `list_items`, page by page."""
        folder, delimiter = _folder_and_delimiter(path)
        empty = True
        async for item in self._items(folder, delimiter):
            empty = False
            yield item
        if empty and folder:
            await self._require_folder(folder)

    async def list_page(
        self,
        path: str | None = None,
        *,
        limit: int,
        continuation: str | None = None,
        cursor: str | None = None,
    ) -> Page:
        """Return the next `limit` items of `list_items`, and the cursor of the page after them.

        Args:
            path: As for `list_items`.
            limit: The most items to return.
            continuation: Another name of `cursor`.
            cursor: That of the previous page, from this or any other connector to the same source;
                None for the first page. The one returned is None after the last page. It holds the
                service's marker in clear.

        Raises:
            ItemNotFoundError: There is nothing below the folder.
            OptionError: The cursor belongs to another listing, or `limit` is below 1.
        """
        cursor = cursor if cursor is not None else continuation
        folder, delimiter = _folder_and_delimiter(path)
        listed, next_cursor = await list_page(
            self._service,
            self.options.prefix + folder,
            delimiter=delimiter,
            limit=limit,
            continuation=cursor,
        )
        if folder and not listed and cursor is None:
            await self._require_folder(folder)
        return Page([item for item in listed if self._make_relative(item)], next_cursor)

    async def list_versions(self, identifier: str) -> list[DataItem]:
        """Return the snapshots and earlier versions of a blob, oldest first of each kind.

        Their paths, `?snapshot=TIME/NAME` and `?versionid=TIME/NAME`, are identifiers for
        `fetch_data`, `get_metadata` and `preview`. If there is a blob of exactly that name, the
        identifier means the blob.

        Raises:
            ItemNotFoundError: There is no such blob.
        """
        name = self._blob_name(identifier)
        return await self._versions(name, identifier, await self._headers(name, {}))

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the blobs whose path matches, in order of their paths."""
        _require_unicode(pattern)
        prefix, matches = glob_prefix(pattern), glob_regex(pattern).fullmatch
        # One level is enough unless the pattern goes on to another, or `**` takes in all of them.
        one_level = pattern.count("/") == prefix.count("/") and "**" not in pattern
        delimiter = "/" if one_level else ""
        matching = [
            item
            async for item in self._items(prefix, delimiter)
            if item.metadata["kind"] == "blob" and matches(item.path)
        ]
        return sorted(matching, key=lambda item: item.path)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Download one blob into the workspace, as it is stored; return the path of the file.

        With the format `csv` or `parquet`, the sheet of a workbook is written as that.

        Raises:
            ItemNotFoundError: There is no such blob.
            DataFetchError: The transfer failed, or the blob changed during it.
        """
        directory = Workspace.of(workspace)
        if not is_workbook(identifier):
            directory.require_format(None)

        async def fetch(blob: str, query: Mapping[str, str]) -> str:
            etag = await self._etag_to_pin(blob, query)
            download = Download(self._service, blob, query, etag=etag)
            if directory.file_format is not None:
                return await convert_workbook_blob(download, directory, identifier)
            return await download.into(directory, identifier)

        return await self._exact_or_version(identifier, fetch)

    async def open_stream(
        self,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,  # noqa: ARG002  (the registry keeps to them)
        start: int | None = None,
        end: int | None = None,
    ) -> ItemStream:
        """Return a stream of a blob as it is stored, or of a range of its bytes.

        Every request is pinned to the ETag of the first, so that a blob which changes is an error.

        Raises:
            ItemNotFoundError: There is no such blob.
            OptionError: The range begins after the end of the blob.
            UnsupportedError: A format was asked for.
        """
        if format is not None:
            raise UnsupportedError(f"{identifier!r} is streamed as it is stored")

        async def open_blob(blob: str, query: Mapping[str, str]) -> ItemStream:
            headers = await self._headers(blob, query)
            first, stop = byte_range(int(headers.get("Content-Length", 0)), start, end)
            etag = headers.get("ETag", "")
            download = Download(self._service, blob, query, etag=etag)
            return ItemStream(
                download.chunks(first, stop),
                size=stop - first,
                etag=etag.strip('"'),
                media_type=headers.get("Content-Type"),
            )

        return await self._exact_or_version(identifier, open_blob)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Return the properties of a blob.

        Always there: `name`, `path`, `size` (bytes), `modified_at` and `created_at` (Unix seconds
        or None), `etag`, `metadata`. Where the service tells them: `content_type`,
        `content_encoding`, `content_language`, `content_disposition`, `cache_control`,
        `content_md5`, `blob_type`, `tier`, `archive_status`, `lease_state`, `expires`,
        `version_id`, and `tags` (None if the credentials do not allow reading them). Where there
        are any: the identifiers of its `snapshots` and `versions`.

        Raises:
            ItemNotFoundError: There is no such blob.
        """

        async def describe(blob: str, query: Mapping[str, str]) -> dict[str, Any]:
            headers = await self._headers(blob, query)
            metadata: dict[str, Any] = {"name": last_segment(identifier), "path": identifier}
            metadata |= properties_in(headers)
            if headers.get("x-ms-tag-count", "0") != "0":
                metadata["tags"] = await self._tags(blob, query)
            if not query:
                metadata |= await self._version_identifiers(blob, identifier, headers)
            return metadata

        return await self._exact_or_version(identifier, describe)

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of a text or Parquet blob, from as few bytes as hold them.

        Compressed text is shown decompressed. How text is read, and what is guessed about it, is
        described at `datasources.preview_text`.

        Raises:
            ItemNotFoundError: There is no such blob.
            DataFetchError: It is neither text nor Parquet, or pyarrow is not installed.
        """

        async def show(blob: str, query: Mapping[str, str]) -> Preview:
            if is_parquet(identifier):
                headers = await self._headers(blob, query)
                download = Download(self._service, blob, query, etag=headers.get("ETag"))
                size = int(headers.get("Content-Length", 0))
                return await preview_parquet_blob(download, identifier, size, rows)
            etag = await self._etag_to_pin(blob, query)
            download = Download(self._service, blob, query, etag=etag)
            if is_workbook(identifier):
                return await preview_workbook_blob(download, identifier, rows)
            return await preview_text_blob(download, identifier, rows)

        return await self._exact_or_version(identifier, show)

    async def upload_file(
        self,
        local_path: str,
        blob_name: str | None = None,
        overwrite: bool = True,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> DataItem:
        """Store a local file as a blob; return it as an item, whose version is the new ETag.

        Args:
            local_path: The file; it must not change during the upload.
            blob_name: Name of the blob in the source; the file's own name by default.
            overwrite: False to fail if there is a blob of that name.
            progress: Called on the event loop with the bytes stored so far and the file's size.

        Raises:
            DataFetchError: The file cannot be read or changed, the blob exists and `overwrite` is
                False, or the upload failed.
        """
        name = blob_name or os.path.basename(local_path)
        blob = self._blob_name(name)
        try:
            file = open_file(local_path)
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

    async def _items(self, prefix: str, delimiter: str) -> AsyncIterator[DataItem]:
        full_prefix = self.options.prefix + prefix
        async for item in list_items(self._service, full_prefix, delimiter=delimiter):
            if self._make_relative(item):
                yield item

    def _make_relative(self, item: DataItem) -> bool:
        """Make an item's path relative to the source's prefix; False if it is the prefix itself."""
        item.path = item.path[len(self.options.prefix) :]
        return bool(item.path)

    async def _require_folder(self, folder: str) -> None:
        """Refuse a folder that is not even an empty one.

        Raises:
            ItemNotFoundError: There is neither a blob below it nor a marker for it.
        """
        name = self.options.prefix + folder.rstrip("/")
        if not await folder_exists(self._service, name):
            raise ItemNotFoundError(
                f"container {self.options.container!r} has nothing below {folder.rstrip('/')!r}"
            )

    def _blob_name(self, identifier: str) -> str:
        if not identifier:
            raise ItemNotFoundError("a blob without a name does not exist")
        _require_unicode(identifier)
        return self.options.prefix + identifier

    async def _exact_or_version(
        self, identifier: str, operation: Callable[[str, Mapping[str, str]], Awaitable[T]]
    ) -> T:
        """Call `operation` for the blob of that name; if missing, for the version it may name.

        `operation` takes the blob's name in the container, and the query that selects a version.
        """
        try:
            return await operation(self._blob_name(identifier), {})
        except ItemNotFoundError as exc:
            not_found = exc
        if version := split_identifier(identifier):
            query, name = version
            with suppress(ItemNotFoundError):
                return await operation(self._blob_name(name), query)
        blob = self._blob_name(identifier)
        if not_found.code == "BlobNotFound" and await is_folder(self._service, blob):
            raise folder_error(self._service, blob)
        raise not_found from None  # the error that names the identifier as given

    async def _headers(self, blob: str, query: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of Get Blob Properties."""
        etag = await self._etag_to_pin(blob, query)
        pinned = {"If-Match": etag} if etag else None
        headers, _ = await self._service.read("HEAD", blob, query=query, headers=pinned)
        if not is_version(query, headers):
            raise self._service.subject(blob).error(ItemNotFoundError, "it has no such version")
        if not query:
            size = int(headers.get("Content-Length", 0))
            await require_file(self._service, blob, headers, size)
        return headers

    async def _etag_to_pin(self, blob: str, query: Mapping[str, str]) -> str | None:
        """Return the listed ETag of a blob whose name has dot segments, None for other names.

        A proxy on the way may resolve dot segments in a URL's path, and so reach a blob outside
        the folder or the container of this source. A listing has the name as a query parameter,
        which nothing resolves. A request with `If-Match` and the ETag from the listing cannot
        return another blob.
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
        # An account without versioning may refuse to include versions.
        include = "snapshots,versions" if "x-ms-version-id" in headers else "snapshots"
        return await list_versions(self._service, blob, identifier, include)

    async def _version_identifiers(
        self, blob: str, identifier: str, headers: Mapping[str, str]
    ) -> dict[str, list[str]]:
        """Return the identifiers of snapshots and versions; none if listing is not allowed."""
        identifiers: dict[str, list[str]] = {}
        try:
            items = await self._versions(blob, identifier, headers)
        except ConnectorError as exc:
            hidden = exc.code == "ResourceNotFound"  # the service's answer to anonymous callers
            if not hidden and not isinstance(exc, (PermissionDeniedError, AuthenticationError)):
                raise
            return identifiers
        for item in items:
            identifiers.setdefault(f"{item.metadata['kind']}s", []).append(item.path)
        return identifiers

    async def _tags(self, blob: str, query: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return a blob's tags, or None if the credentials do not allow reading them."""
        try:
            _, body = await self._service.read("GET", blob, query={**query, "comp": "tags"})
        except (PermissionDeniedError, AuthenticationError):
            return None
        try:
            return tags_in(body)
        except SyntaxError as exc:  # the base class of ElementTree.ParseError
            subject = self._service.subject(blob)
            raise subject.error(DataFetchError, "the answer is not its tags") from exc


def _folder_and_delimiter(path: str | None) -> tuple[str, str]:
    """Return the prefix and the delimiter of the listing for a path of `list_items`."""
    folder = path or ""
    _require_unicode(folder)
    if folder.endswith("/"):
        return ("" if folder == "/" else folder), "/"
    return (f"{folder}/" if folder else ""), ""


def _require_unicode(name: str) -> None:
    """Refuse a name with lone surrogates, which cannot be sent."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ItemNotFoundError(f"{name!r} is not Unicode text, as every blob's name is") from None
