"""A query's result to CSV beside other ways, one run: `pytest tests/bench/postgresql.py`.

Every contestant asks the same server over loopback TCP and writes into the same memory-backed
directory; each measurement is a process of its own, except psql, which is one.  Rounds go through
all contestants, so that all share the machine's moods, and ratios are taken within a round.

The same to Parquet beside ADBC, which writes a batch when it has it, and others.  DuckDB reads a
table on several connections, and a query on one. This connector has one; as a table, it reads the two
integers as arrays.

Tables: 2 M mixed rows (about 250 MB of CSV) and 10 M rows of two integers.
"""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.bench.measuring import measured
from tests.servers import PostgresServer

ROUNDS = 5
ROWS = {"mixed": 2_000_000, "narrow": 10_000_000}
SLOW = {"rows and csv.writer", "psycopg copy, async", "pandas", "pandas to Parquet"}
"""Ways that take so long that they are shown on the mixed table only, and once."""
SIZES = {0.5: "mixed LIMIT 500000", 2: "mixed", 8: "mixed, generate_series(1, 4)"}
"""What follows FROM, by millions of rows."""
TABLES = """
CREATE TABLE narrow AS SELECT g AS a, g * 7 % 1000003 AS b FROM generate_series(1, 10000000) g;
CREATE TABLE mixed AS SELECT g::bigint AS id, 'customer ' || g % 100000 AS name,
    (g * 1.37)::numeric(12, 2) AS amount, timestamptz '2024-01-01' + g * interval '17 s' AS at,
    g % 2 = 0 AS active, CASE WHEN g % 7 <> 0 THEN md5(g::text) END AS note,
    (g * 0.001)::float8 AS score, date '2020-01-01' + g % 1500 AS day,
    CASE WHEN g % 11 = 0 THEN 'says "hello", twice' ELSE repeat('x', 40) END AS comment
    FROM generate_series(1, 2000000) g;
VACUUM (FREEZE, ANALYZE) narrow;
VACUUM (FREEZE, ANALYZE) mixed;
CREATE ROLE bench LOGIN PASSWORD 'bench-password';
GRANT SELECT ON mixed, narrow TO bench;
"""
REPOSITORY = Path(__file__).parents[2]

Run = Callable[[], Awaitable[Any]]


async def ours(dsn: str, table: str, path: Path) -> Run:
    from datasources import DataSourceConfig, DataSourceType, Limits, Workspace
    from datasources_postgresql import PostgreSQLConnector

    connector = PostgreSQLConnector(
        DataSourceConfig("bench", DataSourceType.POSTGRESQL, "", {"dsn": dsn})
    )
    await connector.connect()
    workspace = Workspace(path.parent, limits=Limits(max_bytes=None, max_rows=None))

    async def run() -> None:
        os.rename(await connector.fetch_data(f"SELECT * FROM {table}", workspace), path)
        await connector.disconnect()

    return run


async def ours_parquet(dsn: str, table: str, path: Path) -> Run:
    return await _ours_parquet(dsn, f"SELECT * FROM {table}", path)


async def ours_parquet_table(dsn: str, table: str, path: Path) -> Run:
    return await _ours_parquet(dsn, table, path)


async def _ours_parquet(dsn: str, identifier: str, path: Path) -> Run:
    from datasources import DataSourceConfig, DataSourceType, Limits, Workspace
    from datasources_postgresql import PostgreSQLConnector
    from datasources_postgresql.arrow import import_arrow

    await import_arrow()
    config = DataSourceConfig("bench", DataSourceType.POSTGRESQL, "", {"dsn": dsn})
    connector = PostgreSQLConnector(config)
    await connector.connect()
    limits = Limits(max_bytes=None, max_rows=None)
    workspace = Workspace(path.parent, limits=limits, file_format="parquet")

    async def run() -> None:
        os.rename(await connector.fetch_data(identifier, workspace), path)
        await connector.disconnect()

    return run


async def adbc(dsn: str, table: str, path: Path) -> Run:
    import adbc_driver_postgresql.dbapi
    import pyarrow.parquet

    connection = adbc_driver_postgresql.dbapi.connect(dsn)

    async def run() -> None:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            reader = cursor.fetch_record_batch()
            with pyarrow.parquet.ParquetWriter(path, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)

    return run


async def duckdb_scan(dsn: str, table: str, path: Path) -> Run:
    return _duckdb(dsn, f"pg.public.{table}", path)


async def duckdb_query(dsn: str, table: str, path: Path) -> Run:
    return _duckdb(dsn, f"postgres_query('pg', 'SELECT * FROM {table}')", path)


def _duckdb(dsn: str, source: str, path: Path) -> Run:
    import duckdb

    spec = importlib.util.find_spec("duckdb_extension_postgres_scanner")
    assert spec is not None
    (extension,) = Path(str(spec.origin)).parent.rglob("*.duckdb_extension")
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute(f"LOAD '{extension}'")
    connection.execute(f"ATTACH '{dsn}' AS pg (TYPE postgres, READ_ONLY)")

    async def run() -> None:
        connection.execute(f"COPY (SELECT * FROM {source}) TO '{path}' (FORMAT parquet)")
        connection.close()

    return run


