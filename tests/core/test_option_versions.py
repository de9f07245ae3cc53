"""Options of stored sources that a newer connector has renamed or removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from datasources import (
    ConnectorOptions,
    CredentialManager,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    MemoryStore,
    OptionError,
)
from tests.core.fakes import SeedConnector

KEY, NEW_KEY = CredentialManager.generate_key(), CredentialManager.generate_key()


class First(ConnectorOptions):
    server: str
    password: SecretStr
    colour: str = "red"


class Third(ConnectorOptions):
    options_version: ClassVar[int] = 3
    versions: ClassVar[list[int]] = []
    error: ClassVar[type[BaseException]] = KeyError

    host: str
    password: SecretStr

    @classmethod
    def migrate(cls, values: Mapping[str, Any], from_version: int) -> dict[str, Any]:
        cls.versions.append(from_version)
        if values["server"] == "odd-secret":
            raise cls.error(values["server"])
        kept = {name: value for name, value in values.items() if name not in ("server", "colour")}
        return {**kept, "host": values["server"]}


def registry_of(
    store: MemoryStore, options: type[ConnectorOptions], *keys: str
) -> DataSourceRegistry:
    connector = type("Connector", (SeedConnector,), {"type": "versions", "options_class": options})
    registry = DataSourceRegistry(CredentialManager(keys or (KEY,)), store=store)
    registry.register_connector_class("versions", connector)
    return registry


def source(**options: Any) -> DataSourceConfig:
    return DataSourceConfig("s", DataSourceType("versions"), "S", options)


async def old_store(server: str = "h") -> MemoryStore:
    store = MemoryStore()
    await registry_of(store, First).register_data_source(
        source(server=server, password="${env:PW}", colour="blue")
    )
    return store


async def test_options_of_a_stored_source_are_migrated_when_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PW", "x")
    store = await old_store()
    registry = registry_of(store, Third)
    Third.versions.clear()
    async with registry.connection("s") as connector:
        assert connector.options.host == "h"
    assert (await registry.check_connection("s")).ok
    migrated = {"host": "h", "password": "${env:PW}"}
    assert registry.get_config("s", decrypt=True, sanitize=False).config == migrated
    assert Third.versions == [1, 1, 1]


async def test_the_next_save_stores_the_new_version() -> None:
    store = await old_store()
    registry = registry_of(store, Third)
    config = registry.get_config("s", decrypt=True, sanitize=False)
    await registry.register_data_source(config, replace=True)
    Third.versions.clear()
    assert registry.get_config("s", decrypt=True, sanitize=False).config == config.config
    assert Third.versions == []


async def test_changing_the_key_keeps_the_version() -> None:
    store = await old_store()
    assert registry_of(store, First, NEW_KEY, KEY).reencrypt().failed == {}
    registry = registry_of(store, Third, NEW_KEY)
    assert registry.get_config("s", decrypt=True, sanitize=False).config["host"] == "h"
    await registry.register_data_source(source(host="h", password="x"), replace=True)
    registry_of(store, Third, KEY, NEW_KEY).reencrypt()
    Third.versions.clear()
    config = registry_of(store, Third).get_config("s", decrypt=True, sanitize=False)
    assert config.config["host"] == "h"
    assert Third.versions == []


async def test_options_of_a_newer_connector_are_named() -> None:
    store = await old_store()
    await registry_of(store, Third).register_data_source(
        source(host="h", password="x"), replace=True
    )
    registry = registry_of(store, First)
    message = "source 's' has options of version 3, and the installed connector .* has version 1"
    with pytest.raises(OptionError, match=message):
        await registry.list_items("s")
    assert [config.id for config in registry.list_data_sources()] == ["s"]


@pytest.mark.parametrize("error", [KeyError, SystemExit])
async def test_a_failed_migration_shows_no_value(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Third, "error", error)
    store = await old_store(server="odd-secret")
    reason = rf"cannot migrate them to version 3: {error.__name__}$"
    with pytest.raises(OptionError, match=reason) as caught:
        await registry_of(store, Third).list_items("s")
    assert caught.value.__context__ is None


async def test_a_store_without_versions_is_of_the_first_one() -> None:
    manager = CredentialManager(KEY)
    encrypted = manager.encrypt_credentials({"a": 1}, source_id="s")
    assert manager.decrypt_with_version(encrypted, source_id="s") == ({"a": 1}, 1)
    encrypted = manager.encrypt_credentials({"a": 1}, source_id="s", options_version=7)
    assert manager.decrypt_with_version(encrypted, source_id="s") == ({"a": 1}, 7)
    assert manager.decrypt_credentials(encrypted, source_id="s") == {"a": 1}


async def test_options_can_be_read_without_their_connector() -> None:
    store = await old_store()
    registry = DataSourceRegistry(CredentialManager(KEY), store=store)
    assert registry.get_config("s", decrypt=True, sanitize=False).config["server"] == "h"
