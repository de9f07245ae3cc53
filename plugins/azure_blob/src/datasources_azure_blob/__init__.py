"""Azure Blob Storage containers as sources for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasources_azure_blob.connector import AzureBlobConnector as AzureBlobConnector
    from datasources_azure_blob.options import AzureBlobOptions as AzureBlobOptions

__version__ = "0.1.0"
__all__ = ["AzureBlobConnector", "AzureBlobOptions"]


def __getattr__(name: str) -> object:
    """Import the connector, and with it aiohttp, on first use: discovery imports this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from datasources_azure_blob import connector, options

    return (
        connector.AzureBlobConnector if name == "AzureBlobConnector" else options.AzureBlobOptions
    )
