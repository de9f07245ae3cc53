"""Local directories as sources for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasources_local_file.connector import LocalFileConnector, LocalFileOptions

__all__ = ["LocalFileConnector", "LocalFileOptions"]


def __getattr__(name: str) -> object:
    """Import the connector on first use: discovery imports this package alone."""
    if name in __all__:
        from datasources_local_file import connector

        return getattr(connector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
