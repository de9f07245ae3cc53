"""List, describe, preview, copy and store the files below one directory."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, Literal

from pydantic import Field

from datasources import (
    MAX_WORKBOOK,
    ColumnStatistics,
    ConnectError,
    ConnectorError,
    ConnectorOptions,
    DataFetchError,
    DataItem,
    ItemNotFoundError,
    ItemStream,
    Limits,
    OptionError,
    Page,
    PermissionDeniedError,
    PinnedFile,
    Preview,
    SplitFile,
    SplittableFiles,
    UnsupportedError,
    Workspace,
    byte_range,
    convert_workbook,
    copy_file,
    glob_prefix,
    glob_regex,
    guess_media_type,
    is_parquet,
    is_workbook,
    open_below,
    parquet_statistics,
    preview_file,
    run_in_thread,
)
from datasources_local_file.pages import Keep, entries_after, first_after, walk_after
from datasources_local_file.splits import FileInVersion, mark_of
from datasources_local_file.uploads import is_part, store_file

_CHUNK = 1 << 20  # bytes read at once
_MOST_FOLDERS = 1000  # more are no choice for a person
_EFFECTIVE_IDS = os.access in os.supports_effective_ids
# Below the logger whose warnings the command line shows.
_log = logging.getLogger("datasources.plugins.local_file")
# Errors of a folder below the one that is listed which leave that folder out: it was deleted
# meanwhile, or may not be read, as `lost+found`.
_SKIPPED = (FileNotFoundError, NotADirectoryError, PermissionError)


class LocalFileOptions(ConnectorOptions):
    """The directory, and which of its files are items."""

    path: str = Field(
        min_length=1,
        description="Directory whose files are the items; '~' is the home directory.",
        examples=["/srv/data"],
    )
    hidden: bool = Field(
        default=False, description="Show files and folders whose name starts with a dot."
    )
    writable: bool = Field(default=False, description="Take files that users upload.")

    sample_identifiers = (
        ("reports/2024.csv", "one file, by its path below the directory"),
        ("reports/*.csv", "all CSV files of a folder"),
        ("**/*.csv", "all CSV files, however deep"),
    )

    def destination(self) -> dict[str, Any]:
        """Return the directory; there is no secret that could be sent anywhere."""
        return {"path": self.path}

    def paths(self) -> list[str]:
        """Return the directory, for the host's policy."""
        return [os.path.expanduser(self.path)]


def _subfolders(root: str, hidden: bool) -> list[str]:
    """Return the paths of at most `_MOST_FOLDERS` folders, sorted; links are not followed."""
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as exc:
        raise ConnectError(f"{root!r} cannot be read: {exc.strerror}") from exc
    shown = sorted(name for name in names if hidden or not name.startswith("."))
    return [os.path.join(root, name) for name in shown[:_MOST_FOLDERS]]


