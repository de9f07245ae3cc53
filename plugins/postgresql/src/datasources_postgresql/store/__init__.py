"""A store of sources in a PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasources_postgresql.store.store import PostgreSQLStore

__all__ = ["PostgreSQLStore"]


def __getattr__(name: str) -> object:
    """Import on use: every registry imports `store_plugin`, which must not import the driver."""
    if name != "PostgreSQLStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from datasources_postgresql.store.store import PostgreSQLStore

    return PostgreSQLStore
