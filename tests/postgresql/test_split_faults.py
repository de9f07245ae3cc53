"""Splits while readers are killed, servers restart and tables change: the right rows or an error."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from datasources import ConnectError, DataFetchError
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import Admin, Source, active, sessions
from tests.postgresql.test_role import sized  # noqa: F401  # a fixture
from tests.postgresql.test_splits import (
    SMALL,
    joined,
    numbers,
    read_all,
)
from tests.servers import PostgresServer
from tests.waiting import wait_until

THOUSAND = "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i"
READER = """
import asyncio, json, sys
from datasources import DataSourceConfig, Split
from datasources_postgresql import PostgreSQLConnector

async def main(options, split):
    connector = PostgreSQLConnector(DataSourceConfig("s", "postgresql", "s", options))
    await connector.connect()
    batches = connector.read_split(Split.from_dict(split))
    await anext(batches)
    print("reading", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*map(json.loads, sys.argv[1:])))
"""


async def test_a_reader_killed_in_mid_split_leaves_the_split_to_another(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t (i int, text text)")
    admin.execute("INSERT INTO t SELECT i, repeat('x', 2000) FROM generate_series(1, 8000) i")
    async with reader.plan_splits("t", target_bytes=1 << 30, max_splits=1) as plan:
        before = sessions(admin)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", READER, json.dumps(reader.config.config)),
            json.dumps(plan.splits[0].to_dict()),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"reading\n"
            assert sessions(admin) == before + 1
        finally:
            process.kill()
            await process.communicate()  # to the end of its output, which closes the pipe
        assert joined(await read_all(reader, plan, ["i"])) == numbers(1, 8001)
        await wait_until(lambda: active(admin, "COPY") == 0)


async def test_a_plan_ends_when_its_server_restarts(
    admin: Admin, reader: PostgreSQLConnector, pg_roles: PostgresServer
) -> None:
    admin.execute(THOUSAND)
    admin.close()
    async with reader.plan_splits("t", **SMALL) as plan:
        await asyncio.to_thread(pg_roles.restart)
        with pytest.raises((ConnectError, DataFetchError)):
            await read_all(reader, plan)
        with pytest.raises(DataFetchError, match="the plan of the split has ended"):
            await read_all(reader, plan)
    async with reader.plan_splits("t", **SMALL) as plan:
        assert joined(await read_all(reader, plan)) == numbers(1, 1001)


async def test_a_table_of_one_row_has_one_split(admin: Admin, reader: PostgreSQLConnector) -> None:
    admin.execute("CREATE TABLE t AS SELECT 7 AS i")
    async with reader.plan_splits("t", **SMALL) as plan:
        assert await read_all(reader, plan) == [[(7,)]]


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE leaf; INSERT INTO t SELECT generate_series(1, 1000)",
        "ALTER TABLE t RENAME TO old; CREATE TABLE t AS SELECT i FROM generate_series(1, 9) i",
        "DROP TABLE t; CREATE TABLE t AS SELECT i FROM generate_series(1, 9) i",
        "ALTER TABLE t ADD COLUMN j int",
        "ALTER TABLE t DROP COLUMN i; ALTER TABLE t ADD COLUMN i int",
        "ALTER TABLE t RENAME COLUMN i TO j",
        "ALTER TABLE t ALTER COLUMN i TYPE int8",
        "ALTER TABLE t DETACH PARTITION leaf",
    ],
)
async def test_without_one_snapshot_a_table_that_became_another_is_refused(
    admin: Admin, reader: PostgreSQLConnector, change: str
) -> None:
    admin.execute(
        "CREATE TABLE t (i int, key int) PARTITION BY RANGE (key);"
        "CREATE TABLE leaf PARTITION OF t DEFAULT; INSERT INTO t SELECT generate_series(1, 1000)"
    )
    async with reader.plan_splits("t", **SMALL, consistent=False) as plan:
        assert len(plan.splits) > 1
        admin.execute(change)
        with pytest.raises(DataFetchError, match="since; plan again"):
            await read_all(reader, plan)


@pytest.mark.soak
async def test_a_plan_of_the_role_of_the_template_may_be_idle_for_90_seconds(
    admin: Admin,
    sized: str,  # noqa: F811
    source: Source,
) -> None:
    """The role ends transactions that are idle for a minute."""
    admin.execute(THOUSAND)
    connector = await source(user=sized, password="change this")
    async with connector.plan_splits("t", **SMALL) as plan:
        await asyncio.sleep(90)
        assert joined(await read_all(connector, plan)) == numbers(1, 1001)


@pytest.mark.soak
async def test_rows_of_a_hundred_megabytes_are_read_by_splits(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t (i int, text text); ALTER TABLE t ALTER text SET STORAGE EXTERNAL"
    )
    admin.execute("INSERT INTO t SELECT i, repeat(i::text, 100000000) FROM generate_series(1, 3) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        parts = await read_all(reader, plan)
    lengths = sorted((i, len(text), text[:1], text[-1:]) for part in parts for i, text in part)
    assert lengths == [(i, 100_000_000, str(i), str(i)) for i in (1, 2, 3)]
