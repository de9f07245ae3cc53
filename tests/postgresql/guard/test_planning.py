"""What no timeout ends is refused beforehand: the memory that analysing and planning take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from datasources import DataSourceError, PolicyError, PoolConfig
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.guard import parse_read
from tests.postgresql.conftest import Admin, Source

MOST = 1 << 30  # bytes that a backend may have taken


def _nested(query: str, levels: int, first: str = "SELECT id AS x FROM t") -> str:
    """Put a query into itself, in place of its {}."""
    inner = first
    for _ in range(levels):
        inner = query.replace("{}", inner)
    return inner


def _values(levels: int) -> str:
    lateral = "".join(f", LATERAL (VALUES (v{i}.x + v{i}.x)) v{i + 1}(x)" for i in range(levels))
    return f"SELECT v{levels}.x FROM t, LATERAL (VALUES (t.id)) v0(x){lateral}"


def _joined(count: int, table: str = "t") -> str:
    joins = " ".join(f"LEFT JOIN {table} a{i} ON true" for i in range(count))
    return f"SELECT 1 FROM t {joins}"


def _listed(item: str, count: int) -> str:
    return f"SELECT ARRAY[{', '.join(item.replace('{}', str(i)) for i in range(count))}]"


_WIDE = "(SELECT " + ", ".join(["c.*"] * 9) + " FROM pg_class c)"
DOUBLED = "SELECT x || x AS x FROM ({}) q"
TOO_MUCH = {
    "second branch of a UNION": _nested(
        "SELECT x + x AS x FROM (SELECT id AS x FROM t UNION ALL ({})) q", 22
    ),
    "VALUES": _values(22),
    "columns of joins": _joined(60, _WIDE),
    "many joins": _joined(100),
    "copies of a long list": (
        "SELECT ARRAY[" + ", ".join(["1"] * 9_000) + "] FROM "
        + ", ".join(f"(VALUES (1)) a{i}(x)" for i in range(800))
    ),
    "columns of stars": "WITH w AS (SELECT "
    + ", ".join(["c.*"] * 48)
    + " FROM pg_class c) SELECT 1 FROM "
    + ", ".join(f"(TABLE w) a{i}" for i in range(400)),
    "repeat": "SELECT repeat('x', 1000000000)",
    "many repeats": _listed("repeat('x', 1000{})", 2_000),
    "repeat of a sum": "SELECT repeat('x', 1000 * 1000 * 1000)",
    "repeat of a cast": "SELECT repeat('x', (1e9)::int)",
    "repeat of an unknown number": "SELECT repeat('x', 1 << 30)",
    "repeat in a subquery": "SELECT repeat(x, 10000) FROM (SELECT repeat('x', 10000) AS x) q",
    "repeat in FROM": "SELECT repeat(f, 10000000) FROM repeat('x', 10) f",
    "repeat of VALUES": "SELECT repeat(x, 10000000) FROM (VALUES ('0123456789')) v(x)",
    "repeat over a UNION": (
        "SELECT 1 FROM (SELECT '' AS x UNION ALL SELECT 'a') q WHERE repeat(x, 1000000000) = 'a'"
    ),
    "repeat in CASE": "SELECT CASE WHEN true THEN repeat('x', 1000000000) ELSE note END FROM t",
    "repeat in a row": "SELECT (ROW(note, repeat('x', 1000000000))).f2 FROM t",
    "repeat in LIMIT": "SELECT 1 LIMIT length(repeat('x', 1000000000))",
    "repeat in an IN": "SELECT 1 FROM t WHERE note IN (repeat('x', 1000000000), 'b')",
    "repeat in a sublink": "SELECT (SELECT repeat('x', 1000000000))",
    "repeat in a view": "TABLE large",
    "lpad": "SELECT lpad('x', 300000000)",
    "rpad": "SELECT rpad('x', 300000000, 'ab')",
    "array_fill": "SELECT array_fill(0, ARRAY[20000, 20000])",
    "array_fill of a literal": "SELECT array_fill(0, '{20000,20000}')",
    "format": "SELECT 1 FROM t WHERE note = format('%300000000s', '')",
    "format of a number": "SELECT 1 FROM t WHERE note = format('%*s', 300000000, '')",
    "format of a computed text": "SELECT 1 FROM t WHERE note = format('%300000' || '000s', '')",
    "replace": "SELECT replace(repeat('x', 20000), 'x', repeat('y', 20000))",
    "regexp_replace": "SELECT regexp_replace(repeat('x', 20000), 'x', repeat('y', 20000), 'g')",
    "doublings": _nested(DOUBLED, 9, "SELECT repeat('x', 1000000) AS x"),
    "char": _listed("'{}'::char(10485760)", 60),
    "array of char": "SELECT '{" + ",".join("x" * 100) + "}'::char(10485760)[]",
    "bit": _listed("B'1'::bit(83886080)", 60),
    "numeric": _listed("1e131071 + {}", 2_900),
    "numeric power": _listed("10.0 ^ 131071", 2_900),
    "concat_ws": "SELECT 1 FROM t WHERE note = concat_ws(repeat('x', 1000000), " + "1, " * 98 + "1)",
}  # fmt: skip
"""Statements whose analysis and planning would take gigabytes, or nearly one."""

EVERYDAY = [
    "SELECT repeat('-', 80), repeat('=', 3 * 20)",
    "SELECT repeat('x', (1e2)::int), repeat('y', length('abc'))",
    "SELECT lpad(id::text, 10, '0') FROM t",
    "SELECT lpad('5', 10, '0'), rpad('x', 20), format('%-10s|%5s|%s', 'a', 1, 'id 1234567890')",
    "SELECT * FROM generate_series('2020-01-01', '2026-01-01', interval '1 day')",
    "SELECT array_fill(0, ARRAY[100])",
    "SELECT power(1.05, 12) * 100, 2.0 ^ 10, sqrt(2.0), exp(1.0), round(1 / 3.0, 4), ln(2.0)",
    "SELECT 6371.0 * acos(sin(radians(48.1)) * sin(radians(id)) + cos(radians(11.5))) FROM t",
    "SELECT upper(lower(trim(replace(substring('hello world' from 1 for 5), 'l', 'L'))))",
    """SELECT ('{"a": [1, 2, {"b": 3}]}'::jsonb #> '{a,2}' ->> 'b')::int""",
    "SELECT '{1,2,3}'::text[]::int[]::text[], array_to_string(ARRAY['a', 'b'], ', ')",
    "SELECT 'x'::char(10), '1'::bit(8), 1::numeric(12, 2) / 3, to_char(1234.5, 'FM999,999.00')",
    "SELECT repeat('*', id), repeat(note, 1000000) FROM t WHERE false",
    "SELECT s.* FROM (SELECT u.*, 1 AS n FROM t u UNION ALL SELECT u.*, 2 FROM t u) s",
    _joined(40),
    " UNION ALL ".join(["SELECT * FROM t"] * 300),
]