class LocalFileConnector(SplittableFiles):
    """Reads below the directory only: symbolic links that lead outside are not items.

    An item's identifier is its path below the directory, with `/` between segments.
    """

    type = "local_file"
    api_version = 1
    options_class = LocalFileOptions
    options: LocalFileOptions
    shareable = True
    distribution = "datasources-local-file"

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:  # noqa: ARG003  (all are)
        """Return `item`: every identifier is the path of a file."""
        return "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        """Return the path of a file; None for a path that is no file's."""
        return identifier if _is_path(identifier) else None

    @classmethod
    async def discover(
        cls,
        options: Mapping[str, Any],
        *,
        check_address: Callable[[str], None],  # noqa: ARG003  (nothing is connected to)
    ) -> dict[str, list[str]]:
        """Return the folders in the directory, hidden ones only with the option `hidden`.

        Raises:
            ConnectError: The directory cannot be read.
        """
        loaded = LocalFileOptions.load(options)
        return {"path": await run_in_thread(_subfolders, loaded.paths()[0], loaded.hidden)}

    async def connect(self) -> bool:
        path = self.options.paths()[0]
        try:
            root = await run_in_thread(os.path.realpath, path)
        except UnicodeEncodeError:
            raise ConnectError(
                f"{path!r} is no path where file names are {sys.getfilesystemencoding()}; set a "
                "UTF-8 locale, such as LC_ALL=C.UTF-8, or PYTHONUTF8=1"
            ) from None
        if not await run_in_thread(os.path.isdir, root):
            raise ConnectError(f"{root!r} is not a directory")
        self._connection = root
        return True

    async def disconnect(self) -> None:
        self._connection = None

    async def test_connection(self) -> bool:
        root = self._connection
        return root is not None and await run_in_thread(os.access, root, os.R_OK | os.X_OK)

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return [item async for item in self.iter_items(path)]

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield all files below a path, folder by folder; for a path that ends in `/`, one folder."""
        one_folder = path is not None and path.endswith("/")
        pages = await run_in_thread(self._list_folder if one_folder else self._walk, path or "")
        while page := await run_in_thread(next, pages, None):
            for item in page:
                yield item

    async def list_page(
        self, path: str | None = None, *, cursor: str | None = None, limit: int
    ) -> Page:
        """Return the next items of `list_items`; the cursor is the path of the last one."""
        return await run_in_thread(self._page, path or "", cursor or "", limit)

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the files whose path matches, sorted by path."""
        folder, matches = glob_prefix(pattern).rpartition("/")[0], glob_regex(pattern).fullmatch
        try:
            matching = [item async for item in self.iter_items(folder) if matches(item.path)]
        except ItemNotFoundError:
            return []
        return sorted(matching, key=lambda item: item.path)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Copy one file into the workspace; return the path of the copy.

        With the format `csv` or `parquet`, the sheet of a workbook is written as that.

        Raises:
            ItemNotFoundError: There is no such file.
            PermissionDeniedError: It may not be read.
            DataFetchError: It changed during the copy, or lies in the workspace itself.
            ConnectError: The directory of the source is gone.
        """
        directory = Workspace.of(workspace)
        if not is_workbook(identifier):
            directory.require_format(None)
        if directory.file_format is not None:
            with self._open_for_copy(identifier, directory) as source:
                return await run_in_thread(_convert, source, directory, identifier)
        return await copy_file(
            lambda: self._open_for_copy(identifier, directory),
            directory,
            identifier,
            version=_version,
        )

    async def open_stream(
        self,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,  # noqa: ARG002  (the registry keeps to them)
        start: int | None = None,
        end: int | None = None,
    ) -> ItemStream:
        """Return a stream of a file as it is stored, or of a range of its bytes.

        Raises:
            ItemNotFoundError: There is no such file.
            OptionError: The range begins after the end of the file.
            UnsupportedError: A format was asked for.
            DataFetchError: In the stream: the file changed meanwhile.
        """
        if format is not None:
            raise UnsupportedError(f"{identifier!r} is streamed as it is stored")
        source = self._open(identifier)
        try:
            status = os.fstat(source.fileno())
            first, stop = byte_range(status.st_size, start, end)
        except BaseException:
            source.close()
            raise
        version = _version(status)
        return ItemStream(
            _stream(source, first, stop, version, identifier),
            size=stop - first,
            etag=version,
            media_type=guess_media_type(identifier),
            close=source.close,
        )

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Return `name`, `path`, `size` (bytes), `modified_at` (Unix seconds), `content_type`, `etag`.

        The ETag is the version that listings, receipts and streams have.
        """
        with self._open(identifier) as source:
            status = os.fstat(source.fileno())
        return {
            "name": os.path.basename(identifier),
            "path": identifier,
            "size": status.st_size,
            "modified_at": status.st_mtime,
            "content_type": guess_media_type(identifier),
            "etag": _version(status),
        }

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of a text or Parquet file."""
        with self._open(identifier) as source:
            return await run_in_thread(preview_file, source, identifier, rows)

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        """Return the figures of a Parquet file's numeric columns that are in its footer.

        A column whose writer left no figures is missing, and no mean is known.

        Raises:
            ItemNotFoundError: There is no such file.
            UnsupportedError: It is not Parquet.
            DataFetchError: It is damaged, or pyarrow is not installed.
        """
        with self._open(identifier) as source:
            if not is_parquet(identifier):
                raise UnsupportedError(f"{identifier!r} has no statistics; Parquet files have")
            return await run_in_thread(parquet_statistics, source, identifier)

    async def describe_files(self, items: Sequence[DataItem]) -> list[SplitFile]:
        """Return files with the marks of their present content."""
        return await run_in_thread(lambda: [self._describe(item.path) for item in items])

    @asynccontextmanager
    async def open_file(self, file: SplitFile) -> AsyncIterator[PinnedFile]:
        """Open a file whose reads fail if its size, time of modification or inode has changed."""
        with self._open(file.path) as source:
            yield FileInVersion(source, file)

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        """Copy a local file below the directory, and return it as an item.

        Raises:
            ItemExistsError: There is a file of that path, and `overwrite` is False.
            UnsupportedError: The source is not `writable`.
            DataFetchError: No item can have the path, or the copy failed.
        """
        name = blob_name or os.path.basename(local_path)
        if not self.options.writable:
            raise UnsupportedError(
                f"source {self.config.id!r} takes no files; its option 'writable' admits them"
            )
        target = self._real(name)
        if target is None:
            raise DataFetchError(f"{name!r} is no path of a file of source {self.config.id!r}")
        stopped = threading.Event()
        store = partial(
            store_file, local_path, self._root, target, name, stopped.is_set, overwrite=overwrite
        )
        status = await run_in_thread(store, on_cancel=stopped.set, own_thread=True)
        return DataItem(
            os.path.basename(name),
            name,
            status.st_size,
            status.st_mtime,
            version=_version(status),
        )

    def _describe(self, path: str) -> SplitFile:
        with self._open(path) as source:
            status = os.fstat(source.fileno())
        return SplitFile(path, status.st_size, mark_of(status))

    def _list_folder(self, path: str) -> Iterator[list[DataItem]]:
        """Yield the direct children of a folder, folders included, as one page."""
        folder = self._directory(path.removesuffix("/"))
        try:
            entries = self._entries(folder)
        except OSError as exc:
            raise self._unreadable(folder, exc) from exc
        yield [item for entry in entries if (item := self._item(entry, folders=True))]

    def _walk(self, path: str) -> Iterator[list[DataItem]]:
        """Yield the files below a folder, a page for each folder that has any, in depth-first order.

        Links to folders are not followed: they could lead in a circle. Below the folder asked for,
        folders that are deleted meanwhile are left out, and so are those that may not be read, with a
        warning in the log.
        """
        top = self._directory(path)
        pending = [top]
        while pending:
            folder = pending.pop()
            try:
                entries = self._entries(folder)
            except OSError as exc:
                if folder == top or not isinstance(exc, _SKIPPED):
                    raise self._unreadable(folder, exc) from exc
                if isinstance(exc, PermissionError):
                    _log.warning("left out %r, which may not be read", folder)
                continue
            pending += reversed([entry.path for entry in entries if _is_folder(entry)])
            if page := [item for entry in entries if (item := self._item(entry))]:
                yield page

    def _page(self, path: str, cursor: str, limit: int) -> Page:
        one_folder = path.endswith("/")
        top = self._directory(path.removesuffix("/"))
        prefix = os.path.join(os.path.relpath(top, self._root), "") if top != self._root else ""
        last = cursor.removesuffix("/")
        if cursor and not (last.startswith(prefix) and _is_path(last)):
            raise OptionError(f"{cursor!r} is no cursor of a listing of {path!r}")

        def read(folder: str, name: str, keep: Keep) -> list[os.DirEntry[str]]:
            return self._read_after(folder, name, keep, top=top)

        after = last.removeprefix(prefix)
        entries = (
            entries_after(top, after, lambda _: True, read)
            if one_folder
            else walk_after(top, after, _is_folder, read)
        )
        items = (self._item(entry, folders=one_folder) for entry in entries)
        page = list(islice((item for item in items if item is not None), limit + 1))
        return Page(page[:limit], page[limit - 1].path if len(page) > limit else None)

    def _read_after(
        self, folder: str, name: str, keep: Keep, *, top: str
    ) -> list[os.DirEntry[str]]:
        """Return the next entries of a folder, none of a folder that `_walk` leaves out."""
        try:
            with os.scandir(folder) as entries:
                shown = first_after(filter(self._is_shown, entries), name, keep)
            self._require_search(folder, shown)
        except OSError as exc:
            if folder == top or not isinstance(exc, _SKIPPED):
                raise self._unreadable(folder, exc) from exc
            if isinstance(exc, PermissionError):
                _log.warning("left out %r, which may not be read", folder)
            return []
        return shown

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Return the entries of a folder that are shown, sorted by name.

        Raises:
            OSError: It cannot be read, or its entries cannot be looked at.
        """
        with os.scandir(folder) as entries:
            shown = sorted(filter(self._is_shown, entries), key=lambda entry: entry.name)
        self._require_search(folder, shown)
        return shown

    def _require_search(self, folder: str, shown: list[os.DirEntry[str]]) -> None:
        """Raise PermissionError if the entries of a folder cannot be looked at."""
        if shown and not os.access(folder, os.X_OK, effective_ids=_EFFECTIVE_IDS):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _unreadable(self, folder: str, exc: OSError) -> ConnectorError:
        """Return the error for a folder of the source that cannot be listed."""
        self._require_root()
        path = os.path.relpath(folder, self._root)
        reason = f"folder {path!r} of source {self.config.id!r} cannot be read: {exc.strerror}"
        if isinstance(exc, (FileNotFoundError, NotADirectoryError)):
            return ItemNotFoundError(reason)
        return (
            PermissionDeniedError(reason)
            if isinstance(exc, PermissionError)
            else DataFetchError(reason)
        )

    def _open_for_copy(self, identifier: str, workspace: Workspace) -> BinaryIO:
        """Open a file that is to be copied to a workspace; raises as `_open`.

        A file of a workspace below the source is refused: it would be copied into itself, and each
        fetch of the whole source would bring the files of the one before.
        """
        source = self._open(identifier)
        below_source = _is_below(os.path.join(workspace, ""), self._root)
        if below_source and _is_below(self._real(identifier) or "", workspace):
            source.close()
            raise DataFetchError(f"{identifier!r} lies in the workspace that it would be copied to")
        return source

    def _require_root(self) -> None:
        """Raise ConnectError if the directory of the source is gone."""
        if not os.path.isdir(self._root):
            raise ConnectError(
                f"{self._root!r}, the directory of the source, is not there any more"
            )

    def _is_shown(self, entry: os.DirEntry[str]) -> bool:
        return not entry.name.startswith(".") or (self.options.hidden and not is_part(entry.name))

    def _item(self, entry: os.DirEntry[str], *, folders: bool = False) -> DataItem | None:
        """Return a directory entry as an item; None if it is no file inside the directory."""
        path = os.path.relpath(entry.path, self._root)
        try:
            if folders and _is_folder(entry):
                return DataItem(entry.name, path + "/", metadata={"kind": "folder"})
            if not entry.is_file() or not _is_below(os.path.realpath(entry.path), self._root):
                return None
            status = entry.stat()
        except OSError:  # deleted since it was listed, or a link to itself
            return None
        return DataItem(entry.name, path, status.st_size, status.st_mtime, version=_version(status))

    def _directory(self, path: str) -> str:
        """Return the absolute path of a folder of the source.

        Raises:
            ItemNotFoundError: There is no such folder, or it leads outside.
            ConnectError: The directory of the source is gone.
        """
        directory = self._real(path) if path else self._root
        if directory is None or not os.path.isdir(directory):
            self._require_root()
            raise ItemNotFoundError(f"source {self.config.id!r} has no folder {path!r}")
        return directory

    def _open(self, identifier: str) -> BinaryIO:
        """Open a file for reading, unbuffered.

        Its callers open it on the event loop, which takes microseconds, or leave that to
        `copy_file`: from a worker thread of their own they would not get it if they are cancelled,
        and it would stay open.

        Raises:
            ItemNotFoundError: There is no such file, it leads outside, or it is no regular file.
            PermissionDeniedError: It may not be read.
            DataFetchError: It cannot be opened.
            ConnectError: The directory of the source is gone.
        """
        missing = f"source {self.config.id!r} has no file {identifier!r}"
        real = self._real(identifier)
        if real is None:
            raise ItemNotFoundError(missing)
        try:
            # Its links are resolved by now; one that is put in the place of a folder is not followed.
            descriptor = open_below(self._root, os.path.relpath(real, self._root))
        except (FileNotFoundError, NotADirectoryError):
            self._require_root()
            raise ItemNotFoundError(missing) from None
        except PermissionError as exc:
            raise PermissionDeniedError(f"{identifier!r} may not be read") from exc
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise ItemNotFoundError(f"{missing}; it is a folder or a special file") from exc
            raise DataFetchError(f"{identifier!r} cannot be read: {exc.strerror}") from exc
        return _SourceFile(descriptor, self.require_connection)

    def _real(self, path: str) -> str | None:
        """Return the resolved path of an identifier, or None if it cannot be an item's."""
        if not _is_path(path):
            return None
        if not self.options.hidden and any(part.startswith(".") for part in path.split("/")):
            return None
        try:
            real = os.path.realpath(os.path.join(self._root, path))
        except UnicodeEncodeError:  # lone surrogates that no file name has
            return None
        return real if _is_below(real, self._root) else None

    @property
    def _root(self) -> str:
        root: str = self.require_connection()
        return root


