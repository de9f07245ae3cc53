"""Buckets of S3 and of Google Cloud Storage, and files of web servers, as sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_object_store.gcs import GCSConnector as GCSConnector
    from datasources_object_store.gcs_options import GCSOptions as GCSOptions
    from datasources_object_store.http_files import HTTPFilesConnector as HTTPFilesConnector
    from datasources_object_store.http_options import HTTPFilesOptions as HTTPFilesOptions
    from datasources_object_store.s3 import S3Connector as S3Connector
    from datasources_object_store.s3_options import S3Options as S3Options

__all__ = [
    "GCSConnector",
    "GCSOptions",
    "HTTPFilesConnector",
    "HTTPFilesOptions",
    "S3Connector",
    "S3Options",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "GCSConnector": "gcs",
        "GCSOptions": "gcs_options",
        "HTTPFilesConnector": "http_files",
        "HTTPFilesOptions": "http_options",
        "S3Connector": "s3",
        "S3Options": "s3_options",
    },
)
