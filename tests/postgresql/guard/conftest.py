"""A database with every kind of object that a query can reach a harmful function through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from datasources import PoolConfig
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import Admin, configured, readable
from tests.servers import Database, PostgresServer

# What is harmful raises: whoever reaches it gets an error that says so.
SETUP = """
CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO reader, owner;
CREATE FUNCTION s.h(int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE TABLE s.t (id int, note text); INSERT INTO s.t VALUES (1, 'a');
CREATE DOMAIN s.d AS int CHECK (s.h(VALUE));
CREATE TYPE s.row AS (v s.d, note text);
CREATE TABLE s.held (id int, v s.d, many s.d[], whole s.row);
CREATE TYPE s.span AS RANGE (subtype = s.d);
CREATE FUNCTION s.two(OUT a s.d, OUT b int) STABLE LANGUAGE sql AS 'SELECT 5, 1';
CREATE FUNCTION s.many() RETURNS TABLE (a s.d, b int) STABLE LANGUAGE sql AS 'SELECT 5, 1';
CREATE FUNCTION s.p(int) RETURNS point LANGUAGE plpgsql AS $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE CAST (int AS point) WITH FUNCTION s.p(int);
CREATE FUNCTION s.n(jsonb) RETURNS inet LANGUAGE plpgsql AS $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE CAST (jsonb AS inet) WITH FUNCTION s.n(jsonb);
CREATE FUNCTION s.a(s.t[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE CAST (s.t[] AS text) WITH FUNCTION s.a(s.t[]);
CREATE FUNCTION s.good(int, int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN RETURN $1 = $2; END $$;
CREATE FUNCTION s.bad(int, int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE OPERATOR s.~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = s.good,
    NEGATOR = OPERATOR(s.!~~~));
CREATE OPERATOR s.!~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = s.bad,
    NEGATOR = OPERATOR(s.~~~));
CREATE VIEW s.v AS SELECT s.h(1) AS x;
CREATE VIEW s.negated AS SELECT NOT (id OPERATOR(s.~~~) 3) AS x FROM s.t;
CREATE FUNCTION s.cmp(int, int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE OPERATOR CLASS s.backwards FOR TYPE int USING btree AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 s.cmp(int, int);
CREATE TABLE s.indexed (id int); CREATE INDEX ON s.indexed (id s.backwards);
CREATE TABLE s.divided (id int) PARTITION BY RANGE (id s.backwards);
CREATE TYPE s.odd AS (v int);
CREATE FUNCTION s.odd_json(s.odd) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE CAST (s.odd AS json) WITH FUNCTION s.odd_json(s.odd);
CREATE TABLE s.odds (v s.odd); INSERT INTO s.odds VALUES (ROW(1));
CREATE FUNCTION s.acc(int, int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'HARM REACHED'; END $$;
CREATE AGGREGATE s.agg(int) (SFUNC = s.acc, STYPE = int);
CREATE TABLE s.guarded (id int); INSERT INTO s.guarded VALUES (1);
CREATE POLICY spying ON s.guarded USING (s.h(id)); ALTER TABLE s.guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE s.guarded FORCE ROW LEVEL SECURITY;
CREATE FUNCTION s.by_default(a int DEFAULT s.h(1)::int) RETURNS int IMMUTABLE LANGUAGE sql
    AS 'SELECT $1';
CREATE FUNCTION s.body() RETURNS bool STABLE LANGUAGE sql BEGIN ATOMIC SELECT s.h(1); END;
CREATE FUNCTION s.stat(text, OUT word text, OUT ndoc int, OUT nentry int) RETURNS SETOF record
    STABLE LANGUAGE internal AS 'ts_stat1';
CREATE FUNCTION s.kill(int) RETURNS bool STABLE LANGUAGE internal AS 'pg_terminate_backend';
CREATE FUNCTION s.pick(internal) RETURNS tsm_handler LANGUAGE internal AS 'tsm_system_handler';
GRANT SELECT ON ALL TABLES IN SCHEMA s TO reader, owner;
"""


@dataclass(frozen=True)
class Harmful:
    """The database, a superuser's session, and a victim of each role."""

    database: Database
    admin: Admin


@pytest.fixture(scope="module")
def harmful(pg_roles: PostgresServer) -> Iterator[Harmful]:
    database = pg_roles.at("harmful")
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE harmful")
    try:
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute(SETUP)
            yield Harmful(database, admin)
    finally:
        with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE harmful WITH (FORCE)")


@pytest.fixture(params=["reader", "owner", "postgres"])
async def any_role(
    request: pytest.FixtureRequest, harmful: Harmful
) -> AsyncIterator[PostgreSQLConnector]:
    """A plain reader, the owner of what is harmful, and a superuser that the host insists on."""
    options: dict[str, object] = {"user": request.param}
    if request.param == "postgres":
        options |= {"password": harmful.database.password, "allow_privileged_role": True}
    if request.param == "owner":
        harmful.admin.execute(
            "ALTER SCHEMA s OWNER TO owner; ALTER FUNCTION s.h(int) OWNER TO owner"
        )
    connector = configured(harmful.database, **options)
    connector.pool_config = PoolConfig(max_size=1)
    await connector.connect()
    yield connector
    await connector.disconnect()
