"""The sources of `datasources` as a file system of fsspec, under the protocol `datasource`."""

from __future__ import annotations

from datasources_fsspec.filesystem import DataSourceFileSystem

__all__ = ["DataSourceFileSystem"]
