"""Statements put together by the grammar, with harmful functions wherever one can be reached."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from datasources import DataSourceError, PolicyError, PoolConfig
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.guard import parse_one
from datasources_postgresql.guard.syntax import nodes
from tests.postgresql.conftest import Report, configured, readable
from tests.servers import Database, PostgresServer

TYPES = ("int", "text", "float8", "boolean", "jsonb", "date", "point", "inet", "int4range", "item")

# Each harmful function runs a program of the server's machine, which no rollback undoes: the file grows.
HARM = """
CREATE FUNCTION z.harm() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN COPY (SELECT 1) TO PROGRAM 'cat >> {file}'; END $$;
CREATE TABLE z.item (id int, name text, price float8, ok boolean, doc jsonb, day date);
INSERT INTO z.item SELECT g, 'n' || g, g, true, '{{"a": 1}}', '2024-01-01' FROM generate_series(1, 5) g;
SET search_path = z, public;
DO $do$
DECLARE t text; u text;
BEGIN
    FOREACH t IN ARRAY ARRAY['int', 'text', 'float8', 'boolean', 'jsonb', 'date', 'point', 'inet',
        'int4range', 'item']
    LOOP
        EXECUTE format('CREATE FUNCTION z.bad(%s) RETURNS %1$s LANGUAGE plpgsql AS '
            '$f$ BEGIN PERFORM z.harm(); RETURN $1; END $f$', t);
        EXECUTE format('CREATE FUNCTION z.bad2(%s, %1$s) RETURNS boolean LANGUAGE plpgsql AS '
            '$f$ BEGIN PERFORM z.harm(); RETURN true; END $f$', t);
        EXECUTE format('CREATE FUNCTION z.good2(%s, %1$s) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS '
            '$f$ BEGIN RETURN true; END $f$', t);
        EXECUTE format('CREATE OPERATOR z.=!= (LEFTARG = %s, RIGHTARG = %1$s, FUNCTION = z.bad2)', t);
        EXECUTE format('CREATE OPERATOR z.=~= (LEFTARG = %s, RIGHTARG = %1$s, FUNCTION = z.good2, '
            'NEGATOR = OPERATOR(z.!=~=))', t);
        EXECUTE format('CREATE OPERATOR z.!=~= (LEFTARG = %s, RIGHTARG = %1$s, FUNCTION = z.bad2, '
            'NEGATOR = OPERATOR(z.=~=))', t);
        EXECUTE format('CREATE FUNCTION z.valid(%s) RETURNS boolean LANGUAGE plpgsql AS '
            '$f$ BEGIN PERFORM z.harm(); RETURN true; END $f$', t);
        EXECUTE format('CREATE DOMAIN z.dom_%s AS %1$s CHECK (z.valid(VALUE))', t);
        EXECUTE format('CREATE TYPE z.box_%s AS (v z.dom_%1$s)', t);
        EXECUTE format('CREATE FUNCTION z.step(%s, %1$s) RETURNS %1$s LANGUAGE plpgsql AS '
            '$f$ BEGIN PERFORM z.harm(); RETURN $2; END $f$', t);
        EXECUTE format('CREATE AGGREGATE z.agg(%s) (SFUNC = z.step, STYPE = %1$s)', t);
        EXECUTE format('CREATE VIEW z.view_%s AS SELECT z.bad(NULL::%1$s) AS v', t);
        EXECUTE format('CREATE FUNCTION z.opt_%s(a %1$s DEFAULT z.bad(NULL::%1$s)) RETURNS int IMMUTABLE '
            'LANGUAGE sql AS ''SELECT 1''', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['int', 'float8', 'boolean', 'date'] LOOP
        FOREACH u IN ARRAY ARRAY['point', 'inet'] LOOP
            EXECUTE format('CREATE FUNCTION z.to_%2$s(%1$s) RETURNS %2$s LANGUAGE plpgsql AS '
                '$f$ BEGIN PERFORM z.harm(); RETURN NULL; END $f$', t, u);
            EXECUTE format('CREATE CAST (%1$s AS %2$s) WITH FUNCTION z.to_%2$s(%1$s)', t, u);
        END LOOP;
    END LOOP;
END $do$;
CREATE TABLE z.guarded (id int); INSERT INTO z.guarded VALUES (1);
CREATE POLICY p ON z.guarded USING (z.bad2(id, id)); ALTER TABLE z.guarded ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA z TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA z TO reader;
"""
VALUES = {
    "int": ("1", "i.id", "length(i.name)", "(i).id", "i.id % 2"),
    "text": ("'a'::text", "i.name", "upper(i.name)", "i.doc ->> 'a'", "concat(i.id, 'x')"),
    "float8": ("1.5::float8", "i.price", "sqrt(i.price)", "random()"),
    "boolean": ("true", "i.ok", "i.id > 1", "i.name LIKE 'n%'", "i.id IN (1, 2)"),
    "jsonb": ("'{}'::jsonb", "i.doc", "to_jsonb(i)", "jsonb_build_object('a', i.id)"),
    "date": ("date '2024-01-01'", "i.day", "current_date", "i.day + 1"),
    "point": ("point(1, 2)", "point '(1,2)'"),
    "inet": ("inet '10.0.0.1'",),
    "int4range": ("int4range(1, 5)", "'[1,5)'::int4range"),
    "item": ("i", "ROW(1, 'a', 1.5, true, '{}', '2024-01-01')::item"),
}


@dataclass
class Generator:
    """Makes expressions and queries; a third of the expressions has something harmful."""

    chance: random.Random

    def expression(self, type_: str, depth: int = 0) -> str:
        if depth > 2 or self.chance.random() < 0.4:
            return self.chance.choice(VALUES[type_])
        a, b = (self.expression(type_, depth + 1) for _ in range(2))
        condition = self.expression("boolean", depth + 1)
        forms = [
            f"CASE WHEN {condition} THEN {a} ELSE {b} END", f"coalesce({a}, {b})", f"({a})",
            f"(SELECT {a})", f"(ARRAY[{a}, {b}])[1]", f"CAST({a} AS {type_})", f"({a})::{type_}",
            f"(SELECT max(x.v::text)::{type_} FROM (VALUES ({a})) x(v))"
            if type_ != "item" else a,
        ]  # fmt: skip
        harmful = [
            f"z.bad({a})", f"({a}).bad", f"(({a})::dom_{type_})::{type_}",
            f"(ROW({a})::z.box_{type_}).v::{type_}", f"(ARRAY[{a}]::z.dom_{type_}[])[1]::{type_}",
            f"(SELECT z.agg({a}))", f"(SELECT v FROM z.view_{type_})", f"dom_{type_}({a})::{type_}",
            f"(SELECT z.agg({a}) OVER ())", f"(SELECT f FROM z.bad({a}) f)",
            f"('(\"\")'::z.box_{type_}).v::{type_}", f"CASE WHEN opt_{type_}() = 1 THEN {a} END",
        ]  # fmt: skip
        if type_ == "boolean":
            t = self.chance.choice(TYPES)
            x, y = (self.expression(t, depth + 1) for _ in range(2))
            forms += [f"{a} AND {b}", f"NOT {a}", f"{a} OR {b}", f"({x}) IS NULL", f"({a}) IS TRUE",
                      f"EXISTS (SELECT {x})", f"({x}) IS NOT DISTINCT FROM NULL",
                      f"({x}) OPERATOR(z.=~=) ({y})", "'{}' IS JSON"]  # fmt: skip
            harmful += [f"({x}) OPERATOR(z.=!=) ({y})", f"NOT (({x}) OPERATOR(z.=~=) ({y}))",
                        f"({x}) OPERATOR(z.=!=) ANY (ARRAY[{y}])", f"z.valid({x})",
                        f"pg_input_is_valid('1', 'z.dom_{t}')", f"(({x})::{t} =!= {y})",
                        f"NOT ({x} OPERATOR(z.=~=) ALL (SELECT {y}))"]  # fmt: skip
        if type_ in {"point", "inet"}:
            harmful += [f"({self.expression('int', depth + 1)})::{type_}",
                        f"{type_}({self.expression('float8', depth + 1)})"]  # fmt: skip
        return self.chance.choice(harmful if self.chance.random() < 0.12 else forms)

    def query(self) -> str:
        type_ = self.chance.choice(TYPES)
        a = self.expression(type_)
        n, c = self.expression("int"), self.expression("boolean")
        forms = [
            f"SELECT {a} FROM z.item i", f"SELECT {a}, count(*) OVER w FROM z.item i WHERE {c} WINDOW w AS (ORDER BY {n})",
            f"SELECT count(*) FILTER (WHERE {c}) FROM z.item i", f"SELECT {n} FROM z.item i ORDER BY {n} LIMIT 3",
            f"WITH w AS (SELECT {a} AS v FROM z.item i) SELECT * FROM w", f"SELECT sum({n}) FROM z.item i GROUP BY {n} % 2 HAVING bool_and({c})",
            f"SELECT i.id FROM z.item i JOIN z.item j ON {c}", f"SELECT i.id, l.v FROM z.item i, LATERAL (SELECT {a} AS v) l",
            f"SELECT {n} FROM z.item i UNION ALL SELECT {n} FROM z.item i", f"SELECT DISTINCT ON ({n}) {n} FROM z.item i",
            f"SELECT * FROM generate_series(1, 3) g, z.item i WHERE {c}", f"SELECT json_agg({a}), array_agg({n}) FROM z.item i",
            f"SELECT row_number() OVER (PARTITION BY {c} ORDER BY {n} DESC) FROM z.item i",
            f"SELECT * FROM z.item i TABLESAMPLE system (100) WHERE {c}", f"EXPLAIN SELECT {a} FROM z.item i",
            f"SELECT JSON_OBJECT('a': {n}), JSON_ARRAY({n}, {n}) FROM z.item i",
            f"WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT r.n, {a} FROM r, z.item i",
            f"SELECT {n} FROM z.item i GROUP BY GROUPING SETS (({n}), ())", f"VALUES ((SELECT {a} FROM z.item i LIMIT 1))",
            f"SELECT (x).* FROM (SELECT i AS x FROM z.item i WHERE {c}) q", f"SELECT ROW({n}, {c}) = ROW({n}, {c}) FROM z.item i",
            f"SELECT {n} BETWEEN {n} AND {n}, nullif({n}, 1), greatest({n}, 2) FROM z.item i",
            f"SELECT t.* FROM z.item i, jsonb_to_record(i.doc) AS t(a {self.chance.choice(['int', 'text', 'z.dom_int'])})",
            f"SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY {n}), string_agg(i.name, ',' ORDER BY {n}) FROM z.item i",
            f"SELECT xmlelement(name a, {n}), i.name COLLATE \"C\", current_date FROM z.item i WHERE {c}",
        ]  # fmt: skip
        if self.chance.random() < 0.02:
            return "SELECT * FROM z.guarded"
        return self.chance.choice(forms)


@dataclass(frozen=True)
class Planted:
    """A database with harmful functions, and the file that their calls make grow."""

    database: Database
    file: Path


def plant(server: PostgresServer, name: str) -> Iterator[Planted]:
    """Yield a new database of a server with harmful functions."""
    file = Path(f"/tmp/datasources-harm-{name}-{server.port}")
    file.touch()
    file.chmod(0o666)
    database = server.at(name)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute("CREATE SCHEMA z")
            admin.execute(HARM.format(file=file))
            admin.execute("SELECT z.bad(1)")
            assert file.stat().st_size > 0  # the probe works
        file.write_text("")
        yield Planted(database, file)
    finally:
        file.unlink()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def planted(pg_roles: PostgresServer) -> Iterator[Planted]:
    yield from plant(pg_roles, "planted")


async def fuzz(planted: Planted, count: int, seed: int) -> str:
    """Preview statements; return what became of them."""
    connector = configured(planted.database, search_path="z, public")
    connector.pool_config = PoolConfig(max_size=1)
    await connector.connect()
    generator = Generator(random.Random(seed))
    ended = Counter[str]()
    kinds: set[str] = set()
    for _ in range(count):
        query = generator.query()
        ended[await _ending(connector, query)] += 1
        assert planted.file.stat().st_size == 0, query
        if len(kinds) < 40:
            kinds |= {kind for kind, _ in nodes(parse_one(query)[0])}
    await connector.disconnect()
    assert ended["rows"] > count / 8
    assert ended["PolicyError"] > count / 8
    return f"{count} statements of {len(kinds)} kinds of nodes: {dict(ended)}; 0 effects"


async def _ending(connector: PostgreSQLConnector, query: str) -> str:
    try:
        await connector.preview(query, 3)
    except PolicyError:
        return "PolicyError"
    except DataSourceError as exc:
        return type(exc).__name__
    return "rows"


@pytest.mark.parametrize("seed", range(10, 15))  # 5,000 statements, shared out among processes
async def test_a_thousand_statements_reach_nothing_harmful(
    planted: Planted, report: Report, seed: int
) -> None:
    report(await fuzz(planted, 1_000, seed=seed))


@pytest.mark.soak
async def test_two_hundred_thousand_statements_reach_nothing_harmful(
    planted: Planted, report: Report
) -> None:
    report(await fuzz(planted, 200_000, seed=2))
