"""The base of connectors to object stores: everything that listed names and ranged reads give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from datasources.errors import ConnectorError, ItemNotFoundError, UnsupportedError
from datasources.models import ColumnStatistics, DataItem, Limits, Page, Preview
from datasources.objects.download import Download
from datasources.objects.files import ObjectFiles
from datasources.objects.folders import folder_exists, list_objects, list_objects_page
from datasources.objects.names import last_segment, require_unicode
from datasources.objects.parquet import parquet_object_statistics, preview_parquet_object
from datasources.objects.previews import (
    convert_workbook_object,
    preview_text_object,
    preview_workbook_object,
)
from datasources.objects.store import ObjectInfo
from datasources.preview import is_parquet, is_workbook
from datasources.streams import ItemStream, byte_range
from datasources.tabular import glob_prefix, glob_regex
from datasources.workspace import Workspace


class ObjectConnector(ObjectFiles):
    """The objects of one container of a store, or of one folder of it.

    A subclass implements the methods of `ObjectStore`. Its options class derives from
    `ObjectStoreOptions`.
    """

    shareable = True

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:  # noqa: ARG003  (all are)
        """Return `item`: every identifier is the name of an object."""
        return "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        """Return the name of an object; None for what may be a version of another one."""
        return None if cls.split_version(identifier) else identifier

    async def connect(self) -> bool:
        """Open the client of the store, and check that the store can be used."""
        if self._connection is not None:
            return True
        store = await self.open_store()
        try:
            await self.check_store(store)
        except BaseException:
            await self.close_store(store)
            raise
        self._connection = store
        return True

    async def disconnect(self) -> None:
        """Close the client; requests under way fail with ConnectError."""
        store, self._connection = self._connection, None
        if store is not None:
            await self.close_store(store)

    async def test_connection(self) -> bool:
        """Return True if the store can be used now."""
        if self._connection is None:
            return False
        try:
            await self.check_store(self._connection)
        except ConnectorError:
            return False
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        """List the objects below a folder.

        Args:
            path: `folder` lists all objects below it, at any depth; `folder/`, with the slash, lists
                one level, with its folders as items whose metadata has the kind `folder`; `/` is
                the top level, and None all objects.

        Raises:
            ItemNotFoundError: There is nothing below the folder.
        """
        return [item async for item in self.iter_items(path)]

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield the items of `list_items`, page by page."""
        folder, delimiter = self._folder_and_delimiter(path)
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
                store's marker in clear.

        Raises:
            ItemNotFoundError: There is nothing below the folder.
            OptionError: The cursor belongs to another listing, or `limit` is below 1.
        """
        cursor = cursor if cursor is not None else continuation
        folder, delimiter = self._folder_and_delimiter(path)
        self.require_connection()
        listed, next_cursor = await list_objects_page(
            self, self.options.prefix + folder, delimiter=delimiter, limit=limit, cursor=cursor
        )
        if folder and not listed and cursor is None:
            await self._require_folder(folder)
        return Page([item for item in listed if self._make_relative(item)], next_cursor)

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the objects whose path matches, in order of their paths."""
        require_unicode(pattern, self.subject_class.object_noun)
        prefix, matches = glob_prefix(pattern), glob_regex(pattern).fullmatch
        # One level is enough unless the pattern goes on to another, or `**` takes in all of them.
        one_level = pattern.count("/") == prefix.count("/") and "**" not in pattern
        matching = [
            item
            async for item in self._items(prefix, "/" if one_level else "")
            if item.metadata.get("kind") != "folder" and matches(item.path)
        ]
        return sorted(matching, key=lambda item: item.path)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Download one object into the workspace, as it is stored; return the path of the file.

        With the format `csv` or `parquet`, the sheet of a workbook is written as that.

        Raises:
            ItemNotFoundError: There is no such object.
            DataFetchError: The transfer failed, or the object changed during it.
        """
        directory = Workspace.of(workspace)
        if not is_workbook(identifier):
            directory.require_format(None)

        async def fetch(name: str, version: str | None) -> str:
            download = Download(self, name, version, etag=await self._etag_to_pin(name, version))
            if directory.file_format is not None:
                return await convert_workbook_object(download, directory, identifier)
            return await download.into(directory, identifier)

        return await self.exact_or_version(identifier, fetch)

    async def open_stream(
        self,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,  # noqa: ARG002  (the registry keeps to them)
        start: int | None = None,
        end: int | None = None,
    ) -> ItemStream:
        """Return a stream of an object as it is stored, or of a range of its bytes.

        Every request is pinned to the ETag of the first, so that an object which changes is an
        error.

        Raises:
            ItemNotFoundError: There is no such object.
            OptionError: The range begins after the end of the object.
            UnsupportedError: A format was asked for.
        """
        if format is not None:
            raise UnsupportedError(f"{identifier!r} is streamed as it is stored")

        async def open_object(name: str, version: str | None) -> ItemStream:
            info = await self.describe_file(name, version)
            first, stop = byte_range(info.size, start, end)
            download = Download(self, name, version, etag=info.etag)
            return ItemStream(
                download.chunks(first, stop),
                size=stop - first,
                etag=info.etag,
                media_type=info.content_type,
            )

        return await self.exact_or_version(identifier, open_object)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Return `name`, `path`, `size` (bytes), `etag`, and what the store tells beyond these.

        Raises:
            ItemNotFoundError: There is no such object.
        """

        async def describe(name: str, version: str | None) -> dict[str, Any]:
            info = await self.describe_file(name, version)
            metadata = {"name": last_segment(identifier), "path": identifier, "size": info.size}
            metadata |= {"etag": info.etag, **info.properties}
            return metadata | await self.more_metadata(name, version, identifier, info)

        return await self.exact_or_version(identifier, describe)

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of text, Parquet or a workbook, from as few bytes as hold them.

        Compressed text is shown decompressed. How text is read, and what is guessed about it, is
        described at `datasources.preview_text`.

        Raises:
            ItemNotFoundError: There is no such object.
            DataFetchError: It is none of these, or a package is not installed.
        """
        distribution = self.distribution

        async def show(name: str, version: str | None) -> Preview:
            if is_parquet(identifier):
                info = await self.describe_file(name, version)
                download = Download(self, name, version, etag=info.etag)
                return await preview_parquet_object(
                    download, identifier, info.size, rows, distribution=distribution
                )
            download = Download(self, name, version, etag=await self._etag_to_pin(name, version))
            if is_workbook(identifier):
                return await preview_workbook_object(download, identifier, rows)
            return await preview_text_object(download, identifier, rows, distribution=distribution)

        return await self.exact_or_version(identifier, show)

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        """Return the figures of a Parquet object's numeric columns that are in its footer.

        A column whose writer left no figures is missing, and no mean is known.

        Raises:
            ItemNotFoundError: There is no such object.
            UnsupportedError: It is not Parquet.
            DataFetchError: It is damaged, or pyarrow is not installed.
        """

        async def compute(name: str, version: str | None) -> dict[str, ColumnStatistics]:
            info = await self.describe_file(name, version)
            if not is_parquet(identifier):
                raise UnsupportedError(f"{identifier!r} has no statistics; Parquet files have")
            download = Download(self, name, version, etag=info.etag)
            return await parquet_object_statistics(
                download, identifier, info.size, distribution=self.distribution
            )

        return await self.exact_or_version(identifier, compute)

    async def more_metadata(
        self,
        name: str,  # noqa: ARG002  (for subclasses)
        version: str | None,  # noqa: ARG002
        identifier: str,  # noqa: ARG002
        info: ObjectInfo,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return entries of `get_metadata` that need further requests, such as tags; none here."""
        return {}

    async def _items(self, prefix: str, delimiter: str) -> AsyncIterator[DataItem]:
        self.require_connection()
        full_prefix = self.options.prefix + prefix
        async for item in list_objects(self, full_prefix, delimiter=delimiter):
            if self._make_relative(item):
                yield item

    def _make_relative(self, item: DataItem) -> bool:
        """Make an item's path relative to the source's prefix; False if it is the prefix itself."""
        item.path = item.path[len(self.options.prefix) :]
        return bool(item.path)

    async def _require_folder(self, folder: str) -> None:
        """Refuse a folder that is not even an empty one.

        Raises:
            ItemNotFoundError: There is neither an object below it nor a marker for it.
        """
        name = folder.rstrip("/")
        if not await folder_exists(self, self.options.prefix + name):
            raise ItemNotFoundError(f"{self.subject()} has nothing below {name!r}")

    def _folder_and_delimiter(self, path: str | None) -> tuple[str, str]:
        """Return the prefix and the delimiter of the listing for a path of `list_items`."""
        folder = path or ""
        require_unicode(folder, self.subject_class.object_noun)
        if folder.endswith("/"):
            return ("" if folder == "/" else folder), "/"
        return (f"{folder}/" if folder else ""), ""
