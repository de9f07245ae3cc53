"""Name the connector class for discovery; this module stays light to import."""

from __future__ import annotations

from datasources import DataSourceConnector, hookimpl


@hookimpl
def datasources_connectors() -> list[type[DataSourceConnector]]:
    """Return the connector classes of this plugin."""
    from datasources_http_directory.connector import HttpDirectoryConnector

    return [HttpDirectoryConnector]
