"""A SAS that was replaced is used after the service refuses the old one."""

from __future__ import annotations

import pytest

from datasources import (
    AuthenticationError,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    PermissionDeniedError,
)
from tests.servers.blob_server import BlobService, Fault, Request


def sas(signature: str) -> str:
    return f"sv=2024-11-04&sr=c&sp=rl&sig={signature}"


@pytest.mark.parametrize("option", ["sas_token", "connection_string"])
async def test_a_source_outlives_its_sas(
    service: BlobService, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    valid = "signature-0"

    def refuse(request: Request) -> Fault | None:
        if request.query.get("sig") == valid:
            return None
        return Fault(status=403, code="AuthenticationFailed")

    service.fault = refuse
    service.put("a.csv", b"x\n")
    options = {"container": "data", "account_url": service.url, "sas_token": "${env:LATE_SAS}"}
    if option == "connection_string":
        options = {
            "container": "data",
            "connection_string": f"BlobEndpoint={service.url};SharedAccessSignature=${{env:LATE_SAS}}",
        }
    async with DataSourceRegistry() as registry:
        for index in range(4):
            valid = f"signature-{index}"
            monkeypatch.setenv("LATE_SAS", sas(valid))
            if index == 0:
                config = DataSourceConfig("s", DataSourceType.AZURE_BLOB, "S", options)
                await registry.register_data_source(config)
                await registry.list_items("s")
            service.requests.clear()
            assert [item.path for item in await registry.list_items("s")] == ["a.csv"]
            refused = [r for r in service.requests if r.query["sig"] != valid]
            assert len(refused) == (1 if index else 0)
        assert registry.get_pool_stats("s")["connects"] == 1
        valid = "another"  # a SAS that was not replaced is refused at once
        service.requests.clear()
        with pytest.raises((AuthenticationError, PermissionDeniedError)) as caught:
            await registry.list_items("s")
        assert "signature-3" not in str(caught.value)
