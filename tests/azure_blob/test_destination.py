"""A key, SAS or client secret goes nowhere but where it was given for, whichever option is changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from datasources import ConnectorError, DataSourceConfig, DataSourceRegistry, SecretRequiredError
from datasources.options import destinations
from datasources_azure_blob import AzureBlobConnector, AzureBlobOptions
from tests.core.fakes import registry_of
from tests.listeners import Listeners, listening

KEY = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
SIG = "Zm9yZ2VkLXNpZ25hdHVyZS9vZi9zb21lb25l"
SAS = f"sv=2024-11-04&sr=c&sp=rl&sig={SIG}"
TENANT = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def listeners() -> AsyncIterator[Listeners]:
    async with listening() as listeners:
        yield listeners


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(AzureBlobConnector) as registry:
        yield registry


def url(listeners: Listeners, *, host: bool = False, port: bool = False, path: str = "a") -> str:
    name = listeners.other_host if host else listeners.host
    return f"http://{name}:{listeners.other_port if port else listeners.port}/{path}"


def connection_string(url: str, key: str = KEY) -> str:
    return f"AccountName=a;AccountKey={key};BlobEndpoint={url}"


async def add(registry: DataSourceRegistry, **options: Any) -> None:
    values = {"container": "data", "retries": 0, **options}
    await registry.register_data_source(DataSourceConfig("s", "memory", "S", values))


ACCOUNTS: dict[str, Callable[[Listeners], dict[str, Any]]] = {
    "key": lambda x: {"account_url": url(x), "account_key": KEY},
    "sas": lambda x: {"account_url": url(x), "sas_token": SAS},
}
CHANGES: dict[str, Callable[[Listeners], dict[str, Any]]] = {
    "host": lambda x: {"account_url": url(x, host=True)},
    "port": lambda x: {"account_url": url(x, port=True)},
    "account": lambda x: {"account_url": url(x, path="b")},
    "TLS": lambda x: {"account_url": url(x).replace("http:", "https:")},
    "reference": lambda x: {"account_url": "${env:URL}"},
    "name": lambda x: {"account_name": "b"},
}


@pytest.mark.parametrize("account", ["key", "sas"])
@pytest.mark.parametrize("change", CHANGES)
async def test_changed_destination_receives_no_byte(
    registry: DataSourceRegistry, listeners: Listeners, account: str, change: str
):
    await add(registry, **ACCOUNTS[account](listeners))
    before = registry.store.get("s")
    changes = {"config": CHANGES[change](listeners)}
    for operation in (
        registry.update_data_source("s", changes),
        registry.update_data_source("s", changes, test_connection=True),
        registry.check_update("s", changes),
    ):
        with pytest.raises(SecretRequiredError) as caught:
            await operation
        assert caught.value.options == (("account_key",) if account == "key" else ("sas_token",))
    await asyncio.sleep(0)
    assert listeners.received == 0
    assert registry.store.get("s") == before


@pytest.mark.parametrize("account", ["key", "sas"])
@pytest.mark.parametrize("change", ["host", "port", "account"])
async def test_listener_hears_of_a_change_that_gives_the_secret_again(
    registry: DataSourceRegistry, listeners: Listeners, account: str, change: str
):
    await add(registry, **ACCOUNTS[account](listeners))
    config = ACCOUNTS[account](listeners) | CHANGES[change](listeners)
    with pytest.raises(ConnectorError):
        await registry.update_data_source("s", {"config": config}, test_connection=True)
    assert listeners.received > 0


async def test_connection_string_names_the_destination_and_is_the_secret(
    registry: DataSourceRegistry, listeners: Listeners
):
    await add(registry, connection_string=connection_string(url(listeners)))
    for text in (connection_string(url(listeners, host=True)), "${env:STRING}"):
        await registry.update_data_source("s", {"config": {"connection_string": text}})
    with pytest.raises(SecretRequiredError) as caught:
        await registry.update_data_source("s", {"config": {"account_name": "b"}})
    assert caught.value.options == ("connection_string",)
    assert listeners.received == 0


@pytest.mark.parametrize(
    "change",
    [{"tenant_id": "11111111-0000-0000-0000-000000000000"}, {"client_id": "another"}],
)
async def test_other_authority_or_role_needs_the_client_secret_again(
    registry: DataSourceRegistry, change: dict[str, Any]
):
    await add(
        registry,
        account_url="https://a.blob.core.windows.net",
        tenant_id=TENANT,
        client_id=TENANT,
        client_secret="the-client-secret",
    )
    with pytest.raises(SecretRequiredError) as caught:
        await registry.update_data_source("s", {"config": change})
    assert caught.value.options == ("client_secret",)


@pytest.mark.parametrize(
    "change",
    [
        {"container": "other"},
        {"prefix": "a/b"},
        {"retries": 3},
        {"check_md5": False},
        {"account_key": "b3RoZXIta2V5"},
        {"account_key": "${env:KEY}"},
        {"account_url": "https://a.blob.core.windows.net/"},
        {"container": "${env:CONTAINER}"},
        {"chunk_size": "${env:SIZE}"},
    ],
)
async def test_other_changes_need_no_secret(registry: DataSourceRegistry, change: dict[str, Any]):
    await add(registry, account_url="https://a.blob.core.windows.net", account_key=KEY)
    await registry.update_data_source("s", {"config": change})


@pytest.mark.parametrize(
    "values",
    [
        {"connection_string": connection_string("http://127.0.0.1:1/a")},
        {"connection_string": connection_string("http://127.0.0.1:1/a", "${env:KEY}")},
        {"connection_string": "${env:STRING}"},
        {"account_url": f"https://a.blob.core.windows.net?{SAS}"},
        {"account_url": f"https://a.blob.core.windows.net?{SAS}", "chunk_size": "${env:SIZE}"},
    ],
)
def test_destination_holds_no_secret_and_is_the_same_for_the_same_options(values: dict[str, Any]):
    values = {"container": "data", **values}
    name = "connection_string" if "connection_string" in values else "account_url"
    other = {**values, name: str(values[name]).replace("a.blob", "b.blob").replace(":1/", ":2/")}
    one, two, changed = destinations(AzureBlobOptions, values, dict(values), other)
    assert one == two
    assert (one != changed) == (values != other)
    assert KEY not in str(one)
    assert SIG not in str(one)