class _SourceFile(io.FileIO):
    """An open file of a source, whose copying ends when the source is disconnected."""

    def __init__(self, descriptor: int, require_connection: Callable[[], object]) -> None:
        super().__init__(descriptor, "rb")
        self._require_connection = require_connection

    def read(self, size: int | None = -1, /) -> bytes:
        """Read the next bytes.

        Raises:
            ConnectError: The source was disconnected.
        """
        self._require_connection()
        return super().read(size)


async def _stream(
    source: BinaryIO, first: int, stop: int, version: str, identifier: str
) -> AsyncIterator[bytes]:
    """Yield the bytes of a range of a file that must not change meanwhile."""
    position = first
    while position < stop:
        size = min(_CHUNK, stop - position)
        chunk = await run_in_thread(os.pread, source.fileno(), size, position)
        if not chunk or _version(os.fstat(source.fileno())) != version:
            raise DataFetchError(f"{identifier!r} changed while it was read")
        position += len(chunk)
        yield chunk


def _convert(source: BinaryIO, workspace: Workspace, name: str) -> str:
    version = _version(os.fstat(source.fileno()))
    content = bytearray()
    while len(content) <= MAX_WORKBOOK and (chunk := source.read(MAX_WORKBOOK)):
        content += chunk
    if _version(os.fstat(source.fileno())) != version:
        raise DataFetchError(f"{name!r} changed while it was read; fetch it again")
    return convert_workbook(bytes(content), workspace, name, version=version)


def _is_path(path: str) -> bool:
    """Return True if an identifier can be a path below a directory."""
    return "\0" not in path and {"", ".", ".."}.isdisjoint(path.split("/"))


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _version(status: os.stat_result) -> str:
    """Return the mark of a file's content: modification time (ns) and size, hexadecimal."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # where the listing does not tell, and the entry may not be looked at
        return False
