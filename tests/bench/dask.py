"""A table to Parquet by several readers, one run: `pytest -m bench -s tests/bench/dask.py`.

Every way asks the same server over loopback TCP and writes into the same memory-backed directory. Each
measurement is a process of its own with its children, warm: workers are started and have imported
what they need. Rounds go through all ways, and ratios are to one process in the same round. Processor
time is that of the way's processes, and that of the server beside it; memory is the most that the
way's processes had together, with what they share counted in each.

The figures are of `ROWS=20000000`, on an idle machine; by default there are 1 M rows.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.bench.measuring import measured_processes
from tests.servers import PostgresServer

ROWS, ROUNDS, WORKERS = int(os.environ.get("ROWS", "1000000")), 3, 2
REPOSITORY = Path(__file__).parents[2]
TABLE = f"""
CREATE TABLE mixed AS SELECT g::bigint AS id, 'customer ' || g % 100000 AS name,
    (g * 1.37)::numeric(12, 2) AS amount, timestamptz '2024-01-01' + g * interval '17 s' AS at,
    g % 2 = 0 AS active, CASE WHEN g % 7 <> 0 THEN md5(g::text) END AS note,
    (g * 0.001)::float8 AS score, date '2020-01-01' + g % 1500 AS day,
    CASE WHEN g % 11 = 0 THEN 'says "hello", twice' ELSE repeat('x', 40) END AS comment
    FROM generate_series(1, {ROWS}) g;
VACUUM (FREEZE, ANALYZE) mixed;
CREATE ROLE bench LOGIN PASSWORD 'bench-password';
GRANT SELECT ON mixed TO bench
"""
# The size of a split does not go up with that of the table.
SPLITS: dict[str, Any] = {"target_bytes": 64 << 20, "max_splits": 1000}

Run = Callable[[], Any]


@contextmanager
def one_process(dsn: str, folder: Path) -> Iterator[Run]:
    from datasources import Limits
    from datasources_dask import open_registry

    limits = Limits(max_bytes=None, max_rows=None, timeout=None)
    with open_registry() as registry:
        registry.preview("bench", "mixed", 1)
        yield lambda: registry.fetch("bench", "mixed", folder, format="parquet", limits=limits)


@contextmanager
def two_workers(dsn: str, folder: Path) -> Iterator[Run]:
    from datasources_dask import open_registry

    with (
        open_registry() as registry,
        ProcessPoolExecutor(WORKERS, get_context("spawn")) as workers,
    ):

        def run() -> None:
            with registry.plan("bench", "mixed", **SPLITS) as plan:
                list(workers.map(write_split, plan.splits, [folder] * len(plan.splits)))

        list(workers.map(_warm, range(WORKERS)))
        yield run


def _warm(number: int) -> None:
    import datasources_dask  # noqa: F401
    import datasources_postgresql.arrow  # noqa: F401

    time.sleep(1)  # so that each worker has one of these


def write_split(split: Any, folder: Path) -> None:
    """Write a split as a Parquet file, batch by batch."""
    import pyarrow.parquet as pq

    from datasources_dask.environment import open_for_one_connection

    with open_for_one_connection() as registry:
        batches = registry.read_split(split)
        first = next(batches)
        with pq.ParquetWriter(folder / f"{split.index}.parquet", first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)


@contextmanager
def dask_workers(dsn: str, folder: Path) -> Iterator[Run]:
    from distributed import Client

    from datasources_dask import read_source

    def run() -> None:
        with read_source("bench", "mixed", **SPLITS) as frame:
            frame.to_parquet(str(folder), write_index=False)

    with Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as client:
        client.run(_warm, 0)
        yield run


@contextmanager
def duckdb_scan(dsn: str, folder: Path) -> Iterator[Run]:
    import duckdb

    spec = importlib.util.find_spec("duckdb_extension_postgres_scanner")
    assert spec is not None
    (extension,) = Path(str(spec.origin)).parent.rglob("*.duckdb_extension")
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection:
        connection.execute(f"LOAD '{extension}'; SET threads = {WORKERS}")
        connection.execute(f"ATTACH '{dsn}' AS pg (TYPE postgres, READ_ONLY)")
        query = f"COPY pg.public.mixed TO '{folder}/out.parquet' (FORMAT parquet)"
        yield lambda: connection.execute(query)


@contextmanager
def connectorx_partitions(dsn: str, folder: Path) -> Iterator[Run]:
    import connectorx
    import pyarrow.parquet as pq

    def run() -> None:
        table = connectorx.read_sql(
            dsn,
            "SELECT * FROM mixed",
            return_type="arrow",
            partition_on="id",
            partition_num=WORKERS,
        )
        pq.write_table(table, folder / "out.parquet")

    yield run


WAYS = {
    "one process": one_process,
    "two workers": two_workers,
    "Dask, two workers": dask_workers,
    "DuckDB, two threads": duckdb_scan,
    "ConnectorX, two partitions": connectorx_partitions,
}


def measure(way: str, dsn: str, folder: Path) -> dict[str, float]:
    """Return the figures of one way: seconds, processor time, bytes of memory."""
    with WAYS[way](dsn, folder) as run:
        return measured_processes(run)[1]


def _server_cpu(server: PostgresServer) -> float:
    """Return the processor time of the server's processes, ended ones included."""
    main = psutil.Process(int((server._data / "postmaster.pid").read_text().split()[0]))
    return sum(sum(one.cpu_times()[:4]) for one in [main, *main.children(recursive=True)])