@pytest.fixture
async def planner(admin: Admin, source: Source) -> PostgreSQLConnector:
    admin.execute("CREATE TABLE t (id int, note text); INSERT INTO t VALUES (1, 'a')")
    admin.execute("CREATE VIEW large AS SELECT repeat(repeat('x', 100000), 100000) AS x")
    return await source(pool=PoolConfig(max_size=1), statement_timeout=20)


@pytest.mark.parametrize("case", TOO_MUCH)
async def test_planning_that_takes_too_much_is_refused(
    planner: PostgreSQLConnector, case: str
) -> None:
    with pytest.raises(PolicyError, match=r"possible|too much to plan"):
        await planner.preview(TOO_MUCH[case])


@pytest.mark.parametrize("statement", EVERYDAY)
async def test_everyday_query_is_planned(planner: PostgreSQLConnector, statement: str) -> None:
    await planner.preview(statement, 3)


async def test_refusal_names_the_function_and_the_size(planner: PostgreSQLConnector) -> None:
    with pytest.raises(
        PolicyError, match=r"about 2,000,\d\d\d,\d\d\d bytes.* by the function repeat"
    ):
        await planner.preview("SELECT length(repeat('x', 1000000000))")


async def test_constants_are_counted_for_each_partition(
    admin: Admin, planner: PostgreSQLConnector
) -> None:
    admin.execute("CREATE TABLE p (id int, note text) PARTITION BY RANGE (id)")
    for number in range(50):
        admin.execute(
            f"CREATE TABLE p{number} PARTITION OF p FOR VALUES FROM ({number}) TO ({number + 1})"
        )
    admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    await planner.preview("SELECT 1 FROM p WHERE note = repeat('x', 1000000)")
    with pytest.raises(PolicyError, match="for each of 51 partitions"):
        await planner.preview("SELECT 1 FROM p WHERE note = repeat('x', 2000000)")


async def test_names_first_asks_for_the_tree_where_constants_may_grow(
    admin: Admin, planner: PostgreSQLConnector, source: Source
) -> None:
    connector = await source(guard="names-first")
    with pytest.raises(PolicyError, match="the function repeat"):
        await connector.preview("SELECT repeat('x', 1000000000)")
    with pytest.raises(PolicyError, match="the function bpchar"):
        await connector.preview("SELECT 'x'::char(10485760)")


