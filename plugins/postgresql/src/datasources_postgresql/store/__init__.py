"""A store of sources in a PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_postgresql.store.store import PostgreSQLStore

__all__ = ["PostgreSQLStore"]

# Imported on use: every registry imports `store_plugin`, which must not import the driver.
__getattr__ = lazy_exports(__name__, {"PostgreSQLStore": "store"})
