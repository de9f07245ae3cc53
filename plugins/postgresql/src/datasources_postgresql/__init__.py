"""PostgreSQL as a source for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasources_postgresql.connector import PostgreSQLConnector
    from datasources_postgresql.options import PostgreSQLOptions

__all__ = ["PostgreSQLConnector", "PostgreSQLOptions"]

_MODULE_OF = {"PostgreSQLConnector": "connector", "PostgreSQLOptions": "options"}


def __getattr__(name: str) -> object:
    """Import on use, so that reading the plugin module does not import the driver."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