@pytest.mark.parametrize(
    "statement",
    [
        _nested("SELECT x + x AS x FROM ({}) q", 20),
        _nested("SELECT x + x AS x FROM (SELECT id AS x FROM t UNION ALL ({})) q", 20),
        _values(20),
        "WITH a0 AS (SELECT id AS x FROM t), "
        + ", ".join(f"a{i + 1} AS (SELECT x + x AS x FROM a{i})" for i in range(20))
        + " SELECT x FROM a20",
        "SELECT 1 FROM t WHERE EXISTS (" + _nested("SELECT x + x AS x FROM ({}) q", 20) + ")",
        "SELECT 1 FROM t a JOIN (" + _nested("SELECT x * x AS x FROM ({}) q", 20) + ") b ON true",
    ],
    ids=["subqueries", "unions", "values", "common tables", "sublink", "join"],
)
async def test_names_alone_refuse_what_may_unfold_to_too_much(
    planner: PostgreSQLConnector, source: Source, statement: str
) -> None:
    connector = await source(guard="names")
    with pytest.raises(PolicyError, match="may unfold to too much"):
        await connector.preview(statement)


async def test_names_alone_admit_a_few_subqueries(
    planner: PostgreSQLConnector, source: Source
) -> None:
    connector = await source(guard="names")
    await connector.preview(_nested("SELECT x + 1 AS x, x * 2 AS y FROM ({}) q", 12))
    await connector.preview(_nested("SELECT x + x AS x FROM ({}) q", 8))
    chain = ", ".join(f"a{i + 1} AS (SELECT x, x - 1 AS y FROM a{i})" for i in range(40))
    await connector.preview(f"WITH a0 AS (SELECT id AS x FROM t), {chain} SELECT x, y FROM a40")


def _grown(size: int) -> list[str]:
    """Return statements whose constants, subqueries and columns grow with a size."""
    return [
        f"SELECT repeat('x', {1 << size})",
        _listed(f"lpad('{{}}', {1 << size // 2})", 1 << size // 2),
        (
            f"SELECT * FROM t a, t b, t c WHERE a.note = repeat('x', {1 << size}) AND a.note = b.note"
            " AND b.note = c.note AND a.note <> c.note ORDER BY 2"
        ),
        f"SELECT array_fill(1.5, ARRAY[{1 << size}])::text",
        f"SELECT string_to_array(repeat('a,', {1 << size}), ',')",
        f"SELECT ('[' || repeat('1,', {1 << size}) || '1]')::jsonb",
        f"SELECT to_tsvector('simple', repeat('ab ', {1 << size}))",
        f"SELECT regexp_replace(repeat('x', {1 << size // 2}), 'x', repeat('y', {1 << size // 2}), 'g')",
        f"SELECT 1 FROM t WHERE note = format('%{1 << size}s', 1)",
        _nested(DOUBLED, size),
        _nested("SELECT x + x AS x FROM (SELECT id AS x FROM t UNION ALL ({})) q", size),
        _values(size),
        _joined(3 * size, _WIDE),
        _listed("'{}'::char(" + str(1 << size) + ")", 20),
        _listed("1e131071 + {}", 10 * size),
    ]


@pytest.mark.parametrize("step", [7, pytest.param(3, marks=pytest.mark.soak)])
async def test_planning_of_whatever_is_admitted_takes_less_than_a_gigabyte(
    admin: Admin, planner: PostgreSQLConnector, backend_memory: Callable[[str], int], step: int
) -> None:
    admitted = refused = tried = 0
    for size in range(4, 26, step):
        for statement in _grown(size):
            try:
                await planner.preview(statement, 1)
                admitted += 1
            except PolicyError:
                refused += 1
            except DataSourceError:  # the server's own limits
                pass
            tried += 1
            assert backend_memory("reader") < MOST, statement[:200]
    assert admitted > tried / 4
    assert refused > tried / 4


@pytest.fixture
def backend_memory(admin: Admin) -> Callable[[str], int]:
    """Return the most memory in bytes that a session of a role has had, as Linux counts it."""

    def most(role: str) -> int:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"
        )
        pids = [pid for (pid,) in admin.execute(query, [role]).fetchall()]
        lines = []
        for pid in pids:
            with suppress(OSError):  # a session that has just ended
                lines.append(Path(f"/proc/{pid}/status").read_text().splitlines())
        assert lines
        return max(
            int(line.split()[1]) << 10
            for status in lines
            for line in status
            if line.startswith("VmHWM")
        )

    return most


def test_number_of_joins_and_stars_is_bounded_by_the_text() -> None:
    parse_read(_joined(64))
    with pytest.raises(PolicyError, match="65 JOINs; 64 are possible"):
        parse_read(_joined(65))
    wide = "WITH w AS (TABLE t) " + " UNION ALL ".join(["SELECT * FROM w"] * 151)
    with pytest.raises(PolicyError, match="may stand for 251364 columns"):
        parse_read(wide)
