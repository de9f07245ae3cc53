"""Networks that the policy denies get no connection: not by a name, a redirect or a proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasources import DataSourceConfig, Policy, PolicyError, PoolConfig
from datasources_azure_blob import AzureBlobConnector
from tests.core.fakes import registry_of
from tests.listeners import listening
from tests.resolvers import DENIED, NAME, ChangingResolver
from tests.servers.scripted import Received, scripted

POLICY = Policy(denied_networks=(f"{DENIED}/32",))
KEY = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="


def config(url: str, **options: Any) -> DataSourceConfig:
    values = {"account_url": url, "account_key": KEY, "container": "data", "retries": 0, **options}
    return DataSourceConfig("s", "memory", "S", values)


@pytest.mark.parametrize("allowed_answers", [1, 0])
async def test_name_that_resolves_to_a_denied_address_meanwhile_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch, allowed_answers: int
) -> None:
    pool = PoolConfig(connect_attempts=1)
    async with (
        listening() as listeners,
        registry_of(AzureBlobConnector, policy=POLICY, pool_config=pool) as registry,
    ):
        ChangingResolver(monkeypatch, allowed_answers=allowed_answers)
        await registry.register_data_source(config(f"http://{NAME}:{listeners.port}/a"))
        with pytest.raises(PolicyError, match=rf"may not use .*{DENIED}; denied"):
            await registry.list_items("s")
        assert listeners.connections == 0


async def test_redirect_of_an_upload_to_a_denied_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    async with listening() as listeners:

        def answer(request: Received) -> tuple[int, dict[str, str], bytes]:
            if request.method == "PUT":
                target = f"http://{DENIED}:{listeners.port}{request.target}"
                return 307, {"Location": target}, b""
            return 200, {"Content-Type": "application/xml"}, b"<EnumerationResults/>"

        async with (
            scripted(answer) as (port, _),
            registry_of(AzureBlobConnector, policy=POLICY) as registry,
        ):
            await registry.register_data_source(config(f"http://127.0.0.1:{port}/a"))
            with pytest.raises(PolicyError, match=f"may not use {DENIED}; denied"):
                await registry.upload("s", str(tmp_path / "x"))
        assert listeners.connections == 0


async def test_proxy_in_a_denied_network_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        listening() as listeners,
        registry_of(AzureBlobConnector, policy=POLICY) as registry,
    ):
        monkeypatch.setenv("http_proxy", f"http://{DENIED}:{listeners.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        await registry.register_data_source(config("http://192.0.2.1/a"))
        with pytest.raises(PolicyError, match=f"may not use {DENIED}; denied"):
            await registry.list_items("s")
        assert listeners.connections == 0


async def test_token_endpoint_in_a_denied_network_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = PoolConfig(connect_attempts=1)
    async with (
        listening() as listeners,
        registry_of(AzureBlobConnector, policy=POLICY, pool_config=pool) as registry,
    ):
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://{DENIED}:{listeners.port}")
        options = {
            "account_url": f"https://127.0.0.1:{listeners.port}",
            "container": "data",
            "retries": 0,
            "tenant_id": "tenant",
            "client_id": "client",
            "client_secret": "secret-of-the-client",
        }
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        with pytest.raises(PolicyError, match=f"may not use .*{DENIED}; denied"):
            await registry.list_items("s")
        assert listeners.connections == 0
