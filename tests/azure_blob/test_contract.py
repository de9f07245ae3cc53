"""The contract, kept by the connector of Azure Blob Storage on a real service."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator

import pytest
from azure.storage.blob import BlobServiceClient

from datasources.testing import ConnectorContract, Subject
from datasources_azure_blob import AzureBlobConnector
from tests.servers import AzuriteServer
from tests.servers.process import HOST, free_port

ITEMS = {
    "sales.csv": b"x,y\n1,2\n3,4\n",
    "2024/january/sales report.csv": b"x\n",
    "2024/empty": b"",
    "large.bin": bytes(range(256)) * 12_288,
}


@pytest.fixture(scope="module")
def container(azurite: AzuriteServer) -> Iterator[str]:
    """A container for the whole contract, which adds to it and removes nothing."""
    name = f"contract-{secrets.token_hex(6)}"
    with BlobServiceClient.from_connection_string(azurite.connection_string) as account:
        client = account.create_container(name)
        for path, content in ITEMS.items():
            client.upload_blob(path, content)
        yield name
        account.delete_container(name)


class TestContract(ConnectorContract):
    @pytest.fixture
    def subject(self, azurite: AzuriteServer, container: str) -> Subject:
        options = {
            "container": container,
            "account_url": azurite.blob_endpoint,
            "account_key": azurite.account_key,
            "chunk_size": 1 << 20,
            "retries": 1,  # the emulator fails for good on a few names
        }
        nowhere = f"http://{HOST}:{free_port()}/{azurite.account_name}"
        return Subject(
            connector_class=AzureBlobConnector,
            type="azure_blob",
            options=options,
            items=ITEMS,
            missing="2024/nothing.csv",
            tables={"sales.csv": 2},
            counts_rows=False,
            abilities={"discover", "iter_items", "glob", "preview", "upload"},
            wrong_credentials={
                **options,
                "account_key": base64.b64encode(b"not the account's key").decode(),
            },
            unreachable={**options, "account_url": nowhere},
        )
