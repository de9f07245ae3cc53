"""The class `DataSourceFileSystem`."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from weakref import WeakValueDictionary

from fsspec.asyn import AsyncFileSystem, sync, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import tokenize

from datasources import DataFetchError, DataItem, ItemNotFoundError, PolicyError, run_in_thread
from datasources_fsspec import paths
from datasources_fsspec.errors import as_os_errors
from datasources_fsspec.files import AsyncDataSourceFile, DataSourceFile
from datasources_fsspec.readers import CopyReader, Item, RangeReader, Reader, copy_item, fetch
from datasources_fsspec.sources import GivenSources, Operations, SettingsSources, has_streams

_FORMATS = ("csv", "parquet")  # in which tables appear

Info = dict[str, Any]


class DataSourceFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Sources as folders, and their items as files: `datasource://SOURCE/ITEM`.

    Files and objects have their paths. A table appears as two files, `TABLE.csv` and
    `TABLE.parquet`, of unknown size: opening one fetches the whole table in this format.

    Args:
        registry: The registry with the sources, also a blocking one, or an `Access` of a registry.
            None finds the sources as the command line does, when they are first used. Pickles leave
            it out, so that another process does that.
        limits: Fields of `Limits` in place of those of a source, such as `{"max_rows": None}`; with
            an `Access`, they can only be narrower.
        options: Those of every file system of fsspec. Listings are not cached by default.
    """

    protocol = paths.PROTOCOL
    root_marker = ""

    def __init__(
        self,
        *,
        registry: Any = None,
        limits: Mapping[str, Any] | None = None,
        use_listings_cache: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(use_listings_cache=use_listings_cache, **options)
        self._sources = SettingsSources() if registry is None else GivenSources(registry)
        self._limits = limits
        self._tables: WeakValueDictionary[str, CopyReader] = WeakValueDictionary()
        self._invalidations = 0

    @property
    def storage_options(self) -> dict[str, Any]:
        """The arguments with which another process makes the file system."""
        return self._storage_options

    @storage_options.setter
    def storage_options(self, options: dict[str, Any]) -> None:
        self._storage_options = {key: options[key] for key in options if key != "registry"}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return paths.to_path(str(path))

    def unstrip_protocol(self, name: str) -> str:
        """Return the URL of a path."""
        return paths.to_url(name)

    def invalidate_cache(self, path: str | None = None) -> None:  # noqa: ARG002  (drops all)
        """Forget the listings that are cached."""
        self._invalidations += 1  # before: a listing that is read now is not to be cached
        self.dircache.clear()

    def ukey(self, path: str) -> str:
        """Return a text that is another one when the file has changed; of a table, each time."""
        info = self.info(path)
        key: str = tokenize(secrets.token_hex(16) if info["size"] is None else info)
        return key

    @as_os_errors
    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        infos: list[Info] | None = self.dircache.get(path)
        if infos is None:
            before = self._invalidations
            infos = await self._list(path)
            if not infos and "/" in path:
                infos = [await self._info(path)]
            if self._invalidations == before:
                self.dircache[path] = infos
        return infos if detail else sorted(info["name"] for info in infos)

    async def _list(self, path: str) -> list[Info]:
        """Return what a folder has; nothing for a folder that is not there."""
        source, folder = paths.split(path)
        if not source:
            return [_directory(source_id) for source_id in await self._sources.list_ids()]
        operations = await self._sources.operations_of(source)
        has_ranges = await has_streams(operations, source)
        items: list[DataItem] = []
        with suppress(ItemNotFoundError):
            items = await operations.list_items(source, f"{folder}/")
        if not folder and not items and not has_ranges:  # tables that are in no folders
            items = await operations.list_items(source)
        return [info for item in items for info in _infos(source, item, has_ranges=has_ranges)]

    @as_os_errors
    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        path = self._strip_protocol(path)
        source, folder = paths.split(path)
        if maxdepth is not None or not source:
            return await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, **kwargs)
        infos = await self._find_below(source, folder)
        if not infos:
            with suppress(FileNotFoundError):
                info = await self._info(path)
                infos = {path: info} if withdirs or info["type"] == "file" else {}
        elif withdirs:
            infos |= _folders_of(infos, path)
        return dict(sorted(infos.items())) if kwargs.get("detail") else sorted(infos)

    async def _find_below(self, source: str, folder: str) -> dict[str, Info]:
        """Return the files below a folder, however deep, from one listing."""
        operations = await self._sources.operations_of(source)
        has_ranges = await has_streams(operations, source)
        below, infos = f"{folder}/" if folder else "", {}
        # Annotated as an iterator, but a generator.
        listing = operations.iter_items(source, folder or None)
        async with aclosing(cast("AsyncGenerator[DataItem]", listing)) as items:
            try:
                async for item in items:
                    if item.path.startswith(below):
                        for info in _infos(source, item, has_ranges=has_ranges):
                            infos[info["name"]] = info
            except ItemNotFoundError:
                if infos:  # the folder was removed while it was listed
                    raise
        return infos

    @as_os_errors
    async def _info(self, path: str, **_: Any) -> Info:
        path = self._strip_protocol(path)
        source, name = paths.split(path)
        if not source:
            return _directory("")
        operations = await self._sources.operations_of(source)
        operations.limits(source)  # raises that there is no such source
        if not name:
            return _directory(path)
        try:
            metadata = await self._metadata(await self._item(path))
        except ItemNotFoundError:
            if await self._is_folder(operations, source, name):
                return _directory(path)
            raise
        return _file(path, metadata.get("size"), metadata.get("modified_at"))

    async def _metadata(self, item: Item) -> dict[str, Any]:
        """Return what the source tells about a file now; nothing of a table."""
        if item.format is not None:
            return {}
        return await item.operations.get_metadata(item.source, item.identifier, refresh=True)

    async def _is_folder(self, operations: Operations, source: str, name: str) -> bool:
        """Return True if there is an item below a folder of that name."""
        listing = operations.iter_items(source, f"{name}/")
        async with aclosing(cast("AsyncGenerator[DataItem]", listing)) as items:
            with suppress(ItemNotFoundError):
                return await anext(items, None) is not None
        return False

    async def _item(self, path: str) -> Item:
        """Return the item that a path names; a source that has only files is not asked.

        Raises:
            ItemNotFoundError: The path names no item of a source with tables.
        """
        source, name = paths.split(path)
        operations = await self._sources.operations_of(source)
        limits = replace(operations.limits(source), **self._limits) if self._limits else None
        if await has_streams(operations, source):
            return Item(operations, source, name, None, True, limits)
        table, _, ending = name.rpartition(".")
        if table and ending in _FORMATS:
            with suppress(ItemNotFoundError):
                if "columns" in await operations.get_metadata(source, table):
                    return Item(operations, source, table, ending, False, limits)
        try:
            metadata = await operations.get_metadata(source, name)
        except (DataFetchError, PolicyError) as exc:  # it was taken for a query
            raise ItemNotFoundError(f"source {source!r} has no item {name!r}") from exc
        if "columns" in metadata:
            raise ItemNotFoundError(f"{path!r} is a table; read it as {path + '.parquet'!r}")
        return Item(operations, source, name, None, False, limits)

    @as_os_errors
    async def _open_reader(self, path: str) -> Reader:
        item = await self._item(path)
        metadata = await self._metadata(item) if item.has_ranges else {}
        size: int | None = metadata.get("size")
        if size is None:
            return await copy_item(item)
        return RangeReader(item, size, metadata.get("etag"))

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        reader = await self._open_reader(self._strip_protocol(path))
        try:
            first, stop, _step = slice(start, end).indices(reader.size)
            return await reader.read(first, stop) if first < stop else b""
        finally:
            reader.close()

    @as_os_errors
    async def _get_file(
        self, rpath: str, lpath: str, callback: Callback = DEFAULT_CALLBACK, **_: Any
    ) -> None:
        rpath = self._strip_protocol(rpath)
        if await self._isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        if not {".", ".."}.isdisjoint(rpath.split("/")):
            raise OSError(f"{rpath!r} is no safe name for a local file; open it instead")

        def report(done: int, total: int | None) -> None:
            callback.set_size(total)
            callback.absolute_update(done)

        above = os.path.dirname(lpath) or "."
        os.makedirs(above, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=above, prefix=".datasources-") as folder:
            os.replace(await fetch(await self._item(rpath), folder, report), lpath)

    @as_os_errors
    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **_: Any) -> None:
        if await run_in_thread(os.path.isdir, lpath):  # folders appear with the files in them
            return
        source, name = paths.split(self._strip_protocol(rpath))
        operations = await self._sources.operations_of(source)
        await operations.upload(source, lpath, name, overwrite=mode != "create")
        self.invalidate_cache()

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        with tempfile.NamedTemporaryFile(prefix="datasources-fsspec-") as file:
            await run_in_thread(file.write, value)
            file.flush()
            await self._put_file(file.name, path, mode=mode)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:
        if await self._isdir(path1):
            return
        with tempfile.TemporaryDirectory(prefix="datasources-fsspec-") as folder:
            copy = os.path.join(folder, "copy")
            await self._get_file(path1, copy)
            await self._put_file(copy, path2)

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Do nothing: a folder appears with the first file in it."""

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: a folder appears with the first file in it."""

    async def _rm_file(self, path: str, **_: Any) -> None:
        raise NotImplementedError(f"{path!r} stays: nothing is deleted from a source")

    async def _size(self, path: str) -> int | None:
        size: int | None = (await self._info(path))["size"]
        opened = self._opened_table(path) if size is None else None
        return opened.size if opened else size

    def _opened_table(self, path: str) -> CopyReader | None:
        reader = self._tables.get(self._strip_protocol(path))
        return reader if reader and reader.is_open else None

    async def _modified(self, path: str) -> datetime:
        """Return the time of the last change; of a table that is open, that of its reading.

        Raises:
            NotImplementedError: The source does not tell it.
        """
        seconds = (await self._info(path)).get("mtime")
        if seconds is None and (opened := self._opened_table(path)):
            seconds = opened.copied_at
        if seconds is None:
            raise NotImplementedError(f"the source does not tell when {path!r} was changed")
        return datetime.fromtimestamp(seconds, UTC)

    modified = sync_wrapper(_modified)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> DataSourceFile:
        if mode not in ("rb", "wb", "xb"):
            raise NotImplementedError(f"mode {mode!r} is not supported; possible: 'rb', 'wb', 'xb'")
        if mode == "xb" and self.exists(path):
            raise FileExistsError(f"{path!r} exists already")
        reader = sync(self.loop, self._open_reader, path) if mode == "rb" else None
        file = DataSourceFile(
            self,
            path,
            mode,
            reader=reader,
            block_size=block_size,
            autocommit=autocommit,
            cache_options=cache_options,
            **kwargs,
        )
        if isinstance(reader, CopyReader):
            self._tables[path] = reader  # DuckDB asks for size and time of what it has opened
        return file

    async def open_async(self, path: str, mode: str = "rb", **_: Any) -> AsyncDataSourceFile:
        """Open a file to read it on the event loop; writing takes `_pipe_file` or `_put_file`."""
        if mode != "rb":
            raise NotImplementedError(f"mode {mode!r} is not supported; possible: 'rb'")
        path = self._strip_protocol(path)
        return AsyncDataSourceFile(self, path, await self._open_reader(path))


def _directory(path: str) -> Info:
    return {"name": path, "size": 0, "type": "directory"}


def _file(path: str, size: int | None, modified_at: float | None) -> Info:
    info: Info = {"name": path, "size": size, "type": "file"}
    return info if modified_at is None else info | {"mtime": modified_at}


def _infos(source: str, item: DataItem, *, has_ranges: bool) -> list[Info]:
    """Return the files that an item of a listing appears as."""
    path = f"{source}/{item.path}"
    if item.metadata.get("kind") == "folder":
        return [_directory(path.rstrip("/"))]
    if not has_ranges and item.metadata.get("kind"):
        return [_file(f"{path}.{ending}", None, None) for ending in _FORMATS]
    # A path that ends in a slash is no file's: object stores have such empty objects.
    return [] if path.endswith("/") else [_file(path, item.size, item.modified_at)]


def _folders_of(names: Iterable[str], top: str) -> dict[str, Info]:
    """Return the folders of files, from `top` on."""
    folders = {top}
    for name in names:
        while (name := name.rpartition("/")[0]) not in folders:
            folders.add(name)
    return {folder: _directory(folder) for folder in folders}
