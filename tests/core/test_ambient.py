"""Identities of the machine, which a policy can refuse."""

from __future__ import annotations

from typing import Any

import pytest

from datasources import (
    ConnectorOptions,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    MemoryStore,
    OptionError,
    Policy,
    PolicyError,
)
from datasources.credentials import CredentialManager
from tests.core.fakes import SeedConnector

REFUSED = "source 's' may not log in with an identity of this machine"


class Options(ConnectorOptions):
    login: str = "own"
    limit: int = 1

    def ambient(self) -> bool:
        return self.login == "machine"


class Connector(SeedConnector):
    type = "ambient"
    options_class = Options


def source(**options: Any) -> DataSourceConfig:
    return DataSourceConfig("s", DataSourceType("ambient"), "S", options)


def registry_of(
    store: MemoryStore, manager: CredentialManager, *, allow: bool
) -> DataSourceRegistry:
    registry = DataSourceRegistry(manager, store=store, policy=Policy(allow_ambient=allow))
    registry.register_connector_class("ambient", Connector)
    return registry


async def test_an_identity_of_the_machine_is_refused_when_registered_and_when_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, manager = MemoryStore(), CredentialManager()
    strict = registry_of(store, manager, allow=False)
    with pytest.raises(PolicyError, match=REFUSED):
        await strict.register_data_source(source(login="machine"))
    await strict.register_data_source(source())
    with pytest.raises(PolicyError, match=REFUSED):
        await strict.register_data_source(source(login="machine"), replace=True)
    await registry_of(store, manager, allow=True).register_data_source(
        source(login="machine"), replace=True
    )
    with pytest.raises(PolicyError, match=REFUSED):  # stored under another policy
        await strict.list_items("s")
    # A reference hides the identity until it is resolved.
    monkeypatch.setenv("LOGIN", "machine")
    monkeypatch.setenv("LIMIT", "2")
    await strict.register_data_source(
        source(login="${env:LOGIN}", limit="${env:LIMIT}"), replace=True
    )
    with pytest.raises(PolicyError, match=REFUSED):
        await strict.list_items("s")


async def test_it_is_allowed_by_default() -> None:
    registry = DataSourceRegistry()
    registry.register_connector_class("ambient", Connector)
    await registry.register_data_source(source(login="machine"))
    assert await registry.list_items("s")
    with pytest.raises(OptionError, match="'allow_ambient' must be true or false"):
        Policy(allow_ambient="no")  # type: ignore[arg-type]
