"""A directory as a source for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_local_file.connector import LocalFileConnector, LocalFileOptions

__all__ = ["LocalFileConnector", "LocalFileOptions"]

__getattr__ = lazy_exports(
    __name__, {"LocalFileConnector": "connector", "LocalFileOptions": "connector"}
)
