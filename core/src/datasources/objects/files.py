"""Find the object that an identifier means, and open it in one version."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import ClassVar, TypeVar

from datasources.errors import DataFetchError, ItemNotFoundError
from datasources.file_splits import PinnedFile, SplitFile, SplittableFiles
from datasources.gathering import gather
from datasources.models import DataItem
from datasources.objects.download import Download
from datasources.objects.failures import ObjectSubject
from datasources.objects.folders import folder_error, is_folder, listed_object, require_file
from datasources.objects.names import has_dot_segments, require_unicode
from datasources.objects.options import ObjectStoreOptions
from datasources.objects.parquet import TAIL, ObjectFile
from datasources.objects.store import ObjectInfo, ObjectStore
from datasources.preview import is_parquet

T = TypeVar("T")

_AT_ONCE = 16  # requests about objects of a folder whose listing does not tell size or version


class ObjectFiles(ObjectStore, SplittableFiles):
    """Objects by their identifiers: the part of `ObjectConnector` that its operations share."""

    options: ObjectStoreOptions
    subject_class: ClassVar[type[ObjectSubject]] = ObjectSubject
    """Has the nouns for container and object in messages, and is what `subject` returns."""
    version_pattern: ClassVar[re.Pattern[str] | None] = None
    """Matches identifiers of versions, such as `?versionid=7/NAME`. Its first group is the version,
    as `head_object` gets it, its second one the name; None where there are no versions."""

    @classmethod
    def split_version(cls, identifier: str) -> tuple[str, str] | None:
        """Return the version and the name in an identifier of a version; None for any other."""
        match = cls.version_pattern.fullmatch(identifier) if cls.version_pattern else None
        return (match[1], match[2]) if match else None

    async def describe_file(self, name: str, version: str | None = None) -> ObjectInfo:
        """Return `head_object` with retries, of what is no folder.

        Raises:
            ItemNotFoundError: There is no such object, or it is a folder.
        """
        etag = await self._etag_to_pin(name, version)
        info = await self.retry(lambda: self.head_object(name, version=version, etag=etag))
        if version is None:
            await require_file(self, name, info)
        return info

    async def exact_or_version(
        self, identifier: str, operation: Callable[[str, str | None], Awaitable[T]]
    ) -> T:
        """Call `operation` for the object of that name; if missing, for the version it may name.

        `operation` takes the object's name in the store, and the version.
        """
        self.require_connection()
        name = self.object_name(identifier)
        try:
            return await operation(name, None)
        except ItemNotFoundError as exc:
            not_found = exc
        if version := self.split_version(identifier):
            with suppress(ItemNotFoundError):
                return await operation(self.object_name(version[1]), version[0])
        if not_found.code is not None and await is_folder(self, name):
            raise folder_error(self, name)
        raise not_found from None  # the error that names the identifier as given

    def object_name(self, identifier: str) -> str:
        """Return the name in the store of an item.

        Raises:
            ItemNotFoundError: No object can have the name.
        """
        noun = self.subject_class.object_noun
        if not identifier:
            raise ItemNotFoundError(f"no {noun} has an empty name")
        require_unicode(identifier, noun)
        return self.options.prefix + identifier

    async def listed_etag(self, name: str, version: str | None) -> str | None:
        """Return the ETag of an object in the listing, or None.

        A subclass with versions returns that of a version.
        """
        if version is not None:
            return None
        item = await listed_object(self, name)
        return None if item is None else item.version

    async def _etag_to_pin(self, name: str, version: str | None) -> str | None:
        """Return the listed ETag of an object whose name has dot segments, None for other names.

        A proxy on the way may resolve dot segments in a URL's path, and so reach an object outside
        the folder or the container of this source. A listing has the name as a query parameter,
        which nothing resolves. A request that is pinned to the ETag from the listing cannot return
        another object.
        """
        if not has_dot_segments(name):
            return None
        etag = await self.listed_etag(name, version)
        if etag is None:
            raise self.subject(name).error(ItemNotFoundError, "it does not exist")
        return etag

    async def _describe_file(self, identifier: str) -> SplitFile:
        """Return an object in its present version.

        Raises:
            ItemNotFoundError: There is no such object.
            DataFetchError: The store has no mark for its content.
        """

        async def describe(name: str, version: str | None) -> SplitFile:
            info = await self.describe_file(name, version)
            if not info.etag:
                reason = "the service does not tell when it changes, and so it has no splits"
                raise self.subject(name).error(DataFetchError, reason)
            return SplitFile(identifier, info.size, info.etag, version)

        return await self.exact_or_version(identifier, describe)

    async def describe_files(self, items: Sequence[DataItem]) -> list[SplitFile]:
        """Return listed objects in their present versions."""
        files: list[SplitFile] = []
        for start in range(0, len(items), _AT_ONCE):
            described = [self._described(item) for item in items[start : start + _AT_ONCE]]
            files += await gather(described)
        return files

    async def _described(self, item: DataItem) -> SplitFile:
        if item.size is None or not item.version:  # the listing does not tell
            return await self._describe_file(item.path)
        return SplitFile(item.path, item.size, item.version)

    @asynccontextmanager
    async def open_file(self, file: SplitFile) -> AsyncIterator[PinnedFile]:
        """Open an object in the version that a plan has seen, for a block."""
        self.require_connection()
        version = self.split_version(file.path) if file.version is not None else None
        name = self.object_name(version[1] if version else file.path)
        download = Download(self, name, file.version, etag=file.mark)
        opened = ObjectFile(download, file.size)
        try:
            if is_parquet(file.path) or file.size <= TAIL:
                await opened.read_tail()
            yield opened
        finally:
            opened.stop()
