"""Read a split of files."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from itertools import groupby
from typing import Any, TypeAlias

from datasources.errors import DataFetchError, ItemNotFoundError
from datasources.file_splits.files import TEXT, OpenFile, PinnedFile, SplitFile
from datasources.file_splits.planning import import_formats
from datasources.splits import Split
from datasources.threads import run_in_thread

_SMALL = 256 << 10  # bytes of a text that is read whole
_AHEAD = 8  # small texts that are read ahead

_Piece: TypeAlias = tuple[SplitFile, dict[str, Any]]
"""A file, and the description of what a split has of it."""


async def read_files(
    split: Split,
    columns: Sequence[str] | None,
    open_file: OpenFile,
    distribution: str = "datasources",
) -> AsyncGenerator[Any]:
    """Yield the rows of a split of `plan_files` as `pyarrow.RecordBatch`.

    One batch is in memory at a time, of about 4 MiB, and what pyarrow reads ahead of it. Small texts
    are read whole, and up to eight of them ahead, because most of their time is that of waiting for
    answers. Parquet files are not read ahead: a small one may be large in memory.

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
    is_text = split.part["format"] == TEXT

    def opened(piece: _Piece) -> AbstractAsyncContextManager[Callable[..., Awaitable[Any]]]:
        file, place = piece

        def read(content: PinnedFile) -> Iterator[Any]:
            batches: Iterator[Any] = formats.read_piece(content, file, split.part, place, columns)
            return batches

        return _opened(open_file, file, read)

    async def read_whole(piece: _Piece) -> list[Any]:
        async with opened(piece) as call:
            batches: list[Any] = await call(list)
        return batches

    pieces = [
        (SplitFile(path, place["size"], place["mark"], place["version"]), place)
        for path, place in zip(split.items, split.part["pieces"], strict=True)
    ]
    for is_small, group in groupby(pieces, lambda piece: is_text and piece[0].size <= _SMALL):
        if is_small:
            async with aclosing(_in_order(read_whole, group)) as texts:
                async for batches in texts:
                    for batch in batches:
                        yield batch
        else:
            for piece in group:
                async with opened(piece) as call:
                    while (batch := await call(next, None)) is not None:
                        yield batch


@asynccontextmanager
async def _opened(
    open_file: OpenFile, file: SplitFile, read: Callable[[PinnedFile], Iterator[Any]]
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Open a file; yield what calls a function with the file's batches in a thread."""
    try:
        async with open_file(file) as content:
            batches = read(content)

            def call(function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
                return run_in_thread(
                    function, batches, *arguments, on_cancel=content.stop, own_thread=True
                )

            yield call
    except ItemNotFoundError:
        raise DataFetchError(f"{file.path!r} was deleted since; plan again") from None


async def _in_order(
    read: Callable[[_Piece], Coroutine[Any, Any, list[Any]]], pieces: Iterable[_Piece]
) -> AsyncGenerator[list[Any]]:
    """Yield what `read` returns for each piece, in their order; the next ones are read meanwhile."""
    ahead: deque[asyncio.Task[list[Any]]] = deque()
    try:
        for piece in pieces:
            ahead.append(asyncio.create_task(read(piece)))
            if len(ahead) > _AHEAD:
                yield await ahead.popleft()
        while ahead:
            yield await ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)
