"""Pages of the list of tables, from after the name of the last one."""

from __future__ import annotations

import json

from datasources import DataItem, OptionError
from datasources_postgresql import catalog

_ORDER = b"ORDER BY n.nspname, c.relname"

# `catalog.TABLES` from after a schema and a name, in its order. The type `name` has the collation
# "C", so that order and comparison are those of the bytes, whatever the database's collation is.
TABLES_AFTER = catalog.TABLES.replace(
    _ORDER,
    b"""AND (n.nspname, c.relname) > (%s::pg_catalog.name, %s::pg_catalog.name)
"""
    + _ORDER
    + b" LIMIT %s",
)


def cursor_of(item: DataItem) -> str:
    """Return the cursor of the page that begins after a table."""
    return json.dumps([item.metadata["schema"], item.name])


def after(cursor: str | None) -> tuple[str, str]:
    """Return the schema and the name that a page begins after; empty for the first page.

    Raises:
        OptionError: It is no cursor of `cursor_of`.
    """
    if cursor is None:
        return "", ""
    try:
        names = json.loads(cursor)
    except ValueError:
        names = None
    match names:
        case [str(schema), str(name)]:
            return schema, name
    raise OptionError("the cursor is none of a list of tables")
