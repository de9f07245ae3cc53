"""What the entry point names: light to import, gives the connector class when asked."""

from __future__ import annotations

from datasources import DataSourceConnector, hookimpl


@hookimpl
def datasources_connectors() -> list[type[DataSourceConnector]]:
    from datasources_http_directory.connector import HttpDirectoryConnector

    return [HttpDirectoryConnector]
