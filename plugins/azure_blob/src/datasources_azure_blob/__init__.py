"""Azure Blob Storage containers as sources for `datasources`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_azure_blob.connector import AzureBlobConnector as AzureBlobConnector
    from datasources_azure_blob.options import AzureBlobOptions as AzureBlobOptions

__all__ = ["AzureBlobConnector", "AzureBlobOptions"]

__getattr__ = lazy_exports(
    __name__, {"AzureBlobConnector": "connector", "AzureBlobOptions": "options"}
)
