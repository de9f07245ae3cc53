"""The plugin as hosts have it: discovered, light, used through the registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from datasources import (
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    FetchRequest,
    Policy,
    PolicyError,
)
from tests.azure_blob.test_connecting import container_sas
from tests.servers import AzuriteServer
from tests.servers.blob_server import BlobService

DRIVERS = {"aiohttp", "azure", "pydantic", "yarl", "ssl"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import datasources_azure_blob.plugin", DRIVERS),
        ("import datasources_azure_blob", DRIVERS),
        ("from datasources_azure_blob import AzureBlobConnector", {"azure"}),
    ],
)
def test_import_loads_no_more_than_it_must(code: str, absent: set[str]) -> None:
    script = f"{code}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    loaded = {name.partition(".")[0] for name in done.stdout.decode().split()}
    assert not absent & loaded


async def test_tree_of_a_pattern_is_fetched_with_receipts_through_the_registry(
    azurite: AzuriteServer, container: ContainerClient, tmp_path: Path
) -> None:
    names = [f"sales/2024/{month:02}.csv" for month in range(1, 13)]
    etags = {name: container.upload_blob(name, name.encode()) for name in names}
    container.upload_blob("sales/2023/01.csv", b"")
    sas = container_sas(azurite, container, "rl")
    config = DataSourceConfig(
        id="blobs",
        type=DataSourceType.AZURE_BLOB,
        name="Blobs",
        config={
            "account_url": f"{azurite.blob_endpoint}?{sas}",
            "container_name": container.container_name,
        },
    )
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(config, test_connection=True)
        items = await registry.glob_items("blobs", "sales/2024/*.csv")
        requests = [FetchRequest("blobs", item.path) for item in items]
        results = await registry.fetch_many(requests, tmp_path)
        assert sas not in repr(registry.get_config("blobs"))
        assert "sig=" not in repr(registry.list_data_sources()).replace("sig=***REDACTED***", "")
    assert [item.path for item in items] == names
    for name, result in zip(names, results, strict=True):
        assert result.receipt is not None, result.error
        etag = etags[name].get_blob_properties().etag.strip('"')
        assert (result.receipt.version, result.receipt.size) == (etag, len(name))
        assert (tmp_path / name).read_bytes() == name.encode()
    assert not (tmp_path / "sales" / "2023").exists()


@pytest.mark.parametrize("path", ["sales", "sales/**", "sales/2024/*.csv", None])
async def test_second_fetch_of_a_tree_brings_only_what_has_changed(
    path: str | None, tmp_path: Path
) -> None:
    async with BlobService() as service, DataSourceRegistry() as registry:
        for month in range(1, 13):
            service.put(f"sales/2024/{month:02}.csv", b"old" * month)
        await registry.register_data_source(
            DataSourceConfig(
                "blobs",
                DataSourceType.AZURE_BLOB,
                "",
                {"account_url": service.url, "container": "data", "credential": "anonymous"},
            )
        )
        first = await registry.fetch_tree("blobs", path, tmp_path)
        etags = {name: blob.etag.strip('"') for name, blob in service.blobs.items()}
        receipts = [result.receipt for result in first]
        assert {r.identifier: r.version for r in receipts if r} == etags
        assert not any(r.unchanged for r in receipts if r)
        service.put("sales/2024/07.csv", b"new")
        service.requests.clear()
        second = await registry.fetch_tree("blobs", path, tmp_path)
        changed = [r.identifier for each in second if (r := each.receipt) and not r.unchanged]
        assert changed == ["sales/2024/07.csv"]
        assert {r.blob for r in service.requests} == {"", "sales/2024/07.csv"}
        assert len(second) == 12
    assert (tmp_path / "sales/2024/07.csv").read_bytes() == b"new"


async def test_host_that_the_policy_does_not_allow_is_refused() -> None:
    text = "BlobEndpoint=http://10.0.0.7:10000/a;SharedAccessSignature=sig=x"
    config = DataSourceConfig(
        "blobs", DataSourceType.AZURE_BLOB, "", {"connection_string": text, "container": "data"}
    )
    policy = Policy(allowed_hosts=("*.blob.core.windows.net",))
    async with DataSourceRegistry(policy=policy) as registry:
        with pytest.raises(PolicyError, match=r"10\.0\.0\.7"):
            await registry.register_data_source(config)
        assert not registry.exists("blobs")
