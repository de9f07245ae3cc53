"""Splits of tables and queries: together they are exactly the item, in one snapshot."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from datasources import (
    DataFetchError,
    DataSourceRegistry,
    ItemNotFoundError,
    LimitExceededError,
    OptionError,
    PolicyError,
    PoolConfig,
    Split,
    SplitPlan,
    gather_splits,
    run_in_thread,
)
from datasources_postgresql import PostgreSQLConnector, libpq
from datasources_postgresql.arrow import iterate_batches
from datasources_postgresql.reading import Transaction, begin
from datasources_postgresql.splits import plans
from tests.conftest import _served
from tests.postgresql.conftest import (
    PASSWORD,
    Admin,
    Source,
    active,
    configured,
    number,
    sessions,
)
from tests.servers import Database, PostgresServer
from tests.waiting import clock_ahead, wait_until

SMALL: dict[str, Any] = {"target_bytes": 1, "max_splits": 8}
WHOLE: dict[str, Any] = {"target_bytes": 1 << 30, "max_splits": 1}
Rows = Counter[tuple[Any, ...]]


async def rows_of(batches: AsyncIterator[Any]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) async for batch in batches for row in batch.to_pylist()]


async def read_all(
    connector: PostgreSQLConnector, plan: SplitPlan, columns: list[str] | None = None
) -> list[list[tuple[Any, ...]]]:
    """Return the rows of each split."""
    return [await rows_of(connector.read_split(split, columns)) for split in plan.splits]


def generator(connector: PostgreSQLConnector, plan: SplitPlan) -> AsyncGenerator[Any]:
    return cast("AsyncGenerator[Any]", connector.read_split(plan.splits[0]))


def joined(parts: list[list[tuple[Any, ...]]]) -> Rows:
    return Counter(row for part in parts for row in part)


def numbers(*bounds: int) -> Rows:
    return Counter((i,) for i in range(*bounds))


def whole(plan: SplitPlan) -> Split:
    """Return a split with every row of a table, in the snapshot of the plan."""
    part = plan.splits[0].part
    oid, file, *_ = part["blocks"][0]
    return replace(plan.splits[0], part=part | {"blocks": [[oid, file, 0, None]]})


@pytest.fixture
async def single(source: Source) -> PostgreSQLConnector:
    """A connector with a pool of one connection."""
    return await source(pool=PoolConfig(max_size=1, acquire_timeout=30))


def fill(admin: Admin) -> None:
    """Make a table `t` that takes its reader several batches."""
    admin.execute("CREATE TABLE t (i int, text text)")
    admin.execute("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")


def sessions_in_transaction(admin: Admin) -> int:
    return number(
        admin,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND usename = 'reader' AND state LIKE 'idle in transaction%%'",
    )


async def test_splits_of_a_table_are_ranges_of_its_blocks(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t (i int, text text)")
    admin.execute("INSERT INTO t SELECT i, repeat('x', 300) FROM generate_series(1, 3000) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        parts = await read_all(reader, plan)
    assert len(parts) == 8
    assert all(parts[:6])
    assert joined(parts) == Counter((i, "x" * 300) for i in range(1, 3001))
    assert plan.schema.names == ["i", "text"]
    assert plan.consistent


async def test_a_plan_has_no_more_splits_than_its_bytes_need(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 10000) i")
    admin.execute("ANALYZE t")
    async with reader.plan_splits("t", target_bytes=1 << 30, max_splits=64) as plan:
        (split,) = plan.splits
    assert split.estimated_rows == 10000
    assert split.estimated_bytes == number(admin, "SELECT pg_relation_size('t')")


@pytest.mark.parametrize("identifier", ["t", "SELECT * FROM t"], ids=["table", "query"])
async def test_a_table_without_rows_has_one_split_without_rows(
    admin: Admin, reader: PostgreSQLConnector, identifier: str
) -> None:
    admin.execute("CREATE TABLE t (i int)")
    async with reader.plan_splits(identifier, **SMALL, key="i") as plan:
        assert [await rows_of(reader.read_split(split)) for split in plan.splits] == [[]]


async def test_splits_of_a_partitioned_table_are_those_of_its_leaves(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t (i int, text text) PARTITION BY RANGE (i);"
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (1000);"
        "CREATE TABLE high (text text, dropped int, i int);"
        "ALTER TABLE high DROP COLUMN dropped;"
        "ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (1000) TO (3000);"
        "CREATE TABLE none PARTITION OF t DEFAULT PARTITION BY LIST (text);"
        "INSERT INTO t SELECT i, i || repeat('x', 300) FROM generate_series(0, 2999) i"
    )
    async with reader.plan_splits("t", **SMALL) as plan:
        parts = await read_all(reader, plan)
    assert len(parts) == 8
    assert joined(parts) == Counter((i, f"{i}{'x' * 300}") for i in range(3000))


async def test_children_by_inheritance_belong_to_the_splits_of_their_parent(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t (i int); CREATE TABLE child (extra text) INHERITS (t);"
        "INSERT INTO t SELECT generate_series(1, 1000); INSERT INTO child VALUES (1001, 'x')"
    )
    async with reader.plan_splits("t", **SMALL) as plan:
        parts = await read_all(reader, plan)
    assert len(parts) > 1
    assert joined(parts) == numbers(1, 1002)


async def test_columns_are_read_in_the_order_asked_for(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("""CREATE TABLE t AS SELECT 1 AS a, 'x'::text AS "B c", 2.5::float8 AS d""")
    async with reader.plan_splits("t", **SMALL) as plan:
        assert await read_all(reader, plan, ["d", "B c"]) == [[(2.5, "x")]]
        with pytest.raises(OptionError, match="no column 'e'; the columns are 'a', 'B c', 'd'"):
            await read_all(reader, plan, ["e"])


async def test_ranges_of_a_key_divide_a_query(admin: Admin, reader: PostgreSQLConnector) -> None:
    admin.execute("CREATE TABLE t AS SELECT i % 50 AS k, i FROM generate_series(1, 2000) i")
    admin.execute("INSERT INTO t VALUES (NULL, -1), (NULL, -2)")
    query = "SELECT k, i FROM t WHERE i <> 7 -- odd"
    async with reader.plan_splits(query, **SMALL, key="k") as plan:
        parts = await read_all(reader, plan)
    assert len(parts) == 8
    assert all(parts)
    expected = Counter[tuple[Any, ...]]((i % 50, i) for i in range(1, 2001) if i != 7)
    assert joined(parts) == expected + Counter([(None, -1), (None, -2)])
    assert sum(len({k for k, _ in part}) for part in parts) == 51


KEYS = {
    "text": r"chr(64 + i % 20) || '''\ %'",
    "float8": "CASE i % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE i / 7.0 END::float8",
    "numeric(9,3)": "i / 7.0",
    "timestamptz": "'2026-03-29 00:00+00'::timestamptz + i * interval '7 minutes'",
    "uuid": "md5(i::text)::uuid",
    "date": "CASE WHEN i % 9 = 0 THEN 'infinity' ELSE date '2026-01-01' + i END",
    "interval": "i * interval '1 month 3 hours'",
    "bytea": "decode(md5(i::text), 'hex')",
    "bool": "i % 2 = 0",
}


@pytest.mark.parametrize("type_", KEYS)
async def test_keys_of_every_kind_divide_a_view(
    admin: Admin, reader: PostgreSQLConnector, type_: str
) -> None:
    admin.execute(
        f"CREATE TABLE t AS SELECT i, ({KEYS[type_]})::{type_} AS k FROM generate_series(1, 300) i;"
        "CREATE VIEW v AS SELECT * FROM t"
    )
    async with reader.plan_splits("v", **SMALL, key="k") as plan:
        parts = await read_all(reader, plan, ["i"])
    assert len(parts) > 1
    assert joined(parts) == numbers(1, 301)


async def test_a_fetch_of_splits_writes_the_table_to_one_directory(
    admin: Admin, pg_database: Database, tmp_path: Path
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i, i || 'x' AS text FROM generate_series(1, 3000) i")
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(configured(pg_database).config)
        receipt = await registry.fetch("pg", "t", tmp_path, splits=4)
        query = await registry.fetch("pg", "SELECT i FROM t", tmp_path, splits=4)
    table = pq.read_table(receipt.path)
    assert Counter(zip(*table.to_pydict().values(), strict=True)) == Counter(
        (i, f"{i}x") for i in range(1, 3001)
    )
    assert (receipt.rows, query.rows) == (3000, 3000)
    assert Path(receipt.path).name == "t.dataset"
    assert Path(query.path).name.startswith("query-")


async def test_what_cannot_be_divided_is_one_split(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i;"
        "CREATE VIEW v AS SELECT i FROM t; CREATE MATERIALIZED VIEW m AS SELECT i FROM t;"
        "CREATE VIEW over_m AS SELECT i FROM m"
    )
    for identifier, key in [("v", None), ("SELECT i FROM t", None), ("over_m", "i")]:
        async with reader.plan_splits(identifier, **SMALL, key=key) as plan:
            parts = await read_all(reader, plan)
        assert len(parts) == 1
        assert joined(parts) == numbers(1, 1001)


async def test_policies_filter_the_rows_of_splits_as_those_of_the_table(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t (i int) PARTITION BY RANGE (i);"
        "CREATE TABLE leaf PARTITION OF t DEFAULT;"
        "INSERT INTO t SELECT generate_series(1, 1000);"
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY low ON t USING (i <= 10)"
    )
    async with reader.plan_splits("t", **SMALL) as plan:
        assert joined(await read_all(reader, plan)) == numbers(1, 11)


async def test_leaves_that_the_role_may_read_through_the_parent_only_are_one_split(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t (i int) PARTITION BY RANGE (i); CREATE TABLE leaf PARTITION OF t DEFAULT;"
        "INSERT INTO t SELECT generate_series(1, 1000); REVOKE ALL ON leaf FROM reader"
    )
    async with reader.plan_splits("t", **SMALL) as plan:
        parts = await read_all(reader, plan)
    assert len(parts) == 1
    assert joined(parts) == numbers(1, 1001)


async def test_a_view_on_tables_of_others_is_divided_by_its_key(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i; REVOKE ALL ON t FROM reader;"
        "CREATE VIEW v AS SELECT i FROM t"
    )
    async with reader.plan_splits("v", **SMALL, key="i") as plan:
        parts = await read_all(reader, plan)
    assert len(parts) == 8
    assert joined(parts) == numbers(1, 1001)


async def test_splits_do_not_see_what_is_written_after_the_plan(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        admin.execute("UPDATE t SET i = i + 5000 WHERE i % 2 = 0")
        admin.execute("DELETE FROM t WHERE i % 3 = 0")
        admin.execute("INSERT INTO t SELECT generate_series(1, 1000)")
        assert joined(await read_all(reader, plan)) == numbers(1, 1001)


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.soak)])
async def test_readers_get_exactly_the_rows_of_the_snapshot_while_rows_change(
    admin: Admin, reader: PostgreSQLConnector, pg_database: Database, times: int
) -> None:
    admin.execute(
        "CREATE TABLE t (id int, version int, filler text);"
        "INSERT INTO t SELECT i, 0, repeat('x', 200) FROM generate_series(1, 4000) i"
    )
    stop = asyncio.Event()

    async def change() -> None:
        dsn = pg_database.dsn()
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                await connection.execute("UPDATE t SET version = version + 1 WHERE id % 7 = 0")
                await connection.execute("DELETE FROM t WHERE id % 11 = 0")
                await connection.execute(
                    "INSERT INTO t SELECT i, -1 FROM generate_series(11, 99, 11) i"
                )

    changing = asyncio.ensure_future(change())
    for _ in range(times):
        async with reader.plan_splits("t", **SMALL) as plan:
            expected = await rows_of(reader.read_split(whole(plan)))
            assert len(plan.splits) == 8
            parts = await gather_splits(
                replace(plan, reader=reader.read_split),
                lambda _, batches: rows_of(batches),
                concurrency=8,
            )
        assert joined(parts) == Counter(expected)
    stop.set()
    await changing


async def test_a_plan_reads_what_a_reload_has_left_that_it_had_to_wait_for(
    admin: Admin,
    reader: PostgreSQLConnector,
    pg_database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A snapshot from before the lock would see no row of a table that was filled again."""
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    reloaded = False
    with psycopg.connect(pg_database.dsn()) as other:

        async def begin_during_a_reload(*arguments: Any) -> Transaction:
            nonlocal reloaded
            reloaded = True
            monkeypatch.setattr(plans, "begin", begin)
            other.execute("TRUNCATE t; INSERT INTO t SELECT generate_series(2001, 3000)")
            beginning = asyncio.ensure_future(begin(*arguments))
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            await wait_until(lambda: number(admin, waiting))
            other.commit()
            return await beginning

        # The item has been looked at; the plan's own transaction begins.
        monkeypatch.setattr(plans, "begin", begin_during_a_reload)
        async with reader.plan_splits("t", **SMALL) as plan:
            assert len(plan.splits) > 1
            assert joined(await read_all(reader, plan)) == numbers(2001, 3001)
    assert reloaded


