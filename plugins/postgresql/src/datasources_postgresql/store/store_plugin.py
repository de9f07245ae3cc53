"""The hook that opens a store at `postgresql://…`; every registry imports it, so it is light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import hookimpl

if TYPE_CHECKING:
    from datasources import Store


@hookimpl
def datasources_open_store(url: str) -> Store | None:
    """Return the store in the database at `url`."""
    if not url.startswith(("postgresql://", "postgres://")):
        return None
    from datasources_postgresql.store import PostgreSQLStore

    return PostgreSQLStore(url)