async def connectorx_stream(dsn: str, table: str, path: Path) -> Run:
    import connectorx
    import pyarrow.parquet

    async def run() -> None:
        reader = connectorx.read_sql(dsn, f"SELECT * FROM {table}", return_type="arrow_stream")
        with pyarrow.parquet.ParquetWriter(path, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)

    return run


async def pandas_csv(dsn: str, table: str, path: Path) -> Run:
    return _pandas(dsn, table, lambda frame: frame.to_csv(path, index=False))


async def pandas_parquet(dsn: str, table: str, path: Path) -> Run:
    return _pandas(dsn, table, lambda frame: frame.to_parquet(path))


def _pandas(dsn: str, table: str, write: Callable[[Any], object]) -> Run:
    import pandas as pd
    import psycopg2

    connection = psycopg2.connect(dsn)

    async def run() -> None:
        write(pd.read_sql(f"SELECT * FROM {table}", connection))
        connection.close()

    return run


async def asyncpg(dsn: str, table: str, path: Path) -> Run:
    import asyncpg

    connection = await asyncpg.connect(dsn)

    async def run() -> None:
        query = f"SELECT * FROM {table}"
        await connection.copy_from_query(query, output=path, format="csv", header=True)
        await connection.close()

    return run


async def psycopg_copy(dsn: str, table: str, path: Path) -> Run:
    connection = psycopg.connect(dsn)

    async def run() -> None:
        with (
            path.open("wb") as file,
            connection.cursor() as cursor,
            cursor.copy(f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT csv, HEADER)") as copy,
        ):
            for data in copy:
                file.write(data)
        connection.close()

    return run


async def psycopg_copy_async(dsn: str, table: str, path: Path) -> Run:
    connection = await psycopg.AsyncConnection.connect(dsn)

    async def run() -> None:
        with path.open("wb") as file:
            async with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT csv, HEADER)") as copy,
            ):
                async for data in copy:
                    file.write(data)
        await connection.close()

    return run


async def rows_and_writer(dsn: str, table: str, path: Path) -> Run:
    connection = psycopg.connect(dsn)

    async def run() -> None:
        with path.open("w", newline="") as file, connection.cursor("c") as cursor:
            cursor.itersize = 10_000
            cursor.execute(f"SELECT * FROM {table}")
            writer = csv.writer(file)
            for row in cursor:
                writer.writerow(row)
        connection.close()

    return run


WAYS: dict[str, Callable[[str, str, Path], Awaitable[Run]]] = {
    "ours": ours,
    "asyncpg": asyncpg,
    "psycopg copy, sync": psycopg_copy,
    "psycopg copy, async": psycopg_copy_async,
    "rows and csv.writer": rows_and_writer,
    "pandas": pandas_csv,
}
PARQUET_WAYS: dict[str, Callable[[str, str, Path], Awaitable[Run]]] = {
    "ADBC": adbc,
    "ours, Parquet": ours_parquet,
    "ours, Parquet, table": ours_parquet_table,
    "DuckDB, table": duckdb_scan,
    "DuckDB, query": duckdb_query,
    "ConnectorX stream": connectorx_stream,
    "pandas to Parquet": pandas_parquet,
}


def psql(dsn: str, table: str, path: Path) -> dict[str, float]:
    """Return the seconds of psql's copy, the practical floor."""
    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql, which the others are measured against, is not on the path")
    command = f"\\copy (SELECT * FROM {table}) TO '{path}' (FORMAT csv, HEADER)"
    before, started = os.times(), time.perf_counter()
    subprocess.run([program, "-Xqc", command, dsn], check=True)
    seconds, after = time.perf_counter() - started, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return {"seconds": seconds, "cpu": cpu, "memory": 0, "stall": 0}


async def measure(way: str, dsn: str, table: str, path: Path) -> dict[str, float]:
    """Return the figures of one way, warm: modules imported, connected."""
    run = await {**WAYS, **PARQUET_WAYS}[way](dsn, table, path)
    _, figures = await measured(run)
    return figures


def compare(rounds: int = ROUNDS) -> dict[str, dict[str, dict[str, float]]]:
    """Return the median figures by table and way; `ratio` is to psql in the same round."""
    return _compare(_rounds, rounds)


def compare_parquet(rounds: int = ROUNDS) -> dict[str, dict[str, dict[str, float]]]:
    """Return the same of Parquet; `ratio` is to ADBC in the same round."""
    return _compare(_parquet_rounds, rounds)


def compare_sizes() -> dict[float, dict[str, float]]:
    """Return the figures of our Parquet by millions of mixed rows."""
    with _server() as (dsn, path):
        return {
            size: _in_a_process("ours, Parquet", dsn, table, path) for size, table in SIZES.items()
        }


