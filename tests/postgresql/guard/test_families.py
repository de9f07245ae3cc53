"""Harmful support functions of operator classes, by every way in which a query sorts, hashes or compares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from datasources import DataSourceError, PolicyError, PoolConfig
from tests.postgresql.conftest import configured, readable
from tests.servers import Database, PostgresServer

# Each harmful function writes a file of the server's machine, which no rollback undoes.
HARM = """
CREATE SCHEMA z; GRANT USAGE ON SCHEMA z TO reader; SET search_path = z, public;
CREATE FUNCTION harm() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN COPY (SELECT 1) TO '{file}'; END $$;
CREATE TYPE feeling AS ENUM ('sad', 'well'); CREATE TYPE pair AS (a int, b varchar);
CREATE TABLE t (i int, v varchar, p point, a int[], va varchar[], pa point[], f feeling, fa feeling[],
    b bigint, r pair, j json, ja json[]);
INSERT INTO t SELECT g % 7, 'v' || g % 7, point(g % 7, 1), ARRAY[g % 7], ARRAY['v' || g % 7],
    ARRAY[point(g % 7, 1)], 'well', ARRAY['sad', 'well']::feeling[], g, ROW(g, 'a')::pair, '1', ARRAY['1'::json]
    FROM generate_series(1, 9) g;
CREATE VIEW spans AS SELECT i, v FROM t;
"""
_MAKE = """
CREATE FUNCTION cmp({0}, {0}) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM harm(); RETURN CASE WHEN $1::text < $2::text THEN -1
       WHEN $1::text = $2::text THEN 0 ELSE 1 END; END $$;
CREATE FUNCTION hash({0}) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM harm(); RETURN 1; END $$;
CREATE FUNCTION lt({0}, {0}) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1::text < $2::text';
CREATE FUNCTION le({0}, {0}) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1::text <= $2::text';
CREATE FUNCTION eq({0}, {0}) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1::text = $2::text';
CREATE FUNCTION ge({0}, {0}) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1::text >= $2::text';
CREATE FUNCTION gt({0}, {0}) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1::text > $2::text';
CREATE OPERATOR <# (LEFTARG = {0}, RIGHTARG = {0}, FUNCTION = lt, COMMUTATOR = >#);
CREATE OPERATOR <=# (LEFTARG = {0}, RIGHTARG = {0}, FUNCTION = le);
CREATE OPERATOR =# (LEFTARG = {0}, RIGHTARG = {0}, FUNCTION = eq, COMMUTATOR = =#, HASHES, MERGES);
CREATE OPERATOR >=# (LEFTARG = {0}, RIGHTARG = {0}, FUNCTION = ge);
CREATE OPERATOR ># (LEFTARG = {0}, RIGHTARG = {0}, FUNCTION = gt, COMMUTATOR = <#);
"""


def _own_operators(type_: str, default: str = "DEFAULT") -> str:
    """Return the commands that make both operator classes of a type, with operators of their own."""
    return _MAKE.format(type_) + (
        f"CREATE OPERATOR CLASS b {default} FOR TYPE {type_} USING btree AS OPERATOR 1 <#, "
        f"OPERATOR 2 <=#, OPERATOR 3 =#, OPERATOR 4 >=#, OPERATOR 5 >#, FUNCTION 1 cmp({type_}, {type_});"
        f"CREATE OPERATOR CLASS h {default} FOR TYPE {type_} USING hash AS OPERATOR 1 =#, "
        f"FUNCTION 1 hash({type_});"
    )


_POINT = """
CREATE OPERATOR CLASS b {default} FOR TYPE point USING btree AS OPERATOR 1 <<, OPERATOR 2 <=#,
    OPERATOR 3 ~=, OPERATOR 4 >=#, OPERATOR 5 >>, FUNCTION 1 cmp(point, point);
CREATE OPERATOR CLASS h {default} FOR TYPE point USING hash AS OPERATOR 1 ~=, FUNCTION 1 hash(point);
"""
_INT = """
CREATE OPERATOR CLASS b FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,
    OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 cmp(int, int);
CREATE OPERATOR CLASS h FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hash(int);
"""
_ODD_INT = """
CREATE OPERATOR CLASS b FOR TYPE int USING btree AS OPERATOR 1 =, OPERATOR 2 <=, OPERATOR 3 =#,
    OPERATOR 4 >=, OPERATOR 5 <, FUNCTION 1 cmp(int, int);
