"""Divide files into splits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from datasources.errors import DataFetchError
from datasources.file_splits.files import OpenFile, Piece, SplitFile, format_of, no_table
from datasources.splits import Split, SplitPlan
from datasources.threads import run_in_thread


@dataclass(frozen=True, slots=True)
class FileSplitRequest:
    """A request for a plan; see `SupportsSplits.plan_splits`."""

    source_id: str
    identifier: str
    target_bytes: int
    max_splits: int
    distribution: str = "datasources"
    """The distribution whose extra `parquet` brings pyarrow, for messages."""


async def plan_files(
    request: FileSplitRequest, files: Sequence[SplitFile], open_file: OpenFile
) -> SplitPlan:
    """Return the splits of one file, or of several files that are tables of the same columns.

    A Parquet file is divided between its row groups, and delimited text between two records, for
    which it is read once, if it is larger than a split. Small files are put together. The types of
    the columns are those of the files that were read for the plan: of the first, and of all that
    are larger than a split.

    Args:
        request: The request.
        files: The files, one at least.
        open_file: Opens them.

    Raises:
        UnsupportedError: A file is no table.
        DataFetchError: A file cannot be read, the files have different columns, or pyarrow is not
            installed.
    """
    _check_formats(files)
    formats = await import_formats(request.identifier, request.distribution)
    total = sum(file.size for file in files)
    count = max(1, min(request.max_splits, math.ceil(total / request.target_bytes)))
    outline = formats.Outline()
    pieces: list[tuple[SplitFile, Piece]] = []
    for number, file in enumerate(files):
        parts = [Piece(file.size, None, {})]
        if not number or file.size > total / count:
            async with open_file(file) as opened:
                step = max(1, math.ceil(total / count / 2))
                parts = await run_in_thread(
                    outline.add, opened, file, step, on_cancel=opened.stop, own_thread=True
                )
        pieces += [(file, part) for part in parts]
    return _plan(request, outline, _shared_out(pieces, count))


async def import_formats(identifier: str, distribution: str) -> Any:
    """Return the module that reads tables, which needs pyarrow.

    Raises:
        DataFetchError: It is not installed.
    """
    try:  # in a thread, because the import would hold up the event loop for 100 ms and more
        return await asyncio.to_thread(import_module, "datasources.file_splits.formats")
    except ImportError as exc:
        raise DataFetchError(
            f"splits of {identifier!r} need pyarrow; pip install '{distribution}[parquet]'"
        ) from exc


def _check_formats(files: Sequence[SplitFile]) -> None:
    """Raise unless all files, if there are several, are tables of one format by their names."""
    if len(files) == 1:
        return
    for file in files:
        if format_of(file.path) is None:
            raise no_table(file.path, "a pattern such as '*.csv' leaves other files out")
        if format_of(file.path) != format_of(files[0].path):
            raise no_table(file.path, f"it is of another format than {files[0].path!r}")


@dataclass(slots=True)
class _Share:
    """The pieces of one split."""

    files: list[SplitFile] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0
    rows: int | None = 0

    def add(self, file: SplitFile, piece: Piece) -> None:
        """Add a piece; one that follows the last one in the same file is joined to it."""
        self.bytes += piece.bytes
        self.rows = (
            None if None in (self.rows, piece.rows) else (self.rows or 0) + (piece.rows or 0)
        )
        if self.files and self.files[-1] is file:
            for name in {"groups", "bytes"} & piece.description.keys():
                self.places[-1][name] = [self.places[-1][name][0], piece.description[name][1]]
        else:
            self.files.append(file)
            self.places.append(dict(piece.description))


def _shared_out(pieces: Sequence[tuple[SplitFile, Piece]], count: int) -> list[_Share]:
    """Return shares of pieces in their order, `count` at most, by the place of their middle bytes."""
    shares = [_Share() for _ in range(count)]
    total = sum(piece.bytes for _, piece in pieces)
    before = 0
    for file, piece in pieces:
        middle = before + piece.bytes / 2
        shares[min(count - 1, int(middle * count / total)) if total else 0].add(file, piece)
        before += piece.bytes
    return [share for share in shares if share.files] or shares[:1]


def _plan(request: FileSplitRequest, outline: Any, shares: Sequence[_Share]) -> SplitPlan:
    common = outline.to_part()
    splits = [
        Split(
            request.source_id,
            request.identifier,
            index,
            len(shares),
            common
            | {
                "pieces": [
                    {"size": file.size, "mark": file.mark, "version": file.version, **place}
                    for file, place in zip(share.files, share.places, strict=True)
                ]
            },
            items=tuple(file.path for file in share.files),
            estimated_rows=share.rows,
            estimated_bytes=share.bytes,
        )
        for index, share in enumerate(shares)
    ]
    return SplitPlan(outline.schema, splits)
