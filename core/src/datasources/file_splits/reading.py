"""Read a split of files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from datasources.errors import DataFetchError, ItemNotFoundError
from datasources.file_splits.files import OpenFile, SplitFile
from datasources.file_splits.planning import import_formats
from datasources.splits import Split
from datasources.threads import run_in_thread


async def read_files(
    split: Split,
    columns: Sequence[str] | None,
    open_file: OpenFile,
    distribution: str = "datasources",
) -> AsyncIterator[Any]:
    """Yield the rows of a split of `plan_files` as `pyarrow.RecordBatch`.

    One batch is in memory at a time, of about 4 MiB, and what pyarrow reads ahead of it.

    Args:
        split: The split.
        columns: The columns; None for all.
        open_file: Opens its files.
        distribution: The distribution whose extra `parquet` brings pyarrow, for messages.

    Raises:
        OptionError: There is no such column.
        DataFetchError: A file has changed since the plan, or cannot be read.
    """
    formats = await import_formats(split.identifier, distribution)
    formats.schema_of(split.part, columns)
    for path, piece in zip(split.items, split.part["pieces"], strict=True):
        file = SplitFile(path, piece["size"], piece["mark"], piece["version"])
        try:
            async with open_file(file) as opened:
                batches = formats.read_piece(opened, file, split.part, piece, columns)
                step = partial(run_in_thread, on_cancel=opened.stop, own_thread=True)
                while (batch := await step(next, batches, None)) is not None:
                    yield batch
        except ItemNotFoundError:
            raise DataFetchError(f"{path!r} was deleted since; plan again") from None
