from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from datasources import (
    DataFetchError,
    ItemNotFoundError,
    LimitExceededError,
    OptionError,
    PolicyError,
    PoolConfig,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector, connections
from tests.postgresql.conftest import (
    Admin,
    Source,
    active,
    rows_of,
    sessions,
    with_limits,
)
from tests.servers import Database
from tests.waiting import wait_until

SESSION = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'reader'"
)

# Each is written exactly as the server writes it.
VALUES = [
    "time '24:00:00'",
    "timetz '12:00+05:30'",
    "date 'infinity'",
    "date '0044-03-15 BC'",
    "timestamp '-infinity'",
    "timestamptz '2024-02-29 12:34:56.789012+00'",
    "timestamp '294276-12-31 23:59:59.999999'",
    "interval '1 year 2 mons -3 days 04:05:06.789'",
    "interval '-178000000 years'",
    r"'\x00ff0a0d22'::bytea",
    """'{"a": [1, null, "x\\"y"], "b": "é"}'::json""",
    """'{"b": 1, "a": 2}'::jsonb""",
    "'NaN'::numeric",
    "'Infinity'::numeric",
    "1234567890123456789012345678901234567890.123456789::numeric",
    "(0.1::float8 + 0.2)",
    "'-0'::float8",
    "'infinity'::float4",
    "1e-320::float8",
    "9223372036854775807::bigint",
    "'t'::\"char\"",
    "''",
    "NULL",
    "'NULL'",
    "' padded '",
    "'a,b'",
    "'say \"hi\"'",
    "E'line\\nbreak'",
    "E'carriage\\rreturn'",
    "E'tab\\there'",
    r"'\.'",
    r"'\N'",
    "'größe 表 🎉'",
    "E'\\u200B'",
    "ARRAY[1, NULL, 3]",
    "ARRAY['a,b', '\"', '', NULL]",
    "ARRAY[[1,2],[3,4]]",
    "ROW(1, 'a b', NULL)",
    "'00000000-0000-0000-0000-000000000001'::uuid",
    "inet '192.168.0.1/24'",
    "cidr '10.0.0.0/8'",
    "macaddr '08:00:2b:01:02:03'",
    "B'10101'",
    "money '12.34'",
    "point '(1,2)'",
    "polygon '((0,0),(1,1),(2,0))'",
    "int4range(1, 10)",
    "'{[1,2),[5,9)}'::int4multirange",
    "to_tsvector('simple', 'fat cats')",
    "tsquery 'fat & cat'",
    "'pg_class'::regclass",
    "'b'::\"char\"",
    "xid '42'",
    "pg_lsn '16/B374D848'",
    "repeat('x', 1000000)",
]


async def test_every_value_is_exactly_the_servers_text(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace, pg_database: Database
) -> None:
    query = "SELECT " + ", ".join(f"{value} AS v{n}" for n, value in enumerate(VALUES))
    path = await reader.fetch_data(query, workspace)
    with (
        admin.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER true)") as copy,
    ):
        assert Path(path).read_bytes() == b"".join(bytes(data) for data in copy)


@pytest.mark.parametrize("value", VALUES)
async def test_value_is_exactly_the_servers_text(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace, value: str
) -> None:
    path = await reader.fetch_data(f"SELECT {value} AS v, 'next'", workspace)
    row = admin.execute(f"SELECT {value}::text").fetchone()
    assert row is not None
    expected = '""' if row[0] == "" else (row[0] or "")
    if row[0] and re.search('[,"\r\n]', row[0]):
        expected = '"' + row[0].replace('"', '""') + '"'
    assert Path(path).read_bytes().decode() == f"v,?column?\n{expected},next\n"


