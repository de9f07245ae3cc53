"""PostgreSQL as a source for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_postgresql.connector import PostgreSQLConnector
    from datasources_postgresql.options import PostgreSQLOptions

__all__ = ["PostgreSQLConnector", "PostgreSQLOptions"]

__getattr__ = lazy_exports(
    __name__, {"PostgreSQLConnector": "connector", "PostgreSQLOptions": "options"}
)
