"""A directory as a source for `datasources`."""

from datasources_local_file.connector import LocalFileConnector, LocalFileOptions

__all__ = ["LocalFileConnector", "LocalFileOptions"]