@contextmanager
def _server() -> Iterator[tuple[PostgresServer, str, dict[str, str]]]:
    """Give a server with the table, its address, and the environment of processes that read it."""
    from datasources import CredentialManager, DataSourceConfig
    from datasources.blocking import DataSourceRegistry

    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for statement in TABLE.split(";\n"):
                connection.execute(statement.encode())
        dsn = f"postgresql://bench:bench-password@{server.host}:{server.port}/{server.database}"
        store, key = f"{folder}/sources.db", CredentialManager.generate_key()
        with DataSourceRegistry(CredentialManager(key), store=store) as registry:
            registry.register_data_source(DataSourceConfig("bench", "postgresql", "", {"dsn": dsn}))
        environment = {"DATASOURCES_STORE": store, "DATASOURCE_ENCRYPTION_KEY": key}
        yield server, dsn, os.environ | environment


def compare(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Return the median figures by way; `ratio` is to one process in the same round."""
    import pyarrow.dataset as ds

    taken: dict[str, list[dict[str, float]]] = {}
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with _server() as (server, dsn, environment):
        for _ in range(rounds):
            first = 0.0
            for way in WAYS:
                with tempfile.TemporaryDirectory(dir=base) as folder:
                    before = _server_cpu(server)
                    command = [sys.executable, "-m", "tests.bench.dask", way, dsn, folder]
                    done = subprocess.run(
                        command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.PIPE
                    )
                    figures = json.loads(done.stdout.splitlines()[-1])
                    figures["server"] = _server_cpu(server) - before
                    assert ds.dataset(folder, format="parquet").count_rows() == ROWS
                first = first or figures["seconds"]
                taken.setdefault(way, []).append({**figures, "ratio": figures["seconds"] / first})
    return {
        way: {name: statistics.median(one[name] for one in all_) for name in all_[0]}
        for way, all_ in taken.items()
    }


def computed(figures: dict[str, float], workers: int, cores: int) -> float:
    """Return the seconds that a cluster would take, computed from the processor time of its parts.

    Neither side waits for the other, the network or a disk: it is a lower bound.

    Args:
        figures: Those of Dask with two workers.
        workers: Workers with one core each.
        cores: Cores of the server.
    """
    return max(figures["cpu"] / workers, figures["server"] / cores)


@pytest.mark.bench
def test_readers_side_by_side() -> None:
    medians = compare()
    print(f"\n{ROWS:,} mixed rows to Parquet, medians of {ROUNDS} rounds")
    for way, one in medians.items():
        print(
            f"{way:28} {one['ratio']:5.2f} of one process, {one['seconds']:6.2f} s, processor"
            f" {one['cpu']:6.2f} s + server {one['server']:6.2f} s, {one['memory'] / 2**20:6.0f} MiB"
        )
    for cores in (2, 8, 16):
        seconds = computed(medians["Dask, two workers"], 16, cores)
        print(f"computed, not measured: 16 workers, a server of {cores} cores: {seconds:.2f} s")


if __name__ == "__main__":
    way, dsn, folder = sys.argv[1:]
    print(json.dumps(measure(way, dsn, Path(folder))))
