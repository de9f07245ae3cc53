"""Fetch the splits of an item as one directory of Parquet files."""

from __future__ import annotations

import asyncio
import io
import json
import math
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from datasources.errors import DataFetchError, LimitExceededError, OptionError
from datasources.gathering import gather_splits
from datasources.models import FetchReceipt, FetchRequest
from datasources.registry.splitting import SplitPlanner, SplitRequest
from datasources.splits import Split, SplitPlan
from datasources.tabular import query_name
from datasources.threads import run_in_thread
from datasources.workspace import MANIFEST, Workspace, WorkspaceFile, WorkspaceFolder

_CONCURRENCY = 8  # splits that are read at once
_ROW_GROUP = 16 << 20  # bytes of a row group in memory
_PIECE = 1 << 20  # bytes that are passed to the workspace at once


async def fetch_dataset(
    planner: SplitPlanner, request: FetchRequest, target: Workspace
) -> FetchReceipt:
    """Write an item as a directory of Parquet files, one for each split, and a manifest.

    The limits of `target` hold for all files together; more rows than its limit are an error.
    Nothing is left if a split fails or the caller is cancelled.

    Args:
        planner: Plans and reads the splits.
        request: The request, whose `splits` is the most splits.
        target: The workspace.

    Raises:
        OptionError: The request has no such number of splits, another format, or parameters.
        LimitExceededError: A limit was exceeded.
        DataFetchError: pyarrow is not installed, or the directory cannot be written.
    """
    started = time.monotonic()
    _check(request)
    try:  # in a thread, because the import would hold up the event loop for 100 ms and more
        await asyncio.to_thread(import_module, "pyarrow.parquet")
    except ImportError as exc:
        raise DataFetchError(
            "writing splits needs pyarrow; pip install 'datasources[parquet]'"
        ) from exc
    most = request.splits or 1
    plan_request = SplitRequest(
        request.source_id, request.identifier, 1, most, key=None, consistent=True, max_age=math.inf
    )
    async with planner.plan(plan_request) as plan:
        await _authorize(request, plan, target)
        dataset = _Dataset(request, plan, target)
        try:
            await gather_splits(plan, dataset.write_part, concurrency=_CONCURRENCY)
            sha256 = dataset.write_manifest()
            await run_in_thread(dataset.folder.commit)
        finally:
            await run_in_thread(dataset.folder.close)
    return FetchReceipt(
        source_id=request.source_id,
        identifier=request.identifier,
        path=dataset.folder.path,
        size=dataset.bytes,
        sha256=sha256,
        rows=dataset.rows,
        truncated=False,
        version=None,
        fetched_at=datetime.now(UTC),
        duration=time.monotonic() - started,
    )


def _check(request: FetchRequest) -> None:
    """Raise OptionError if a request asks for what splits do not have."""
    if request.splits is None or request.splits < 1:
        raise OptionError(f"'splits' must be at least 1, not {request.splits}")
    if request.format not in (None, "parquet"):
        raise OptionError("what is fetched with 'splits' is Parquet; leave 'format' out")
    if request.parameters:
        raise OptionError("a stored query with parameters cannot be fetched with 'splits'")


async def _authorize(request: FetchRequest, plan: SplitPlan, target: Workspace) -> None:
    """Raise if a principal may not have one of the items that a folder or pattern stands for."""
    if target.authorize is not None:
        for path in dict.fromkeys(path for split in plan.splits for path in split.items):
            await target.authorize(request.source_id, path)


def _name_of(identifier: str) -> str:
    """Return the name of a directory: the identifier, or for a query a name made of its text."""
    return f"{query_name(identifier) if len(identifier.split()) > 1 else identifier}.dataset"


