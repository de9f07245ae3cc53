"""Buckets of S3 and of services that speak its protocol as sources for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_object_store.s3 import S3Connector as S3Connector
    from datasources_object_store.s3_options import S3Options as S3Options

__all__ = ["S3Connector", "S3Options"]

__getattr__ = lazy_exports(__name__, {"S3Connector": "s3", "S3Options": "s3_options"})