async def test_settings_of_the_role_do_not_change_how_values_are_written(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute(
        "ALTER ROLE reader SET datestyle = 'German'; ALTER ROLE reader SET intervalstyle ="
        " 'iso_8601'; ALTER ROLE reader SET bytea_output = 'escape';"
        "ALTER ROLE reader SET extra_float_digits = -10; ALTER ROLE reader SET"
        " standard_conforming_strings = off"
    )
    try:
        connector = await source()
        path = await connector.fetch_data(
            r"SELECT date '2024-02-29', interval '1 day', '\x00'::bytea, 0.1::float8 + 0.2, '\'",
            workspace,
        )
        assert rows_of(path)[1] == ["2024-02-29", "1 day", r"\x00", "0.30000000000000004", "\\"]
    finally:
        admin.execute("ALTER ROLE reader RESET ALL")


async def test_table_and_query_have_their_own_files(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 3) g")
    query = "SELECT id FROM t WHERE id > 1;"
    assert await reader.fetch_data("t", workspace) == f"{workspace}/public.t.csv"
    name = hashlib.sha256(query.encode()).hexdigest()[:12]
    assert await reader.fetch_data(query, workspace) == f"{workspace}/query-{name}.csv"
    assert rows_of(f"{workspace}/query-{name}.csv") == [["id"], ["2"], ["3"]]


async def test_empty_result_has_a_header(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute('CREATE TABLE t (id int, "Name" text)')
    path = await reader.fetch_data("t", workspace)
    assert Path(path).read_text() == "id,Name\n"
    written = workspace.written[path]
    assert (written.rows, written.truncated) == (0, False)


async def test_duplicate_column_names_are_kept(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    path = await reader.fetch_data('SELECT 1 AS a, 2 AS a, 3 AS "A"', workspace)
    assert rows_of(path) == [["a", "a", "A"], ["1", "2", "3"]]


async def test_null_is_apart_from_the_empty_string(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    path = await reader.fetch_data("SELECT NULL AS a, '' AS b", workspace)
    assert Path(path).read_bytes() == b'a,b\n,""\n'


async def test_rows_are_counted_although_fields_hold_line_breaks(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    path = await reader.fetch_data(
        "SELECT g, E'a\\n\"b\"\\r\\nc' FROM generate_series(1, 7) g", workspace
    )
    assert workspace.written[path].rows == 7


async def test_order_of_a_query_is_kept(reader: PostgreSQLConnector, workspace: Workspace) -> None:
    path = await reader.fetch_data(
        "SELECT g FROM generate_series(1, 2000) g ORDER BY md5(g::text)", workspace
    )
    expected = sorted(range(1, 2001), key=lambda g: hashlib.md5(str(g).encode()).hexdigest())
    assert [int(row[0]) for row in rows_of(path)[1:]] == expected


@pytest.mark.parametrize(
    ("rows", "limit", "truncated"),
    [
        (5, 5, False),
        (6, 5, True),
        (4, 5, False),
        (0, 0, False),
        (1, 0, True),
        (5, None, False),
        (50_000, 49_999, True),
        (50_000, 50_000, False),
    ],
)
async def test_row_limit_is_exact(
    reader: PostgreSQLConnector,
    workspace: Workspace,
    rows: int,
    limit: int | None,
    truncated: bool,
) -> None:
    limited = with_limits(workspace, max_rows=limit)
    path = await reader.fetch_data(
        f"SELECT g, 'x' || g FROM generate_series(1, {rows}) g -- end", limited
    )
    written = limited.written[path]
    kept = rows if limit is None else min(rows, limit)
    assert (written.rows, written.truncated) == (kept, truncated)
    assert len(rows_of(path)) == kept + 1


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            "EXPLAIN (COSTS OFF) SELECT * FROM t WHERE name = 'a\",b'",
            'QUERY PLAN\nSeq Scan on t\n"  Filter: (name = \'a"",b\'::text)"\n',
        ),
        ("SHOW enable_seqscan", "enable_seqscan\non\n"),
        ("SHOW cluster_name", 'cluster_name\n""\n'),
    ],
)
async def test_explain_and_show_give_the_servers_own_lines(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace, query: str, text: str
) -> None:
    admin.execute("CREATE TABLE t (id integer, name text)")
    assert Path(await reader.fetch_data(query, workspace)).read_text() == text


async def test_row_limit_holds_for_tables_explain_and_show(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 9) g")
    limited = with_limits(workspace, max_rows=1)
    for identifier in ("t", "EXPLAIN (VERBOSE) SELECT * FROM t", "SHOW ALL"):
        written = limited.written[await reader.fetch_data(identifier, limited)]
        assert (written.rows, written.truncated) == (1, True)


async def test_default_row_limit_is_ten_thousand(
    reader: PostgreSQLConnector, tmp_path: Path
) -> None:
    path = await reader.fetch_data("SELECT generate_series(1, 10001)", str(tmp_path))
    assert len(rows_of(path)) == 10_001


async def test_byte_limit_ends_the_query_and_leaves_no_file(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    limited = with_limits(workspace, max_bytes=1_000_000, max_rows=None)
    with pytest.raises(LimitExceededError, match="over the limit of 1000000 bytes"):
        await reader.fetch_data("SELECT repeat('x', 1000), generate_series(1, 1e9)", limited)
    assert os.listdir(limited) == []
    await wait_until(lambda: not active(admin, "1e9"))
    assert await reader.test_connection()


@pytest.mark.parametrize(
    "query", ["SELECT pg_sleep(60)", "SELECT g FROM generate_series(1, 1e9) g ORDER BY -g"]
)
async def test_deadline_ends_the_query_and_leaves_no_file(
    admin: Admin, source: Source, workspace: Workspace, query: str
) -> None:
    connector = await source(allowed_functions="pg_sleep")
    limited = with_limits(workspace, timeout=0.3)
    with pytest.raises(LimitExceededError, match=r"longer than the limit of 0\.3 seconds"):
        await connector.fetch_data(query, limited)
    await wait_until(lambda: not active(admin, query))
    assert list(Path(limited).glob("*")) == []
    await wait_until(lambda: sessions(admin) == 1)


async def test_statement_timeout_is_a_limit_that_says_so(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(allowed_functions="pg_sleep", statement_timeout=0.2)
    with pytest.raises(LimitExceededError, match="statement timeout") as caught:
        await connector.fetch_data("SELECT pg_sleep(60)", workspace)
    assert caught.value.code == "57014"


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({"max_bytes": 500_000}, {}),
        ({"timeout": 0.3}, {}),
        ({}, {"statement_timeout": 0.3}),
        ({"max_rows": 1000}, {}),
    ],
    ids=["bytes", "timeout", "statement timeout", "rows"],
)
async def test_every_limit_ends_the_query_and_keeps_the_session(
    admin: Admin,
    source: Source,
    workspace: Workspace,
    limits: dict,
    options: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit in ("_RESET_TIMEOUT", "_RELEASE_WAIT"):  # a session that is reset too late is closed
        monkeypatch.setattr(connections, limit, 60.0)
    connector = await source(pool=PoolConfig(max_size=1), **options)
    limited = with_limits(workspace, **{"max_rows": None, "max_bytes": None, **limits})
    query = "SELECT generate_series(1, 1000000000) AS endless, repeat('x', 50)"
    if "max_rows" in limits:
        path = await connector.fetch_data(query, limited)
        assert (limited.written[path].rows, limited.written[path].truncated) == (1000, True)
        os.unlink(path)
    else:
        with pytest.raises(LimitExceededError):
            await connector.fetch_data(query, limited)
    await wait_until(lambda: not active(admin, "endless"))
    assert os.listdir(limited) == []
    session = admin.execute(SESSION).fetchall()
    assert await connector.test_connection()
    assert admin.execute(SESSION).fetchall() == session
    await wait_until(lambda: sessions(admin) == 1)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pg_sleep(60)",
        "SELECT repeat('x', 100), generate_series(1, 1e9)",
        "SELECT count(*) FROM generate_series(1, 1e9) g",
    ],
)
async def test_cancelled_fetch_ends_its_query(
    admin: Admin, source: Source, workspace: Workspace, query: str
) -> None:
    connector = await source(allowed_functions="pg_sleep", pool=PoolConfig(max_size=1))
    limited = with_limits(workspace, max_rows=None, max_bytes=None)
    for _ in range(3):
        task = asyncio.create_task(connector.fetch_data(query, limited))
        await wait_until(lambda: active(admin, query))
        await asyncio.sleep(0.05)
        task.cancel()
        await wait_until(lambda: not active(admin, query))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert os.listdir(limited) == []
    assert await connector.test_connection()
    await wait_until(lambda: sessions(admin) == 1)


async def test_fetch_cancelled_at_any_moment_leaves_nothing_behind(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(pool=PoolConfig(max_size=4))
    limited = with_limits(workspace, max_rows=None, max_bytes=None)
    query = "SELECT g AS marked FROM generate_series(1, 100000) g"
    for step in range(60):
        task = asyncio.create_task(connector.fetch_data(query, limited))
        for _ in range(step):
            await asyncio.sleep(0)
        if step >= 30:
            await asyncio.sleep(step / 1000)
        task.cancel()
        await asyncio.wait([task])
    assert not [name for name in os.listdir(limited) if name.endswith(".part")]
    await wait_until(lambda: not active(admin, "marked"))
    results = await asyncio.gather(*(connector.fetch_data(query, limited) for _ in range(8)))
    assert len(set(results)) == 1
    await wait_until(lambda: sessions(admin) <= 4)  # those that were closed are ending


async def test_failed_query_names_the_sqlstate_and_the_servers_words(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    for query, code, words in (
        ("SELECT 1 / 0", "22012", "division by zero"),
        ("SELECT * FROM missing", "42P01", 'relation "missing" does not exist'),
        ("SELECT missing FROM pg_class", "42703", 'column "missing" does not exist'),
        ("SELECT missing_function(1)", "42883", "function missing_function"),
        ("SELECT 1 +", "42601", "neither the name of a table nor a query"),
        ("SELECT 'x'::int", "22P02", "invalid input syntax"),
        ("SELECT $1", "42P02", "no parameters"),
        ("SELECT $1::int", "42P02", "no parameters"),
        ("SELECT 1 FROM generate_series(1, 9) g HAVING g > 1", "42803", "must appear in the GROUP"),
    ):
        with pytest.raises(DataFetchError, match=re.escape(words)) as caught:
            await reader.fetch_data(query, workspace)
        assert caught.value.code == code
    assert await reader.test_connection()


async def test_error_after_many_rows_leaves_the_older_file_as_it_was(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    unlimited = with_limits(workspace, max_rows=None)
    admin.execute("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 200000) g")
    query = "SELECT 1 / (150000 - id) FROM t"
    admin.execute("DELETE FROM t WHERE id = 150000")
    path = await reader.fetch_data(query, unlimited)
    before = Path(path).read_bytes()
    admin.execute("INSERT INTO t VALUES (150000)")
    with pytest.raises(DataFetchError, match="division by zero"):
        await reader.fetch_data(query, unlimited)
    assert Path(path).read_bytes() == before
    assert os.listdir(unlimited) == [os.path.basename(path)]


async def test_unknown_format_says_what_is_possible(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    other = Workspace(workspace, file_format="xlsx")
    with pytest.raises(OptionError, match=r"'xlsx' is not a format of this source.*csv"):
        await reader.fetch_data("SELECT 1", other)


async def test_many_fetches_share_one_connector(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(pool=PoolConfig(max_size=4))
    unlimited = with_limits(workspace, max_rows=None)
    queries = [f"SELECT {n}, g FROM generate_series(1, {1000 * n}) g" for n in range(1, 21)]
    paths = await asyncio.gather(*(connector.fetch_data(q, unlimited) for q in queries))
    assert [len(rows_of(path)) - 1 for path in paths] == [1000 * n for n in range(1, 21)]


async def test_loop_turns_between_pieces_of_a_result(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    written = [0]
    target = with_limits(workspace, max_rows=None, max_bytes=None)
    target.progress = lambda done, _: written.append(done)
    fetch = asyncio.create_task(reader.fetch_data("SELECT generate_series(1, 1000000), 2", target))
    most = 0
    while not fetch.done():
        before = written[-1]
        await asyncio.sleep(0)
        most = max(most, written[-1] - before)
    size = os.path.getsize(await fetch)
    assert written[-1] == size > 8_000_000
    assert most <= 1_000_000  # bytes


async def test_writing_is_the_hosts_explicit_choice(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute("CREATE TABLE t (id int); GRANT INSERT, DELETE ON t TO reader")
    insert = "INSERT INTO t SELECT generate_series(1, 3) RETURNING id"
    with pytest.raises(PolicyError):
        await (await source()).fetch_data(insert, workspace)
    writer = await source(read_only=False)
    assert rows_of(await writer.fetch_data(insert, workspace)) == [["id"], ["1"], ["2"], ["3"]]
    limited = with_limits(workspace, max_rows=1)
    path = await writer.fetch_data("DELETE FROM t RETURNING id", limited)
    assert (limited.written[path].rows, limited.written[path].truncated) == (1, True)
    assert admin.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert rows_of(await writer.fetch_data("t", workspace)) == [["id"]]
    with pytest.raises(PolicyError, match="one statement"):
        await writer.fetch_data("SELECT 1; SELECT 2", workspace)
    with pytest.raises(LimitExceededError):
        await writer.fetch_data(insert, with_limits(workspace, max_bytes=2))
    assert admin.execute("SELECT count(*) FROM t").fetchone() == (0,)


async def test_missing_table_is_not_found(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    with pytest.raises(ItemNotFoundError):
        await reader.fetch_data("public.missing", workspace)


# Of a number that a row has, as the guard refuses constants of such a size.
HUGE = "SELECT repeat('x', n) AS huge FROM generate_series(300000000, 300000000) n"


@pytest.mark.parametrize("platform", ["linux", "another"])
async def test_row_that_comes_whole_is_refused_as_one_that_is_cut_off(
    reader: PostgreSQLConnector,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)  # another does not tell how much has come
    limited = with_limits(workspace, max_bytes=1_000_000)
    with pytest.raises(LimitExceededError, match="one row has 1000000 bytes or more"):
        await reader.fetch_data(
            "SELECT repeat('x', n) FROM generate_series(30000000, 30000000) n", limited
        )
    assert os.listdir(limited) == []
    assert await reader.test_connection()


async def test_row_over_the_byte_limit_is_refused(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    limited = with_limits(workspace, max_bytes=1_000_000)
    with pytest.raises(LimitExceededError, match="one row has 1000000 bytes or more"):
        await reader.fetch_data(HUGE, limited)
    with pytest.raises(LimitExceededError, match="too much to hold in memory"):
        await reader.preview(HUGE)
    assert os.listdir(limited) == []
    await wait_until(lambda: not active(admin, "AS huge"))
    assert await reader.test_connection()


@pytest.mark.soak  # it measures how far libpq reads ahead, which a busy machine disturbs
async def test_row_over_the_byte_limit_does_not_fill_the_memory(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    limited = with_limits(workspace, max_bytes=1_000_000)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _memory("VmRSS")
    with pytest.raises(LimitExceededError):
        await reader.fetch_data(HUGE, limited)
    with pytest.raises(LimitExceededError):
        await reader.preview(HUGE)
    assert _memory("VmHWM") - before < 256 << 20  # libpq doubles its buffer


async def test_long_row_within_the_limit_arrives_whole(
    reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    path = await reader.fetch_data(
        "SELECT repeat('x', n) AS a FROM generate_series(50000000, 50000000) n"
        " UNION ALL SELECT 'y' UNION ALL"
        " SELECT repeat('z', n) FROM generate_series(30000000, 30000000) n",
        workspace,
    )
    text = Path(path).read_text()
    assert text == "a\n" + "x" * 50_000_000 + "\ny\n" + "z" * 30_000_000 + "\n"
    assert workspace.written[path].rows == 3


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
