"""The module of the entry point; it imports the connector, and so the driver, when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import hookimpl

if TYPE_CHECKING:
    from datasources import DataSourceConnector


@hookimpl
def datasources_connectors() -> list[type[DataSourceConnector]]:
    """Return the connector of this distribution."""
    from datasources_postgresql.connector import PostgreSQLConnector

    return [PostgreSQLConnector]