async def test_a_leaf_attached_between_lock_and_snapshot_is_locked_too(
    admin: Admin, reader: PostgreSQLConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute(
        "CREATE TABLE t (i int) PARTITION BY RANGE (i);"
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (1000);"
        "INSERT INTO t SELECT generate_series(0, 999);"
        "CREATE TABLE late AS SELECT i FROM generate_series(1000, 1999) i"
    )
    lock = plans._Locked.begin

    async def attach_once_locked(*arguments: Any) -> None:
        monkeypatch.setattr(plans._Locked, "begin", lock)
        await lock(*arguments)
        admin.execute("ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (1000) TO (2000)")

    monkeypatch.setattr(plans._Locked, "begin", attach_once_locked)
    admin.execute("SET lock_timeout = 100")
    async with reader.plan_splits("t", **SMALL) as plan:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            admin.execute("TRUNCATE late")
        assert joined(await read_all(reader, plan)) == numbers(2000)


async def test_a_view_refreshed_after_the_snapshot_is_read_whole(
    admin: Admin, reader: PostgreSQLConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute("CREATE MATERIALIZED VIEW m AS SELECT i FROM generate_series(1, 1000) i")

    async def refresh_once_begun(*arguments: Any) -> Transaction:
        monkeypatch.setattr(plans, "begin", begin)
        transaction = await begin(*arguments)
        admin.execute("REFRESH MATERIALIZED VIEW m")
        return transaction

    monkeypatch.setattr(plans, "begin", refresh_once_begun)
    async with reader.plan_splits("m", **SMALL) as plan:
        assert joined(await read_all(reader, plan)) == numbers(1, 1001)


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE leaf",
        "ALTER TABLE t DETACH PARTITION leaf",
        "ALTER TABLE leaf RENAME TO other",
        "DROP TABLE t",
        "REFRESH MATERIALIZED VIEW m",
    ],
)
async def test_an_open_plan_keeps_its_tables_as_they_are(
    admin: Admin, reader: PostgreSQLConnector, change: str
) -> None:
    admin.execute(
        "CREATE TABLE t (i int) PARTITION BY RANGE (i);"
        "CREATE TABLE leaf PARTITION OF t DEFAULT; INSERT INTO t SELECT generate_series(1, 1000);"
        "CREATE MATERIALIZED VIEW m AS SELECT i FROM generate_series(1, 1000) i"
    )
    admin.execute("SET lock_timeout = 100")
    identifier = "m" if "VIEW m" in change else "t"
    async with reader.plan_splits(identifier, **SMALL) as plan:
        assert len(plan.splits) > 1
        with pytest.raises(psycopg.errors.LockNotAvailable):
            admin.execute(change)
        assert joined(await read_all(reader, plan)) == numbers(1, 1001)
    admin.execute("SET lock_timeout = 0")
    admin.execute(change)