def _compare(
    run: Callable[[int, str, str, Path], dict[str, dict[str, float]]], rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    with _server() as (dsn, path):
        return {table: run(rounds, dsn, table, path) for table in ROWS}


@contextmanager
def _server() -> Iterator[tuple[str, Path]]:
    """Give the address of a server with the tables, and a path for what is written."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with PostgresServer() as server, tempfile.TemporaryDirectory(dir=base) as folder:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
        dsn = f"postgresql://bench:bench-password@{server.host}:{server.port}/{server.database}"
        yield dsn, Path(folder, "out")


def _parquet_rounds(rounds: int, dsn: str, table: str, path: Path) -> dict[str, dict[str, float]]:
    taken: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        floor = 0.0
        for way in PARQUET_WAYS:
            if way in SLOW and (number or table != "mixed"):
                continue
            path.unlink(missing_ok=True)
            figures = _in_a_process(way, dsn, table, path)
            floor = floor or figures["seconds"]  # of ADBC, the first
            taken.setdefault(way, []).append({**figures, "ratio": figures["seconds"] / floor})
    return _medians(taken)


def _rounds(rounds: int, dsn: str, table: str, path: Path) -> dict[str, dict[str, float]]:
    taken: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        path.unlink(missing_ok=True)
        floor = psql(dsn, table, path)
        size, content = path.stat().st_size, _head(path)
        taken.setdefault("psql \\copy", []).append({**floor, "ratio": 1.0})
        for way in WAYS:
            if way in SLOW and (number or table != "mixed"):
                continue
            path.unlink()  # freeing so large a file takes time that is nobody's
            figures = _in_a_process(way, dsn, table, path)
            if way not in SLOW:
                assert (path.stat().st_size, _head(path)) == (size, content), way
            ratio = figures["seconds"] / floor["seconds"]
            taken.setdefault(way, []).append({**figures, "ratio": ratio})
    return _medians(taken)


def _medians(taken: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        way: {key: statistics.median(one[key] for one in all_) for key in all_[0]}
        for way, all_ in taken.items()
    }


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 16)


def _in_a_process(way: str, dsn: str, table: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.postgresql"]
    done = subprocess.run(
        [*command, way, dsn, table, str(path)], check=False, cwd=REPOSITORY, capture_output=True
    )
    if done.returncode:
        raise RuntimeError(f"{way} on {table} failed: {done.stderr.decode()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def report(results: dict[str, dict[str, dict[str, float]]], floor: str = "psql") -> None:
    """Print seconds, the ratio to `floor`, processor time, memory over start and longest stall."""
    for table, ways in results.items():
        title = f"{table}, {ROWS[table] // 1_000_000} M rows"
        print(f"\n{title:22}{'s':>8}{'to ' + floor:>9}{'cpu s':>8}{'MiB':>8}{'stall ms':>10}")
        for way, one in ways.items():
            print(
                f"{way:22}{one['seconds']:8.2f}{one['ratio']:9.2f}{one['cpu']:8.2f}"
                f"{one['memory'] / 2**20:8.0f}{one['stall'] * 1000:10.0f}"
            )


@pytest.mark.bench
def test_a_query_is_written_as_fast_as_psql_writes_it() -> None:
    results = compare()
    report(results)
    mixed, narrow = results["mixed"], results["narrow"]
    assert mixed["ours"]["ratio"] <= 1.0
    assert mixed["ours"]["ratio"] <= 1.05 * mixed["asyncpg"]["ratio"]
    assert narrow["ours"]["ratio"] <= 1.5
    for table in (mixed, narrow):
        assert table["ours"]["memory"] <= 64 * 2**20
        assert table["ours"]["stall"] <= 0.05
        assert table["ours"]["ratio"] < table["psycopg copy, sync"]["ratio"]


@pytest.mark.bench
def test_parquet_is_written_faster_than_by_adbc() -> None:
    results = compare_parquet()
    report(results, "ADBC")
    for table in results.values():
        for way in ("ours, Parquet", "ours, Parquet, table"):
            assert table[way]["memory"] <= 110 * 2**20
            assert table[way]["stall"] <= 0.05
    assert results["mixed"]["ours, Parquet"]["ratio"] <= 0.8
    narrow = results["narrow"]
    assert narrow["ours, Parquet, table"]["ratio"] <= 0.7 * narrow["ours, Parquet"]["ratio"]


@pytest.mark.bench
def test_memory_of_parquet_does_not_grow_with_the_result() -> None:
    results = compare_sizes()
    for size, one in results.items():
        print(f"\nours, Parquet, {size:3} M mixed rows{one['seconds']:8.2f} s", end="")
        print(f"{one['memory'] / 2**20:8.0f} MiB", end="")
    assert results[8]["memory"] <= 110 * 2**20
    assert results[8]["memory"] - results[2]["memory"] <= 16 * 2**20  # for 6 M rows, 900 MB


if __name__ == "__main__":
    if len(sys.argv) == 5:
        way, dsn, table, path = sys.argv[1:]
        print(json.dumps(asyncio.run(measure(way, dsn, table, Path(path)))))
    else:
        report(compare())
