"""Files below one directory: listed, described, previewed, copied into a workspace."""

from __future__ import annotations

import errno
import mimetypes
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from pydantic import Field

from datasources import (
    ConnectError,
    ConnectorOptions,
    DataFetchError,
    DataItem,
    DataSourceConnector,
    ItemNotFoundError,
    PermissionDeniedError,
    Preview,
    Workspace,
    glob_prefix,
    glob_regex,
    open_regular,
    preview_text,
    run_in_thread,
)

_CHUNK = 1 << 20  # bytes copied at once
_PREVIEW = 1 << 20  # bytes read for a preview


class LocalFileOptions(ConnectorOptions):
    """Which directory, and which of its files."""

    path: str = Field(
        min_length=1,
        description="Directory whose files are the items; '~' is the home directory.",
        examples=["/srv/data"],
    )
    hidden: bool = Field(
        default=False, description="Show files and folders whose name starts with a dot."
    )

    sample_identifiers = (
        ("reports/2024.csv", "one file, by its path below the directory"),
        ("reports/*.csv", "all CSV files of a folder"),
        ("**/*.csv", "all CSV files, however deep"),
    )

    def paths(self) -> list[str]:
        return [os.path.expanduser(self.path)]


class LocalFileConnector(DataSourceConnector):
    """Reads below the directory only: links that lead outside are not items."""

    type = "local_file"
    api_version = 1
    options_class = LocalFileOptions
    options: LocalFileOptions
    shareable = True

    async def connect(self) -> bool:
        root = await run_in_thread(os.path.realpath, self.options.paths()[0])
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
        """Yield all files below a path, folder by folder; or one folder, for a path with `/`."""
        one_folder = path is not None and path.endswith("/")
        pages = await run_in_thread(self._folder if one_folder else self._walk, path or "")
        while page := await run_in_thread(next, pages, None):
            for item in page:
                yield item

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the files whose path matches."""
        folder, matches = glob_prefix(pattern).rpartition("/")[0], glob_regex(pattern).fullmatch
        try:
            found = [item async for item in self.iter_items(folder) if matches(item.path)]
        except ItemNotFoundError:
            return []
        return sorted(found, key=lambda item: item.path)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        directory = Workspace.of(workspace)
        directory.require_format(None)
        with self._open(identifier) as source:
            facts = os.fstat(source.fileno())
            target = directory.create(identifier, size=facts.st_size)
            with target:
                target.version = _version(facts)
                # In pieces, so that a cancelled fetch stops at once.
                while chunk := await run_in_thread(source.read, _CHUNK):
                    target.write(chunk)
        return target.path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        with self._open(identifier) as source:
            facts = os.fstat(source.fileno())
        return {
            "name": os.path.basename(identifier),
            "path": identifier,
            "size": facts.st_size,
            "modified_at": facts.st_mtime,
            "content_type": mimetypes.guess_type(identifier)[0],
        }

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows of a text file from its first bytes."""
        with self._open(identifier) as source:
            head = await run_in_thread(source.read, _PREVIEW + 1)
        return preview_text(identifier, head[:_PREVIEW], rows, complete=len(head) <= _PREVIEW)

    def _folder(self, path: str) -> Iterator[list[DataItem]]:
        directory = self._directory(path.removesuffix("/"))
        entries = [entry for entry in _entries(directory) if self._shown(entry)]
        yield [item for entry in entries if (item := self._item(entry, folders=True))]

    def _walk(self, path: str) -> Iterator[list[DataItem]]:
        waiting = [self._directory(path)]
        while waiting:
            entries = [entry for entry in _entries(waiting.pop()) if self._shown(entry)]
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            waiting += reversed(folders)
            if page := [item for entry in entries if (item := self._item(entry))]:
                yield page

    def _shown(self, entry: os.DirEntry[str]) -> bool:
        return self.options.hidden or not entry.name.startswith(".")

    def _item(self, entry: os.DirEntry[str], *, folders: bool = False) -> DataItem | None:
        path = os.path.relpath(entry.path, self._root)
        try:
            if folders and entry.is_dir(follow_symlinks=False):
                return DataItem(entry.name, path + "/", metadata={"kind": "folder"})
            if not entry.is_file() or not self._inside(os.path.realpath(entry.path)):
                return None
            facts = entry.stat()
        except OSError:  # gone since it was listed, or a link in a circle
            return None
        return DataItem(entry.name, path, facts.st_size, facts.st_mtime, version=_version(facts))

    def _directory(self, path: str) -> str:
        directory = self._real(path) if path else self._root
        if directory is None or not os.path.isdir(directory):
            raise ItemNotFoundError(f"source {self.config.id!r} has no folder {path!r}")
        return directory

    def _open(self, identifier: str) -> BinaryIO:
        """Open a file: not in a thread, as a cancelled caller could not close it."""
        missing = f"source {self.config.id!r} has no file {identifier!r}"
        real = self._real(identifier)
        if real is None:
            raise ItemNotFoundError(missing)
        try:
            descriptor = open_regular(real)  # whose links are resolved by now
        except (FileNotFoundError, NotADirectoryError):
            raise ItemNotFoundError(missing) from None
        except PermissionError as exc:
            raise PermissionDeniedError(f"{identifier!r} may not be read") from exc
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise ItemNotFoundError(f"{missing}; it is a folder or a special file") from exc
            raise DataFetchError(f"{identifier!r} cannot be read: {exc.strerror}") from exc
        return open(descriptor, "rb", buffering=0)

    def _real(self, path: str) -> str | None:
        """Return where a path below the root leads, or None if it is no path of an item."""
        segments = path.split("/")
        if "\0" in path or {"", ".", ".."} & set(segments):
            return None
        if not self.options.hidden and any(part.startswith(".") for part in segments):
            return None
        try:
            real = os.path.realpath(os.path.join(self._root, path))
        except UnicodeEncodeError:
            return None
        return real if self._inside(real) else None

    @property
    def _root(self) -> str:
        root: str = self.require_connection()
        return root

    def _inside(self, real: str) -> bool:
        return real.startswith(os.path.join(self._root, ""))


def _version(facts: os.stat_result) -> str:
    return f"{facts.st_mtime_ns:x}-{facts.st_size:x}"


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as exc:
        raise PermissionDeniedError(f"folder {directory!r} cannot be read: {exc.strerror}") from exc
