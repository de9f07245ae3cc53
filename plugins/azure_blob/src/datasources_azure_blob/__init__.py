"""Azure Blob Storage containers as a source for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasources_azure_blob.connector import AzureBlobConnector as AzureBlobConnector
    from datasources_azure_blob.options import AzureBlobOptions as AzureBlobOptions

__all__ = ["AzureBlobConnector", "AzureBlobOptions"]


def __getattr__(name: str) -> object:
    """Import the connector, and its HTTP client, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from datasources_azure_blob import connector, options

    return (
        connector.AzureBlobConnector if name == "AzureBlobConnector" else options.AzureBlobOptions
    )
