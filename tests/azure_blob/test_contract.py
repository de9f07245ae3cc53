"""The contract, kept by the connector of Azure Blob Storage on a real service."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob import (
    AccessPolicy,
    BlobServiceClient,
    ContainerClient,
    generate_container_sas,
)

from datasources.testing import ConnectorContract, Subject
from datasources_azure_blob import AzureBlobConnector, folders, listing
from datasources_azure_blob.listing import read_page
from tests.parquet import parquet
from tests.servers import AzuriteServer
from tests.servers.process import HOST, free_port

ITEMS = {
    "sales.csv": b"x,y\n1,2\n3,4\n",
    "2024/january/sales report.csv": b"x\n",
    "2024/empty": b"",
    "large.bin": bytes(range(256)) * 12_288,
    "numbers.parquet": parquet(n=[3, None, 5], x=[0.5, 1.5, None]),
}
PAGE = 20  # items, here; the service has 5000, which the emulator takes a minute to make
MANY = [f"many/{number}" for number in range(2 * PAGE + 1)]


@pytest.fixture(scope="module")
def container(azurite: AzuriteServer) -> Iterator[str]:
    """A container for the whole contract, which adds to it and removes nothing."""
    name = f"contract-{secrets.token_hex(6)}"
    with BlobServiceClient.from_connection_string(azurite.connection_string) as account:
        client = account.create_container(name)
        for path, content in ITEMS.items():
            client.upload_blob(path, content)
        for path in MANY:
            client.upload_blob(path, b"")
        client.upload_blob("heavy.bin", bytes(64 << 20))
        yield name
        account.delete_container(name)


class System:
    """The account, as one who may change it sees it."""

    def __init__(self, azurite: AzuriteServer, container: str) -> None:
        self._key, self._account_name = azurite.account_key, azurite.account_name
        self._connection_string, self._container = azurite.connection_string, container
        self._number = 0

    def change(self) -> tuple[str, bytes]:
        self._number += 1
        content = bytes([self._number]) * (5 << 20)
        with self._client() as client:
            client.upload_blob("changing.bin", content, overwrite=True)
        return "changing.bin", content

    def rotate(self) -> dict[str, str]:
        """Replace the stored access policy of the container, which ends all SAS of the former."""
        self._number += 1
        policy = f"policy-{self._number}"
        expiry = datetime.now(UTC) + timedelta(hours=1)
        with self._client() as client:
            client.set_container_access_policy({policy: AccessPolicy("rl", expiry)})
        sas = generate_container_sas(
            self._account_name, self._container, self._key, policy_id=policy
        )
        return {"sas_token": sas}

    def _client(self) -> ContainerClient:
        return ContainerClient.from_connection_string(self._connection_string, self._container)


class TestContract(ConnectorContract):
    connector_class = AzureBlobConnector

    @pytest.fixture(autouse=True)
    def small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ask the service for smaller pages."""

        def read_small_page(service: Any, query: Any, limit: int, marker: str) -> Any:
            return read_page(service, query, min(limit, PAGE), marker)

        for module in (folders, listing):
            monkeypatch.setattr(module, "read_page", read_small_page)

    @pytest.fixture
    def subject(self, azurite: AzuriteServer, container: str) -> Subject:
        system = System(azurite, container)
        options = {
            "container": container,
            "account_url": azurite.blob_endpoint,
            "account_key": azurite.account_key,
            "chunk_size": 1 << 20,
            "retries": 1,  # the emulator fails for good on a few names
        }
        with_sas = {name: value for name, value in options.items() if name != "account_key"}
        nowhere = f"http://{HOST}:{free_port()}/{azurite.account_name}"
        return Subject(
            connector_class=AzureBlobConnector,
            type="azure_blob",
            options=options,
            items=ITEMS,
            missing="2024/nothing.csv",
            tables={"sales.csv": 2, "numbers.parquet": 3},
            counts_rows=False,
            abilities={
                "discover",
                "iter_items",
                "pages",
                "glob",
                "preview",
                "statistics",
                "upload",
                "stream",
                "splits",
            },
            wrong_credentials={
                **options,
                "account_key": base64.b64encode(b"not the account's key").decode(),
            },
            unreachable={**options, "account_url": nowhere},
            large="heavy.bin",
            many=MANY,
            change=system.change,
            rotate=lambda: {**with_sas, **system.rotate()},
            upload_size=9_000_000,
        )