async def test_a_table_in_the_place_of_the_planned_one_is_an_error(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    """No lock on a table prevents that its schema is renamed."""
    admin.execute(
        "CREATE SCHEMA live; CREATE TABLE live.t AS SELECT i FROM generate_series(1, 1000) i;"
        "CREATE SCHEMA next; CREATE TABLE next.t AS SELECT i FROM generate_series(1, 1000) i;"
        "GRANT USAGE ON SCHEMA live, next TO reader"
    )
    async with reader.plan_splits("live.t", **SMALL) as plan:
        admin.execute("ALTER SCHEMA live RENAME TO old; ALTER SCHEMA next RENAME TO live")
        with pytest.raises(DataFetchError, match=r"another table has the name live\.t now"):
            await read_all(reader, plan)


async def test_tables_that_are_locked_too_long_are_an_error(
    admin: Admin, source: Source, pg_database: Database
) -> None:
    admin.execute("CREATE TABLE t (i int)")
    connector = await source(statement_timeout=0.5)
    with psycopg.connect(pg_database.dsn()) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LimitExceededError):
            async with connector.plan_splits("t", **SMALL):
                pass


@pytest.mark.parametrize(
    ("identifier", "change"), [("t", "TRUNCATE t"), ("m", "REFRESH MATERIALIZED VIEW m")]
)
async def test_without_one_snapshot_a_table_that_was_rewritten_is_refused(
    admin: Admin, reader: PostgreSQLConnector, identifier: str, change: str
) -> None:
    admin.execute(
        "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i;"
        "CREATE MATERIALIZED VIEW m AS SELECT i FROM t"
    )
    async with reader.plan_splits(identifier, **SMALL, consistent=False) as plan:
        admin.execute(change)
        with pytest.raises(DataFetchError, match="rewritten or dropped since; plan again"):
            await read_all(reader, plan)


