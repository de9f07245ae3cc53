"""The base of connectors whose tables are files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, ClassVar

from datasources.connector import DataSourceConnector
from datasources.errors import ItemNotFoundError
from datasources.file_splits.files import (
    PinnedFile,
    SplitFile,
    stands_for_several,
    tables_of,
)
from datasources.file_splits.planning import FileSplitRequest, plan_files
from datasources.file_splits.reading import read_files
from datasources.models import DataItem
from datasources.splits import Split, SplitPlan


class SplittableFiles(DataSourceConnector):
    """Splits of files that can be read at any place.

    A subclass has `list_items` and `glob_items`, describes files, and opens them.
    """

    distribution: ClassVar[str] = "datasources"
    """The distribution whose extra `parquet` brings pyarrow, for messages."""

    @abstractmethod
    async def describe_files(self, items: Sequence[DataItem]) -> list[SplitFile]:
        """Return files in their present versions; an item may have no more than its path.

        Raises:
            ItemNotFoundError: There is no such file.
        """

    @abstractmethod
    def open_file(self, file: SplitFile) -> AbstractAsyncContextManager[PinnedFile]:
        """Open a file in the version that a plan has seen, for an `async with` block.

        Raises:
            ItemNotFoundError: There is no such file.
        """

    @abstractmethod
    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the files whose path matches, as `SupportsGlob` describes."""

    @asynccontextmanager
    async def plan_splits(
        self,
        identifier: str,
        *,
        target_bytes: int,
        max_splits: int,
        key: str | None = None,  # noqa: ARG002  (files are divided by their places)
        consistent: bool = True,  # noqa: ARG002  (each file is read in one version)
    ) -> AsyncIterator[SplitPlan]:
        """Plan the splits of a table in a file, or in the files of a folder or a pattern.

        How they are divided is described at "Splits" in the documentation. A file that is not of
        the version any more that the plan has seen is not read.

        Raises:
            ItemNotFoundError: There is no such file, or none of that folder or pattern.
            UnsupportedError: It is neither Parquet nor delimited text.
            DataFetchError: It cannot be read, or pyarrow is not installed.
        """
        self.require_connection()
        request = FileSplitRequest(
            self.config.id, identifier, target_bytes, max_splits, self.distribution
        )
        yield await plan_files(request, await self._files_of(identifier), self.open_file)

    async def read_split(
        self, split: Split, columns: Sequence[str] | None = None
    ) -> AsyncIterator[Any]:
        """Yield the rows of a split as `pyarrow.RecordBatch`.

        Raises:
            OptionError: There is no such column.
            DataFetchError: A file has changed since the plan, or cannot be read.
        """
        self.require_connection()
        reading = read_files(split, columns, self.open_file, self.distribution)
        async with aclosing(reading) as batches:
            async for batch in batches:
                yield batch

    async def _files_of(self, identifier: str) -> list[SplitFile]:
        """Return the file of that name; otherwise those of the folder or the pattern."""
        if identifier.endswith("/"):
            items = await self.list_items(identifier.rstrip("/") or None)
        else:
            try:
                return await self.describe_files([DataItem(identifier, identifier)])
            except ItemNotFoundError:
                if not stands_for_several(identifier):
                    raise
            items = await self.glob_items(identifier)
        return await self.describe_files(tables_of(items, identifier))
