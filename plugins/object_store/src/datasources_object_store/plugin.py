"""Name the connector classes for discovery; this module stays light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import hookimpl

if TYPE_CHECKING:
    from datasources import DataSourceConnector


@hookimpl
def datasources_connectors() -> list[type[DataSourceConnector]]:
    """Return this plugin's connector classes."""
    from datasources_object_store.gcs import GCSConnector
    from datasources_object_store.http_files import HTTPFilesConnector
    from datasources_object_store.s3 import S3Connector

    return [S3Connector, GCSConnector, HTTPFilesConnector]
