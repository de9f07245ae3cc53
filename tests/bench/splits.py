"""Splits of a table to Parquet files beside one COPY and other parallel ways, as ratios.

`pytest -m bench -s tests/bench/splits.py` reads half a million mixed rows, in about a minute;
`SPLITS_MILLIONS=20` reads more.  Each measurement is a process of its own, with two connections at
most, and rounds go through all contestants, as in `postgresql.py`.  Processor time is that of the
process, and that of the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from datasources import Split, gather_splits
from tests.bench.measuring import measured
from tests.bench.postgresql import REPOSITORY, TABLES, Run, duckdb_scan, ours_parquet
from tests.servers import PostgresServer

ROUNDS = 3
MILLIONS = float(os.environ.get("SPLITS_MILLIONS", "0.5"))
TARGET = 32 << 20  # bytes of a split


async def one_reader(dsn: str, table: str, path: Path) -> Run:
    return await _splits(dsn, table, path, 1)


async def two_readers(dsn: str, table: str, path: Path) -> Run:
    return await _splits(dsn, table, path, 2)


async def _splits(dsn: str, table: str, path: Path, concurrency: int) -> Run:
    import pyarrow.parquet as pq

    from datasources import DataSourceConfig, DataSourceType
    from datasources_postgresql import PostgreSQLConnector
    from datasources_postgresql.arrow import import_arrow

    await import_arrow()
    config = DataSourceConfig("bench", DataSourceType.POSTGRESQL, "", {"dsn": dsn})
    connector = PostgreSQLConnector(config)
    await connector.connect()

    async def run() -> None:
        async with connector.plan_splits(table, target_bytes=TARGET, max_splits=10_000) as plan:

            async def write(split: Split, batches: AsyncIterator[Any]) -> None:
                name = path.with_suffix(f".{split.index}.parquet")
                with pq.ParquetWriter(name, plan.schema, compression="zstd") as writer:
                    async for batch in batches:
                        await asyncio.to_thread(writer.write_batch, batch)

            readable = replace(plan, reader=connector.read_split)
            await gather_splits(readable, write, concurrency=concurrency)
        await connector.disconnect()

    return run


async def connectorx_partitions(dsn: str, table: str, path: Path) -> Run:
    import connectorx
    import pyarrow.parquet as pq

    async def run() -> None:
        result = connectorx.read_sql(
            dsn,
            f"SELECT * FROM {table}",
            return_type="arrow",
            partition_on="id",
            partition_num=2,
        )
        pq.write_table(result, path, compression="zstd")

    return run


WAYS: dict[str, Callable[[str, str, Path], Awaitable[Run]]] = {
    "one COPY": ours_parquet,
    "splits, one reader": one_reader,
    "splits, two readers": two_readers,
    "DuckDB, table": duckdb_scan,
    "ConnectorX, partitions": connectorx_partitions,
}


def compare(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Return the median figures by way; `ratio` is to one COPY in the same round."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    taken: dict[str, list[dict[str, float]]] = {}
    with PostgresServer() as server:
        dsn = _filled(server)
        for _ in range(rounds):
            floor = 0.0
            for way in WAYS:
                with tempfile.TemporaryDirectory(dir=base) as folder:
                    figures = _in_a_process(server, way, dsn, Path(folder, "out"))
                floor = floor or figures["seconds"]  # of one COPY, the first
                taken.setdefault(way, []).append({**figures, "ratio": figures["seconds"] / floor})
    return {
        way: {key: statistics.median(one[key] for one in all_) for key in all_[0]}
        for way, all_ in taken.items()
    }


def _filled(server: PostgresServer) -> str:
    """Make the table of mixed rows, and return the address of a role that reads it."""
    rows = round(MILLIONS * 1_000_000)
    statements = TABLES.replace("(1, 2000000)", f"(1, {rows})").replace("(1, 10000000)", "(1, 1)")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for statement in statements.split(";\n"):
            connection.execute(statement)
    return f"postgresql://bench:bench-password@{server.host}:{server.port}/{server.database}"


def _in_a_process(server: PostgresServer, way: str, dsn: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.splits", way, dsn, str(path)]
    before = _processor_time(server)
    done = subprocess.run(command, check=False, cwd=REPOSITORY, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{way} failed: {done.stderr.decode()}")
    return {**json.loads(done.stdout), "server": _processor_time(server) - before}


def _processor_time(server: PostgresServer) -> float:
    """Return the processor time of the server's processes, those that have ended as well."""
    parent = psutil.Process(server.pid)
    times = [process.cpu_times() for process in [parent, *parent.children(recursive=True)]]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


async def measure(way: str, dsn: str, path: Path) -> dict[str, float]:
    """Return the figures of one way, warm: modules imported, connected."""
    _, figures = await measured(await WAYS[way](dsn, "mixed", path))
    return figures


def report(results: dict[str, dict[str, float]]) -> None:
    """Print seconds, the ratio to one COPY, processor time here and there, and memory over start."""
    title = f"mixed, {MILLIONS:g} M rows"
    print(f"\n{title:24}{'s':>8}{'ratio':>8}{'cpu s':>8}{'server s':>10}{'MiB':>8}")
    for way, one in results.items():
        print(
            f"{way:24}{one['seconds']:8.2f}{one['ratio']:8.2f}{one['cpu']:8.2f}"
            f"{one['server']:10.2f}{one['memory'] / 2**20:8.0f}"
        )


@pytest.mark.bench
def test_splits_take_little_more_processor_time_than_one_copy() -> None:
    results = compare()
    report(results)
    for way in ("splits, one reader", "splits, two readers"):
        assert results[way]["cpu"] <= 2.0 * results["one COPY"]["cpu"]
        assert results[way]["memory"] <= 220 * 2**20


if __name__ == "__main__":
    if len(sys.argv) == 4:
        way, dsn, path = sys.argv[1:]
        print(json.dumps(asyncio.run(measure(way, dsn, Path(path)))))
    else:
        report(compare())