async def test_a_view_refreshed_while_it_is_planned_is_read_whole(
    admin: Admin, reader: PostgreSQLConnector, pg_database: Database
) -> None:
    admin.execute("CREATE MATERIALIZED VIEW m AS SELECT i FROM generate_series(1, 1000) i")
    with psycopg.connect(pg_database.dsn()) as other:
        other.execute("REFRESH MATERIALIZED VIEW m")

        async def plan_and_read() -> Rows:
            async with reader.plan_splits("m", **SMALL) as plan:
                return joined(await read_all(reader, plan))

        planning = asyncio.ensure_future(plan_and_read())
        await wait_until(lambda: number(admin, "SELECT count(*) FROM pg_locks WHERE NOT granted"))
        other.commit()
        assert await planning == numbers(1, 1001)


async def test_a_split_of_a_plan_that_has_ended_is_refused(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        pass
    with pytest.raises(DataFetchError, match="the plan of the split has ended"):
        await read_all(reader, plan)


async def test_a_split_of_a_plan_that_is_just_ending_is_refused(
    admin: Admin, reader: PostgreSQLConnector, pg_roles: PostgresServer
) -> None:
    """The server removes the file of a snapshot after the transaction that exported it has ended."""
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        file = pg_roles.snapshot_file(str(plan.splits[0].snapshot))
        kept = file.with_name("kept")
        kept.hardlink_to(file)
    kept.rename(file)
    with pytest.raises(DataFetchError, match="the plan of the split has ended"):
        await read_all(reader, plan)
    file.unlink()


async def test_splits_of_a_plan_whose_session_was_ended_are_refused(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = 'reader' AND state = 'idle in transaction'"
        )
        with pytest.raises(DataFetchError, match="the plan of the split has ended"):
            await read_all(reader, plan)


async def test_a_reader_on_another_server_gets_an_error(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    """Two servers may have a snapshot of one name; they were not started at the same time."""
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        split = plan.splits[0]
        elsewhere = replace(split, part=split.part | {"server": "1.5"})
        with pytest.raises(DataFetchError, match="needs a plan with consistent=False"):
            await rows_of(reader.read_split(elsewhere))


async def test_splits_without_one_snapshot_must_be_asked_for(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with reader.plan_splits("t", **SMALL, consistent=False) as plan:
        assert sessions_in_transaction(admin) == 0
    assert not plan.consistent
    assert len(plan.splits) > 1
    assert joined(await read_all(reader, plan)) == numbers(1, 1001)


async def test_a_malformed_snapshot_never_reaches_the_server(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t (i int)")
    async with reader.plan_splits("t", **SMALL) as plan:
        bad = replace(plan.splits[0], snapshot="0'; SELECT 1; --")
        with pytest.raises(OptionError, match="malformed"):
            await rows_of(reader.read_split(bad))


async def test_with_one_connection_readers_use_that_of_the_plan(
    admin: Admin, single: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with single.plan_splits("t", **SMALL) as plan:
        assert plan.concurrency == 1
        async with aclosing(generator(single, plan)) as batches:
            await anext(batches)  # left before its end
        with pytest.raises(OptionError, match="no column"):
            await rows_of(single.read_split(plan.splits[0], ["x"]))
        assert joined(await read_all(single, plan)) == numbers(1, 1001)
        assert sessions(admin) == 1


async def test_with_one_connection_the_end_of_the_plan_ends_its_readers(
    admin: Admin, single: PostgreSQLConnector
) -> None:
    """One of them reads, and waits for whoever takes its rows; the other one waits for its turn."""
    fill(admin)
    async with single.plan_splits("t", **WHOLE) as plan:
        batches = generator(single, plan)
        rows = (await anext(batches)).num_rows
        waiting = asyncio.ensure_future(read_all(single, plan))
        (opened,) = cast("Any", single)._splits._open_plans.values()
        await wait_until(lambda: opened.lock._waiters)
    for reading in (rows_of(batches), waiting):
        with pytest.raises(DataFetchError, match="the plan of the split has ended"):
            await reading
    assert rows < 20000
    await wait_until(lambda: active(admin, "COPY") == 0)
    assert await single.test_connection()
    async with single.plan_splits("t", **SMALL) as plan:
        assert len(joined(await read_all(single, plan))) == 20000
    await wait_until(lambda: sessions(admin) == 1)


async def test_with_one_connection_a_plan_that_is_cancelled_twice_ends_its_readers_first(
    admin: Admin, single: PostgreSQLConnector
) -> None:
    fill(admin)
    reading: asyncio.Future[AsyncGenerator[Any]] = asyncio.get_running_loop().create_future()

    async def plan_and_wait() -> None:
        async with single.plan_splits("t", **WHOLE) as plan:
            batches = generator(single, plan)
            await anext(batches)
            reading.set_result(batches)
            await asyncio.Event().wait()

    planning = asyncio.ensure_future(plan_and_wait())
    batches = await reading
    (opened,) = cast("Any", single)._splits._open_plans.values()
    planning.cancel()
    await wait_until(lambda: opened.is_closed)
    planning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await planning
    assert not opened.lock.locked()
    with pytest.raises(DataFetchError, match="the plan of the split has ended"):
        await rows_of(batches)
    assert await single.test_connection()


async def test_with_one_connection_a_reader_that_is_cancelled_twice_leaves_it_to_the_next(
    admin: Admin, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    connector = await source(
        pool=PoolConfig(max_size=1, acquire_timeout=30), allowed_functions="pg_sleep"
    )
    copy_rows, cancel, cancelling = libpq.copy_rows, libpq.cancel, asyncio.Event()

    async def copy_slowly(connection: libpq.Connection, _: bytes, *rest: Any) -> tuple[int, bool]:
        command = b"COPY (SELECT pg_sleep(50)) TO STDOUT (FORMAT binary)"
        return await copy_rows(connection, command, *rest)

    async def note_and_cancel(connection: libpq.Connection) -> None:
        cancelling.set()
        await cancel(connection)

    monkeypatch.setattr(libpq, "cancel", note_and_cancel)
    async with connector.plan_splits("t", **WHOLE) as plan:
        with monkeypatch.context() as slow:
            slow.setattr(libpq, "copy_rows", copy_slowly)
            reading = asyncio.ensure_future(read_all(connector, plan))
            await wait_until(lambda: active(admin, "COPY (SELECT pg_sleep(50))"))
            reading.cancel()
            await cancelling.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert joined(await read_all(connector, plan)) == numbers(1, 1001)


async def test_with_one_connection_a_reader_that_is_cancelled_at_once_leaves_it_to_the_next(
    admin: Admin, single: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with single.plan_splits("t", **WHOLE) as plan:
        (opened,) = cast("Any", single)._splits._open_plans.values()
        reading = asyncio.ensure_future(read_all(single, plan))
        await wait_until(opened.lock.locked)
        reading.cancel()  # its first command has no answer yet
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert joined(await read_all(single, plan)) == numbers(1, 1001)


async def test_closing_a_reader_waits_until_its_connection_is_free(
    admin: Admin, single: PostgreSQLConnector
) -> None:
    fill(admin)
    async with single.plan_splits("t", **WHOLE) as plan:
        (opened,) = cast("Any", single)._splits._open_plans.values()
        async with aclosing(generator(single, plan)) as batches:
            await anext(batches)
        assert not opened.lock.locked()


async def test_a_reader_that_stops_early_returns_its_connection(
    admin: Admin, source: Source
) -> None:
    fill(admin)
    connector = await source(pool=PoolConfig(max_size=2, acquire_timeout=30))
    async with connector.plan_splits("t", **WHOLE) as plan:
        for _ in range(3):
            async with aclosing(generator(connector, plan)) as batches:
                assert (await anext(batches)).num_rows < 20000
        await wait_until(lambda: active(admin, "COPY") == 0)


def test_an_event_loop_ends_though_a_reader_was_left_open() -> None:
    left, table = [], pa.table({"i": [1]})

    async def leave() -> None:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def read(add: Callable[[Any], None]) -> None:
            def add_all() -> None:
                add(table)
                add(table)
                loop.call_soon_threadsafe(ready.set)
                add(table)  # waits for the reader

            await run_in_thread(add_all, own_thread=True)

        batches = iterate_batches(read)
        left.append(batches)
        await anext(batches)
        await ready.wait()

    thread = threading.Thread(target=asyncio.run, args=(leave(),), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


async def test_a_plan_outlives_the_idle_timeout_of_its_session(
    admin: Admin, source: Source
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    connector = await source(dsn="options='-c idle_in_transaction_session_timeout=60000'")
    idle = (
        "SELECT state_change FROM pg_stat_activity WHERE usename = 'reader'"
        " AND datname = current_database() AND state = 'idle in transaction'"
    )
    async with connector.plan_splits("t", **SMALL) as plan:
        await asyncio.sleep(0)  # the task that keeps the session busy begins to wait
        [(first,)] = admin.execute(idle).fetchall()
        with clock_ahead(59):
            await wait_until(lambda: [row for row in admin.execute(idle) if row[0] > first])
        assert joined(await read_all(connector, plan)) == numbers(1, 1001)


async def test_a_query_of_a_split_is_checked_as_every_query_is(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute(
        "CREATE FUNCTION harm(i int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT i';"
        "CREATE TABLE t AS SELECT 1 AS i"
    )
    query = "SELECT harm(i) AS i FROM t"
    with pytest.raises(PolicyError, match="harm"):
        async with reader.plan_splits(query, **SMALL, key="i"):
            pass
    async with reader.plan_splits(query, **SMALL) as plan:
        with pytest.raises(PolicyError, match="harm"):
            await read_all(reader, plan)


async def test_errors_of_a_plan_name_what_is_wrong(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t (i int, j int)")
    for identifier, key, error, text in [
        ("missing", None, ItemNotFoundError, "no table or view 'missing'"),
        ("t", "k", OptionError, "no column 'k' to split by; the columns are 'i', 'j'"),
        ("EXPLAIN SELECT 1", None, DataFetchError, "only what a SELECT returns has splits"),
    ]:
        with pytest.raises(error, match=text):
            async with reader.plan_splits(identifier, **SMALL, key=key):
                pass


async def test_a_plan_returns_its_connection_when_its_block_fails(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    with pytest.raises(ZeroDivisionError):
        async with reader.plan_splits("t", **SMALL):
            raise ZeroDivisionError
    await wait_until(lambda: sessions_in_transaction(admin) == 0)


async def test_a_split_is_json_without_any_option(
    admin: Admin, reader: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    async with reader.plan_splits("t", **SMALL) as plan:
        text = json.dumps([split.to_dict() for split in plan.splits])
        assert [Split.from_dict(values) for values in json.loads(text)] == list(plan.splits)
    assert PASSWORD not in text
    assert str(reader.options.port) not in text


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server with the settings of the test."""
    for server in _served(PostgresServer(request.param)):
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader")
        yield server


def partitioned(server: PostgresServer, count: int) -> None:
    """Make a table with so many partitions, a few in each transaction: they take locks, too."""
    create = "CREATE TABLE p{0} PARTITION OF t FOR VALUES IN ({0})"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t (i int) PARTITION BY LIST (i)")
        for start in range(0, count, 50):
            commands = [create.format(i) for i in range(start, start + 50)]
            connection.execute("; ".join(commands))
        connection.execute("INSERT INTO p0 VALUES (0)")


@pytest.mark.soak
@pytest.mark.parametrize("server", [{"max_connections": "100"}], ids=["delivered"], indirect=True)
async def test_ten_thousand_partitions_are_planned_on_a_server_as_it_is_delivered(
    server: PostgresServer,
) -> None:
    partitioned(server, 10_000)
    connector = configured(server.at(server.database))
    await connector.connect()
    async with connector.plan_splits("t", **SMALL) as plan:
        assert plan.consistent
        assert joined(await read_all(connector, plan)) == numbers(1)
    await connector.disconnect()


@pytest.mark.soak
@pytest.mark.parametrize(
    "server",
    [{"max_connections": "20", "max_locks_per_transaction": "10"}],
    ids=["few-locks"],
    indirect=True,
)
async def test_too_few_locks_are_an_error_that_names_the_setting(server: PostgresServer) -> None:
    partitioned(server, 2_000)
    connector = configured(server.at(server.database))
    await connector.connect()
    with pytest.raises(DataFetchError, match="max_locks_per_transaction"):
        async with connector.plan_splits("t", **SMALL):
            pass
    await connector.disconnect()
