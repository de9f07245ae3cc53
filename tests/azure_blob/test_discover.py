"""Containers that can be chosen before a source exists."""

from __future__ import annotations

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from datasources import (
    AuthenticationError,
    ConnectorError,
    DataSourceRegistry,
    OptionError,
)
from tests.servers.azurite import AzuriteServer
from tests.servers.blob_server import BlobService


async def test_containers_of_the_account_are_found(
    azurite: AzuriteServer, account: BlobServiceClient, container: ContainerClient
) -> None:
    registry = DataSourceRegistry()
    options = {"connection_string": azurite.connection_string}
    found = await registry.discover("azure_blob", options)
    assert found == {"container": sorted(c.name for c in account.list_containers())}
    assert container.container_name in found["container"]


async def test_credentials_that_are_refused_are_an_error(azurite: AzuriteServer) -> None:
    registry = DataSourceRegistry()
    options = {"account_url": azurite.blob_endpoint, "account_key": "b2RkLWtleS1vZGQta2V5"}
    with pytest.raises((AuthenticationError, ConnectorError)) as caught:
        await registry.discover("azure_blob", options)
    assert "b2RkLWtleS1vZGQta2V5" not in str(caught.value)
    with pytest.raises(OptionError, match="give either 'connection_string', or"):
        await registry.discover("azure_blob", {})


async def test_an_answer_that_is_no_xml_is_an_error(service: BlobService) -> None:
    service.page = lambda query: b"<not xml"  # type: ignore[method-assign]
    options = {"account_url": service.url, "credential": "anonymous"}
    with pytest.raises(ConnectorError, match="the list of containers is not XML"):
        await DataSourceRegistry().discover("azure_blob", options)
