"""The tables of a store, and its records as their rows."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any, TypeAlias, TypeVar

import psycopg

from datasources import (
    DataSourceConfig,
    DataSourceType,
    Limits,
    OptionError,
    StoredSource,
    StoreError,
)

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
Row: TypeAlias = "tuple[Any, ...]"  # somebody may have edited the tables
T = TypeVar("T")

_SCHEMA_VERSION = 1
_SCHEMA = """
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
"""
_CREATING = 0x4453_5243  # the key of an advisory lock: of hosts that come first one creates
_EXISTS = """
SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'datasources' AND tablename = 'store'
"""
# Even `IF NOT EXISTS` needs the right to create, which somebody may have spared the role.
_SCHEMA_EXISTS = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'datasources'"
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
    """Create the tables unless they are there."""
    if not connection.execute(_EXISTS).rowcount:
        connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [_CREATING])
        if not connection.execute(_SCHEMA_EXISTS).rowcount:
            connection.execute("CREATE SCHEMA datasources")
        if not connection.execute(_EXISTS).rowcount:  # nobody else was faster
            connection.execute(_SCHEMA)
    row = connection.execute("SELECT schema_version FROM datasources.store").fetchone()
    connection.commit()
    if row is not None and row[0] > _SCHEMA_VERSION:
        raise StoreError(
            f"the store {place!r} was written by a newer version of datasources-postgresql "
            f"(schema {row[0]}; this one knows {_SCHEMA_VERSION})"
        )


def is_removal(row: Row) -> bool:
    return row[7] is None


def row_of(record: StoredSource) -> Row:
    return (
        record.id,
        record.type,
        record.name,
        record.created_at,
        json.dumps(record.metadata),
        None if record.limits is None else json.dumps(record.limits),
        None if record.options is None else json.dumps(record.options),
        record.credentials,
        record.version,
    )


def record_of(row: Row) -> StoredSource:
    source_id, kind, name, created_at, metadata, limits, options, credentials, version = row
    try:
        return StoredSource(
            DataSourceConfig(source_id, DataSourceType(kind), name, {}).id,
            kind,
            _expect(str, name),
            _expect(float, created_at),
            _expect(dict, _loaded(metadata)),
            None if limits is None else asdict(Limits(**_loaded(limits))),
            None if options is None else _expect(dict, _loaded(options)),
            _expect(str, credentials),
            _expect(int, version),
        )
    except (ValueError, TypeError, OptionError):
        return _damaged(source_id)


def _loaded(value: object) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _damaged(source_id: object) -> StoredSource:
    """Return what can be listed of a row that somebody edited and broke."""
    shown = re.sub(r"[^A-Za-z0-9._-]", "_", str(source_id))[:100]
    if shown != source_id or not shown[0].isalnum():
        shown = f"damaged.{shown}"
    return StoredSource(shown, DataSourceType.CUSTOM.value, shown, 0.0, {}, None, None, "")


def _expect(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"not {kind.__name__}")
    return value
