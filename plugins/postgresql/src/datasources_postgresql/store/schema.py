"""The tables of a store, their migrations, and the statements that read and write them."""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg

from datasources import StoredSource, StoreError

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
Row: TypeAlias = "tuple[Any, ...]"  # Any, since the tables may have been edited by hand

# Scripts by schema version: each upgrades the tables to the next one, the first creates them.
_MIGRATIONS = (
    """
CREATE TABLE datasources.store (schema_version integer NOT NULL, version bigint NOT NULL);
INSERT INTO datasources.store VALUES (1, 0);
-- A row without credentials is a source that was removed; it tells other hosts so.
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
    "ALTER TABLE datasources.sources ADD COLUMN paused text;",
    """
CREATE TABLE datasources.records (
    kind text COLLATE "C",
    id text COLLATE "C",
    owner text COLLATE "C" NOT NULL,
    data text NOT NULL,
    version bigint NOT NULL,
    expires_at double precision,
    PRIMARY KEY (kind, id)
);
CREATE INDEX ON datasources.records (kind, owner, id);
CREATE INDEX ON datasources.records (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE datasources.entries (
    kind text COLLATE "C",
    id text COLLATE "C",
    number bigint,
    data text NOT NULL,
    expires_at double precision,
    PRIMARY KEY (kind, id, number)
);
CREATE INDEX ON datasources.entries (expires_at) WHERE expires_at IS NOT NULL;
-- Versions of records and numbers of entries, so that none is used twice.
CREATE SEQUENCE datasources.record_numbers;
""",
)
_PAUSED_SINCE = 2  # the schema version from which the table has the column `paused`
_CREATION_LOCK = (
    0x4453_5243  # key of the advisory lock under which one of several hosts creates the tables
)
_TABLES_EXIST = """
SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'datasources' AND tablename = 'store'
"""
# Asked first: CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even if it exists.
_SCHEMA_EXISTS = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'datasources'"
_SET_SCHEMA_VERSION = "UPDATE datasources.store SET schema_version = %s"
CHANNEL = "datasources"
_COLUMNS = "id, type, name, created_at, metadata, limits, options, credentials, version"
# One statement takes one snapshot, so the rows are all the changes up to that version. It reads
# `paused` from the whole row: the column may be missing, or added by another host at any time.
CHANGED = f"""
SELECT store.version, {", ".join(f"changed.{name}" for name in _COLUMNS.split(", "))},
    pg_catalog.to_json(changed) ->> 'paused'
    FROM datasources.store LEFT JOIN datasources.sources AS changed ON changed.version > %s
"""  # noqa: S608  (constants)
# Locks the store against other writers, and returns the schema version that it has now.
LOCK = "SELECT schema_version FROM datasources.store FOR UPDATE"
ANNOUNCE = f"""
WITH risen AS (UPDATE datasources.store SET version = %s RETURNING version)
SELECT pg_catalog.pg_notify('{CHANNEL}', version::text) FROM risen
"""  # noqa: S608


def prepare(connection: Connection, place: str) -> None:
    """Create the tables, or upgrade them to this version, unless that has been done.

    Tables that belong to another role stay as they are, and can be used: without what a newer
    version stores in them.

    Raises:
        StoreError: They were made by a newer version of this package.
    """
    version = _schema_version(connection)
    if version < len(_MIGRATIONS):
        try:
            _migrate(connection)
        except psycopg.errors.InsufficientPrivilege:
            connection.rollback()
            if version == 0:
                raise
    version = _schema_version(connection)
    connection.commit()
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"the store {place!r} was written by a newer version of datasources-postgresql "
            f"(schema {version}; this one knows {len(_MIGRATIONS)})"
        )


def put_statement(schema_version: int) -> str:
    """Return the statement that stores the row of `row_of` in tables of a schema version."""
    columns = _COLUMNS.split(", ")
    if schema_version >= _PAUSED_SINCE:
        columns.append("paused")
    return f"""
INSERT INTO datasources.sources ({", ".join(columns)}) VALUES ({", ".join(["%s"] * len(columns))})
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in columns[1:])}
"""  # noqa: S608  (constants)


def row_of(record: StoredSource, schema_version: int) -> Row:
    """Return a record as a row for tables of a schema version.

    Raises:
        StoreError: The source is paused, and the tables have no column for that.
    """
    if schema_version >= _PAUSED_SINCE:
        return (*record.to_row(), record.paused)
    if record.paused is not None:
        raise StoreError(
            f"source {record.id!r} cannot be paused: the tables of the store are those of version "
            "0.1; a host whose role owns them upgrades them when it opens the store"
        )
    return record.to_row()


def removal_row(source_id: str, version: int, schema_version: int) -> Row:
    """Return the row that stands for a removed source."""
    row = (source_id, None, None, None, None, None, None, None, version)
    return (*row, None) if schema_version >= _PAUSED_SINCE else row


def _migrate(connection: Connection) -> None:
    connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [_CREATION_LOCK])
    if not connection.execute(_SCHEMA_EXISTS).rowcount:
        connection.execute("CREATE SCHEMA datasources")
    # Read again: another host may have created them before this one had the lock.
    version = _schema_version(connection)
    if version > 0:  # in the order of a write, which locks the store before it changes a source
        connection.execute(LOCK)
    for script in _MIGRATIONS[version:]:
        connection.execute(script)
    connection.execute(_SET_SCHEMA_VERSION, [len(_MIGRATIONS)])


def _schema_version(connection: Connection) -> int:
    """Return the schema version of the tables, 0 if there are none."""
    if not connection.execute(_TABLES_EXIST).rowcount:
        return 0
    row = connection.execute("SELECT schema_version FROM datasources.store").fetchone()
    return int(row[0]) if row else len(_MIGRATIONS)  # `_read_changes` reports an empty table


def is_removal(row: Row) -> bool:
    """Return True if the row stands for a source that was removed."""
    return row[7] is None
