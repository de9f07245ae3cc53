"""`DataSourceConnector.secret`: resolved when a driver asks, not when the connector was made."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import AliasChoices, Field, SecretStr

from datasources import (
    ConnectError,
    ConnectorOptions,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    OptionError,
    Policy,
    PolicyError,
    SecretNotFoundError,
)
from tests.core.fakes import SeedConnector


class Options(ConnectorOptions):
    token: SecretStr | None = Field(None, validation_alias=AliasChoices("token", "key"))
    host: str = "h"
    port: int = 1


class Connector(SeedConnector):
    type = "late"
    options_class = Options
    options: Options
    shareable = True

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Connect anew inside, as a driver does; the server takes the token of the moment."""
        token = await self.secret("token")
        if identifier == "fail":
            raise ConnectError(f"the server refuses {token}")
        return {"comment": token}


def registry_of(policy: Policy | None = None) -> DataSourceRegistry:
    registry = DataSourceRegistry(policy=policy)
    registry.register_connector_class("late", Connector)
    return registry


async def register(registry: DataSourceRegistry, **options: Any) -> None:
    config = DataSourceConfig("s", DataSourceType("late"), "S", options)
    await registry.register_data_source(config)


@pytest.mark.parametrize("name", ["token", "key"])
async def test_a_connector_in_use_gets_the_secret_of_the_moment(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with registry_of() as registry:
        monkeypatch.setenv("LATE", "first-token")
        await register(registry, **{name: "Bearer ${env:LATE}"})
        seen = []
        for token in ("first-token", "second-token", "third-token"):
            monkeypatch.setenv("LATE", token)
            seen.append((await registry.get_metadata("s", "a.csv", refresh=True))["comment"])
        assert seen == ["Bearer first-token", "Bearer second-token", "Bearer third-token"]
        assert registry.get_pool_stats("s")["connects"] == 1


async def test_a_late_secret_is_masked_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async with registry_of() as registry:
        monkeypatch.setenv("LATE", "first-token")
        await register(registry, token="${env:LATE}")
        await registry.get_metadata("s", "a.csv")
        monkeypatch.setenv("LATE", "second-odd-words")
        with pytest.raises(ConnectError, match="refuses") as caught:
            await registry.get_metadata("s", "fail")
        assert "second-odd-words" not in str(caught.value)


async def test_a_literal_a_default_and_an_option_without_text() -> None:
    async with registry_of() as registry:
        await register(registry, token="literal-token")
        async with registry.connection("s") as connector:
            assert await connector.secret("token") == "literal-token"
            assert await connector.secret("host") == "h"
            with pytest.raises(OptionError, match="option 'port' of source 's' is not a text"):
                await connector.secret("port")
    config = DataSourceConfig("s", DataSourceType("late"), "S", {})
    with pytest.raises(OptionError, match="option 'token' of source 's' is not given"):
        await Connector(config).secret("token")


async def test_a_secret_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with registry_of() as registry:
        monkeypatch.setenv("LATE", "x")
        await register(registry, token="${env:LATE}")
        await registry.get_metadata("s", "a.csv")
        monkeypatch.delenv("LATE")
        with pytest.raises(SecretNotFoundError, match="LATE"):
            await registry.get_metadata("s", "a.csv", refresh=True)


async def test_the_policy_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with registry_of(Policy(allowed_references=("env:LATE",))) as registry:
        monkeypatch.setenv("LATE", "x")
        await register(registry, token="${env:LATE}")
        async with registry.connection("s") as connector:
            connector._stored_options = {"token": "${env:OTHER}"}
            with pytest.raises(PolicyError, match="may not refer to 'env:OTHER'"):
                await connector.secret("token")