class _Dataset:
    """The files of one directory, while they are written.

    Args:
        request: The request.
        plan: The plan.
        target: The workspace.
    """

    def __init__(self, request: FetchRequest, plan: SplitPlan, target: Workspace) -> None:
        self.bytes = 0
        """Bytes of all parts."""
        self.rows = 0
        self.folder = WorkspaceFolder(target, _name_of(request.identifier))
        self._request = request
        self._plan = plan
        self._target = target
        self._parts: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()  # held while the sums change

    async def write_part(self, split: Split, batches: AsyncIterator[Any]) -> None:
        """Write the rows of a split as one file."""
        name = f"part-{split.index:05}.parquet"
        with self.folder.create(name) as file:
            writer = _PartWriter(self._plan.schema, _Sink(self, file))
            try:
                async for batch in batches:
                    self.count_rows(batch.num_rows)
                    await run_in_thread(writer.add, batch)
            except BaseException:
                writer.abandon()
                raise
            await run_in_thread(writer.finish)
            file.rows = writer.rows
        written = self.folder.written(file)
        self._parts[split.index] = {
            "name": name,
            "rows": writer.rows,
            "bytes": written.size,
            "sha256": written.sha256,
        }

    def write_manifest(self) -> str:
        """Write the manifest, and return its SHA-256."""
        content = {
            "source_id": self._request.source_id,
            "identifier": self._request.identifier,
            "consistent": self._plan.consistent,
            "rows": self.rows,
            "bytes": self.bytes,
            "schema": [
                {"name": field.name, "type": str(field.type), "nullable": field.nullable}
                for field in self._plan.schema
            ],
            "parts": [self._parts[index] for index in sorted(self._parts)],
        }
        with self.folder.create(MANIFEST) as file:
            file.write(json.dumps(content, indent=1).encode())
        return self.folder.written(file).sha256

    def count_rows(self, rows: int) -> None:
        """Count rows that are to be written.

        Raises:
            LimitExceededError: They are more than the limit.
        """
        self.rows += rows
        most = self._target.limits.max_rows
        if most is not None and self.rows > most:
            raise LimitExceededError(
                f"{self._request.identifier!r} has more than the limit of {most} rows a fetch, at "
                "which splits are not cut; raise 'max_rows'"
            )

    def count_bytes(self, size: int) -> None:
        """Count bytes that are to be written, in any thread, and report them.

        Raises:
            LimitExceededError: They are more than the limit.
        """
        with self._lock:
            self.bytes += size
            total = self.bytes
        most = self._target.limits.max_bytes
        if most is not None and total > most:
            raise LimitExceededError(
                f"{self._request.identifier!r} has {total} bytes or more, over the limit of {most} "
                "bytes a fetch"
            )
        if self._target.progress:
            self._target.progress(total, None)


class _Sink(io.RawIOBase):
    """A file of the dataset, as pyarrow writes it in a worker thread."""

    def __init__(self, dataset: _Dataset, file: WorkspaceFile) -> None:
        self._dataset = dataset
        self._file = file
        self.abandoned = False
        """True to take no more bytes: pyarrow writes a footer even where a file has failed."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.abandoned:
            return len(view)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self._dataset.count_bytes(len(piece))
            self._file.write(piece)
        return len(view)


class _PartWriter:
    """Writes batches of rows as one Parquet file, a row group at a time; its calls block."""

    def __init__(self, schema: Any, sink: _Sink) -> None:
        self.rows = 0
        self._schema = schema
        self._sink = sink
        self._writer: Any = None
        self._batches: list[Any] = []
        self._size = 0

    def add(self, batch: Any) -> None:
        """Add rows."""
        self.rows += batch.num_rows
        self._batches.append(batch)
        self._size += batch.nbytes
        if self._size >= _ROW_GROUP:
            self._write()

    def finish(self) -> None:
        """Write the last rows and the footer."""
        self._write()
        self._writer.close()

    def abandon(self) -> None:
        """End the writing of a file that will not be complete."""
        self._sink.abandoned = True

    def _write(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(table)
        self._batches, self._size = [], 0