"""


def _sorting(column: str, less: str | None = None) -> tuple[str, ...]:
    """Return queries that sort, hash or compare a column of the table t."""
    using = (f"SELECT i FROM t ORDER BY {column} USING {less}",) if less else ()
    return (
        *using,
        f"SELECT i FROM t ORDER BY {column}",
        f"SELECT i FROM t ORDER BY {column} DESC LIMIT 3",
        f"SELECT DISTINCT {column} FROM t",
        f"SELECT DISTINCT ON ({column}) i FROM t",
        f"SELECT {column}, count(*) FROM t GROUP BY {column}",
        f"SELECT count(DISTINCT {column}) FROM t",
        f"SELECT greatest({column}, {column}) FROM t",
        f"SELECT count(*) FROM t JOIN t u USING ({column})",
        f"SELECT count(*) FROM t JOIN t u ON t.{column} = u.{column}",
        f"SELECT i FROM t WHERE {column} IN (SELECT u.{column} FROM t u)",
        f"SELECT row_number() OVER (PARTITION BY {column}) FROM t",
        f"SELECT rank() OVER (ORDER BY {column}) FROM t",
        f"SELECT {column} FROM t UNION SELECT {column} FROM t",
        f"SELECT {column} FROM t INTERSECT SELECT {column} FROM t",
        f"SELECT min({column}) FROM t",
        f"SELECT array_agg({column} ORDER BY {column}) FROM t",
        f"SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY {column}) FROM t",
        f"SELECT array_position(ARRAY[{column}], {column}) FROM t",
        f"SELECT ARRAY[{column}] = ARRAY[{column}] FROM t",
        f"SELECT DISTINCT ARRAY[{column}] FROM t",
        f"SELECT DISTINCT ROW({column}) FROM t",
        f"SELECT ROW({column}) < ROW({column}) FROM t",
        f"SELECT {column} = ANY (ARRAY[{column}, {column}]) FROM t",
        f"SELECT width_bucket({column}, ARRAY[{column}]) FROM t",
        f"WITH RECURSIVE w AS (SELECT {column} FROM t UNION SELECT {column} FROM w) SELECT * FROM w",
    )


_WHOLE = ("SELECT DISTINCT t.r FROM t", "SELECT r FROM t ORDER BY r", "SELECT r = r FROM t")
_ROWS = ("SELECT ROW(i, i) >= ROW(i, 3) FROM t", "SELECT i FROM t WHERE (i, i) <= (i, 4)")
_MANY = ", ".join(map(str, range(20)))
CASES: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "default of a type without one": (
        _own_operators("point"), (*_sorting("p", "<#"), *_sorting("pa")), True),
    "default with operators of PostgreSQL": (
        _MAKE.format("point") + _POINT.format(default="DEFAULT"),
        (*_sorting("p", "<<"), *_sorting("pa")), True),
    "no default, with operators of PostgreSQL in no other": (
        _MAKE.format("point") + _POINT.format(default=""), (*_sorting("p", "<<"), *_sorting("pa")), True),
    "default of a type that has that of another": (
        _own_operators("varchar"), (*_sorting("v"), *_sorting("va"), *_WHOLE), True),
    "default of an array": (_own_operators("int[]"), _sorting("a"), True),
    "default of an enum": (_own_operators("feeling"), (*_sorting("f"), *_sorting("fa")), True),
    "default of a row": (_own_operators("pair"), (*_sorting("r"), *_WHOLE), True),
    "default of a type that another becomes": (
        "CREATE DOMAIN unused AS int; CREATE TYPE mine;"
        "CREATE FUNCTION mine_in(cstring) RETURNS mine IMMUTABLE STRICT LANGUAGE internal AS 'textin';"
        "CREATE FUNCTION mine_out(mine) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'textout';"
        "CREATE TYPE mine (INPUT = mine_in, OUTPUT = mine_out, LIKE = text);"
        "CREATE CAST (json AS mine) WITHOUT FUNCTION AS IMPLICIT;" + _own_operators("mine"),
        (*_sorting("j"), *_sorting("ja")), True),
    "subtype of a range": (
        _MAKE.format("int") + _INT + "CREATE TYPE span AS RANGE (subtype = int, subtype_opclass = b);",
        ("SELECT span(1, 5)", "SELECT span(i, i + 5) FROM t", "SELECT '[1,5]'::span",
         "SELECT DISTINCT span(i, i) FROM t", "SELECT ARRAY[span(1, 5)]"), True),
    "operators of PostgreSQL in other places of the class": (
        _MAKE.format("int") + _ODD_INT,
        ("SELECT i FROM t ORDER BY i USING =", *_sorting("i", "<")), True),
    "negator of an operator of PostgreSQL": (
        ("CREATE FUNCTION bad(point, point) RETURNS bool LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM harm(); RETURN true; END $$;"
        "CREATE OPERATOR !<< (LEFTARG = point, RIGHTARG = point, FUNCTION = bad,"
        " NEGATOR = OPERATOR(pg_catalog.<<));"),
        ("SELECT NOT (p << p) FROM t", "SELECT i FROM t WHERE NOT (p << point(1, 1))"), True),
    # The server takes PostgreSQL's own family for these: it has the lower id.
    "no default, with operators of PostgreSQL": (
        _MAKE.format("int") + _INT,
        (*_sorting("i", "<"), *_sorting("b"), f"SELECT i FROM t WHERE i IN ({_MANY})",
         f"SELECT i FROM t WHERE i NOT IN ({_MANY})",
         "SELECT count(*) FROM t FULL JOIN t u ON t.i = u.b"), False),
    "reversed, with operators of PostgreSQL": (
        _MAKE.format("int") + _INT.replace("1 <,", "1 >,").replace("5 >", "5 <").replace("2 <=", "2 >=")
        .replace("4 >=", "4 <="), (*_sorting("i", "<"), *_ROWS), True),
    # Only a superuser can add to these. Each lacks this member, and the server looks for it in an index.
    "support function in a family of PostgreSQL": (
        ("CREATE TABLE tagged AS SELECT ARRAY[g, g % 3] AS tags FROM generate_series(1, 9) g;"
        "CREATE INDEX ON tagged USING gin (tags);" + _MAKE.format("int") +
        "ALTER OPERATOR FAMILY array_ops USING gin ADD FUNCTION 1 (anyarray, anyarray) cmp(int, int);"),
        ("SELECT tags FROM tagged WHERE tags @> ARRAY[1]",), True),
    "operator in a family of PostgreSQL": (
        ("CREATE TABLE hosts AS SELECT inet '10.0.0.1' + g AS host FROM generate_series(1, 9) g;"
        "CREATE INDEX ON hosts USING brin (host inet_inclusion_ops);"
        "CREATE FUNCTION bad(inet, inet) RETURNS bool LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM harm(); RETURN false; END $$;"
        "CREATE OPERATOR >># (LEFTARG = inet, RIGHTARG = inet, FUNCTION = bad);"
        # The index finds what is less (20) by what is not right of it (5).
        "ALTER OPERATOR FAMILY network_inclusion_ops USING brin ADD"
        " OPERATOR 20 < (inet, inet), OPERATOR 5 >># (inet, inet);"),
        ("SELECT host FROM hosts WHERE host < '10.0.0.5'",), True),
}  # fmt: skip
"""By name: the commands that make the classes, the queries, and True if the server calls what is harmful."""
_PLANS = (
    "",
    "SET enable_hashagg = off; SET enable_hashjoin = off",
    "SET enable_sort = off",
    "SET enable_seqscan = off",
)


def plant(server: PostgresServer, commands: str) -> Iterator[tuple[Database, Path]]:
    """Yield a new database with harmful classes, and the file that they write."""
    file = Path(f"/tmp/datasources-family-{server.port}")
    file.touch()
    file.chmod(0o666)
    database = server.at("families")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE families")
    try:
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute(HARM.format(file=file))
            admin.execute(commands)
            admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA z TO reader")
        file.write_text("")
        yield database, file
    finally:
        file.unlink()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE families WITH (FORCE)")


async def check(server: PostgresServer, case: str, step: int = 1) -> int:
    """Run queries of a case by themselves and through the connector; return how many are harmful.

    Of more than 30 queries, run the first, the last and one of `step` between, other ones in each case.
    """
    commands, queries, reaches = CASES[case]
    if len(queries) > 30:
        first = 1 + list(CASES).index(case) % step
        queries = (queries[0], *queries[first:-1:step], queries[-1])
    harmful = 0
    for database, file in plant(server, commands):
        connector = configured(database, search_path="z, public")
        connector.pool_config = PoolConfig(max_size=1)
        await connector.connect()
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            for query in queries:
                try:
                    await connector.preview(query, 100)
                    refused = False
                except DataSourceError as exc:
                    refused = isinstance(exc, PolicyError)
                assert file.stat().st_size == 0, query
                if _is_harmful(admin, file, query):
                    harmful += 1
                    assert refused, query
        await connector.disconnect()
    assert (harmful > 0) is reaches
    return harmful


def _is_harmful(admin: psycopg.Connection, file: Path, query: str) -> bool:
    for plan in _PLANS:
        admin.execute(f"RESET ALL; SET search_path = z, public; {plan}".encode())
        with suppress(psycopg.Error):
            admin.execute(query.encode())
        if file.stat().st_size:
            file.write_text("")
            return True
    return False


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("case", CASES)
async def test_support_functions_of_operator_families_are_not_reached(
    pg_roles: PostgresServer, case: str, step: int
) -> None:
    await check(pg_roles, case, step)
