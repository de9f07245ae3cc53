"""The connector's own questions mean PostgreSQL's own objects, whatever others have made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import psycopg
import pytest

import datasources_postgresql
from datasources import PolicyError, Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import configured, readable
from tests.servers import Database, PostgresServer

# Functions that raise are made for every operator and function of pg_catalog that SQL can define
# again, with the same types: in each schema of the path, also before pg_catalog.
SHADOW = """
DO $do$
DECLARE target record; returns text;
BEGIN
    CREATE FUNCTION {schema}.spy() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'SHADOWED'; END $$;
    FOR target IN
        SELECT o.oprname, o.oprleft::regtype::text AS lefttype, o.oprright::regtype::text AS righttype,
            o.oprresult::regtype::text AS result, o.oid
        FROM pg_operator o
        WHERE o.oprkind = 'b' AND o.oid < 16384 AND o.oprname = ANY ('{operators}')
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION {schema}.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS '
                '$$ BEGIN RAISE ''SHADOWED''; END $$', 'op' || target.oid, target.lefttype,
                target.righttype, target.result);
            EXECUTE format('CREATE OPERATOR {schema}.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = '
                '{schema}.%I)', target.oprname, target.lefttype, target.righttype, 'op' || target.oid);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR target IN
        SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
            pg_get_function_result(p.oid) AS result
        FROM pg_proc p WHERE p.oid < 16384 AND p.proname = ANY ('{names}') AND p.prokind <> 'p'
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION {schema}.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
                '$$ BEGIN RAISE ''SHADOWED''; END $$', target.proname, target.arguments, target.result);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR target IN SELECT relname FROM pg_class WHERE relname = ANY ('{names}') AND oid < 16384 LOOP
        EXECUTE format('CREATE TABLE {schema}.%I (shadowed int)', target.relname);
    END LOOP;
    FOR target IN SELECT typname FROM pg_type
        WHERE typname = ANY ('{names}') AND oid < 16384 AND typrelid = 0
    LOOP
        EXECUTE format('CREATE DOMAIN {schema}.%I AS pg_catalog.point CHECK (false)', target.typname);
    END LOOP;
    -- Matches that are better than those of PostgreSQL's own, which take a cast.
    FOR target IN SELECT name, left_, right_
        FROM unnest('{operators}'::text[]) AS name,
            unnest(ARRAY['oid', 'int', 'bigint', 'float8', 'name', 'text', '"char"']) AS left_,
            unnest(ARRAY['int', 'bigint', 'smallint', 'text', 'name', 'oid', '"char"']) AS right_
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION {schema}.mix(%s, %s) RETURNS bool LANGUAGE plpgsql AS '
                '$$ BEGIN RAISE ''SHADOWED''; END $$', target.left_, target.right_);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        BEGIN
            EXECUTE format('CREATE OPERATOR {schema}.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = '
                '{schema}.mix)', target.name, target.left_, target.right_);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END $do$;
"""
_MODULES = (
    "catalog",
    "connections",
    "guard.evidence",
    "guard.guard",
    "guard.lookup",
    "guard.names",
)


def _own_sql() -> str:
    """Return all text of the package in which its questions are."""
    package = Path(datasources_postgresql.__path__[0])
    names = [*_MODULES, "reading", "statistics", "guard.literals", "arrow.arrow"]
    for name in names:
        import_module(f"datasources_postgresql.{name}")
    return "".join((package / f"{name.replace('.', '/')}.py").read_text() for name in names)


@pytest.fixture(scope="module")
def shadowed(pg_roles: PostgresServer) -> Iterator[Database]:
    database = pg_roles.at("shadowed")
    sql = _own_sql()
    names = sorted({*re.findall(r"[a-z_]\w+", sql)} - {"spy", "mix"})
    operators = "{=,<>,<,<=,>,>=,~,!~,||,*,+,-,/,&&,@>}"
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shadowed")
    try:
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute("SET search_path = pg_catalog")
            admin.execute(
                "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int, price float8, note text);"
                "INSERT INTO shop.orders SELECT g, g, 'n' FROM generate_series(1, 5) g;"
                "CREATE VIEW shop.cheap AS SELECT * FROM shop.orders WHERE id < 3;"
                "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA shop, evil TO PUBLIC;"
                "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO reader"
            )
            for schema in ("evil", "public"):
                filled = (
                    SHADOW.replace("{schema}", schema)
                    .replace("{operators}", operators)
                    .replace("{names}", "{" + ",".join(names) + "}")
                )
                admin.execute(filled)
            row = admin.execute("SELECT count(*) FROM pg_operator WHERE oid >= 16384").fetchone()
            assert row is not None
            assert row[0] > 300
        yield database
    finally:
        with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE shadowed WITH (FORCE)")


@pytest.mark.parametrize(
    "search_path", [None, "evil, public", "evil, public, pg_catalog, pg_temp"], ids=str
)
async def test_nothing_that_others_made_runs(
    shadowed: Database, workspace: Workspace, search_path: str | None
) -> None:
    names = search_path.replace(" ", "") if search_path else None
    dsn = f"options='-c search_path={names}'" if names else None
    connector = configured(shadowed, dsn=dsn, search_path=search_path)
    await connector.connect()
    assert await connector.test_connection()
    paths = {item.path for item in await connector.list_items()}
    assert {"shop.orders", "shop.cheap"} <= paths
    assert (await connector.get_metadata("shop.orders", exact_rows=True))["rows"] == 5
    assert (await connector.get_metadata("shop.cheap"))["columns"] != []
    assert len((await connector.preview("shop.orders", 2)).rows) == 2
    assert (await connector.statistics("shop.orders"))["id"].max == 5
    for file_format in ("csv", "parquet"):
        directory = Workspace(workspace, file_format=file_format)
        await connector.fetch_data("shop.orders", directory)
        await connector.fetch_data("SELECT id, note FROM shop.orders", directory)
    assert (await connector.read_table("shop.orders")).num_rows == 5
    await connector.disconnect()


async def test_stranger_cannot_blind_the_guard(
    admin: psycopg.Connection, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    admin.execute(
        "CREATE FUNCTION ge(oid, int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR >= (LEFTARG = oid, RIGHTARG = int, FUNCTION = ge);"
        "CREATE FUNCTION harm() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'HARM'; END $$;"
        "CREATE VIEW harmful AS SELECT harm()"
    )
    with pytest.raises(PolicyError):
        await reader.fetch_data("SELECT * FROM harmful", workspace)
