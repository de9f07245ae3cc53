"""The tables of a store."""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg

from datasources import StoreError

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
Row: TypeAlias = "tuple[Any, ...]"  # somebody may have edited the tables

# The tables of a new store, and what brings them from each version to the next one.
_MIGRATIONS = (
    """
CREATE TABLE datasources.store (schema_version integer NOT NULL, version bigint NOT NULL);
INSERT INTO datasources.store VALUES (1, 0);
-- A row without credentials is a source that was removed: so other hosts learn of it.
CREATE TABLE datasources.sources (
    id text COLLATE "C" PRIMARY KEY,
    type text,
    name text,
    created_at double precision,
    metadata json,
    limits json,
    options json,
    credentials text,
    version bigint NOT NULL UNIQUE
);
""",
)
_CREATING = 0x4453_5243  # key of an advisory lock: of hosts that come at once one makes the tables
_EXISTS = """
SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'datasources' AND tablename = 'store'
"""
# Even `IF NOT EXISTS` needs the right to create, which somebody may have spared the role.
_SCHEMA_EXISTS = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'datasources'"
_MIGRATED = "UPDATE datasources.store SET schema_version = %s"
CHANNEL = "datasources"
_COLUMNS = "id, type, name, created_at, metadata, limits, options, credentials, version"
# One statement, so one snapshot: the rows are all changes up to that version.
CHANGED = f"""
SELECT store.version, {", ".join(f"changed.{name}" for name in _COLUMNS.split(", "))}
    FROM datasources.store LEFT JOIN datasources.sources AS changed ON changed.version > %s
"""  # noqa: S608  (constants)
PUT = f"""
INSERT INTO datasources.sources ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (id) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:])}
"""  # noqa: S608
ANNOUNCE = f"""
WITH risen AS (UPDATE datasources.store SET version = %s RETURNING version)
SELECT pg_catalog.pg_notify('{CHANNEL}', version::text) FROM risen
"""  # noqa: S608


def prepare(connection: Connection, place: str) -> None:
    """Create the tables, or bring them to this version, unless that was done."""
    if _schema_version(connection) < len(_MIGRATIONS):
        connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [_CREATING])
        if not connection.execute(_SCHEMA_EXISTS).rowcount:
            connection.execute("CREATE SCHEMA datasources")
        # Read again: somebody else may have been faster.
        for script in _MIGRATIONS[_schema_version(connection) :]:
            connection.execute(script)
        connection.execute(_MIGRATED, [len(_MIGRATIONS)])
    version = _schema_version(connection)
    connection.commit()
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"the store {place!r} was written by a newer version of datasources-postgresql "
            f"(schema {version}; this one knows {len(_MIGRATIONS)})"
        )


def _schema_version(connection: Connection) -> int:
    """Return the version of the tables, 0 where there are none."""
    if not connection.execute(_EXISTS).rowcount:
        return 0
    row = connection.execute("SELECT schema_version FROM datasources.store").fetchone()
    return int(row[0]) if row else len(_MIGRATIONS)  # an empty table is damage, told later


def is_removal(row: Row) -> bool:
    return row[7] is None
