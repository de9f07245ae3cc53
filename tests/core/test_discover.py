"""What there is to choose from, before a source exists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import Field, SecretStr

from datasources import (
    ConnectError,
    ConnectorError,
    ConnectorOptions,
    DataSourceRegistry,
    Option,
    OptionError,
    Policy,
    PolicyError,
    PoolConfig,
    RegistryError,
    SecretNotFoundError,
    SupportsDiscover,
    abilities,
)
from tests.core.fakes import SeedConnector
from tests.core.tracebacks import local_variables

SECRET = "correct-horse"


class Options(ConnectorOptions):
    discover_defaults: ClassVar[Mapping[str, Any]] = {"shelf": "any"}

    host: str
    port: int = Field(1, ge=1)
    token: SecretStr | None = None
    shelf: str = Option(discovered=True)

    def hosts(self) -> list[str]:
        return [self.host]

    def ambient(self) -> bool:
        return self.port == 99


class Connector(SeedConnector):
    type = "shelves"
    options_class = Options
    asked: ClassVar[list[dict[str, Any]]] = []

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> dict[str, list[str]]:
        cls.asked.append(dict(options))
        if options["host"] == "slow":
            await asyncio.Event().wait()
        if options["host"] == "down":
            raise ConnectError(f"refused {options['token']}")
        return {"shelf": ["a", "b"]}


@pytest.fixture
def registry() -> DataSourceRegistry:
    return registry_of()


def registry_of(
    policy: Policy | None = None, pool_config: PoolConfig | None = None
) -> DataSourceRegistry:
    Connector.asked.clear()
    registry = DataSourceRegistry(policy=policy, pool_config=pool_config)
    registry.register_connector_class("shelves", Connector)
    registry.register_connector_class("seed", SeedConnector)
    return registry


async def test_choices_are_found_with_the_options_that_are_known(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "t")
    options = {"host": "h", "token": "${env:TOKEN}"}
    assert await registry.discover("shelves", options) == {"shelf": ["a", "b"]}
    assert Connector.asked == [{"shelf": "any", "host": "h", "token": "t"}]
    await registry.discover("shelves", {**options, "shelf": "mine"})
    assert Connector.asked[1]["shelf"] == "mine"
    assert registry.list_data_sources() == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, OptionError, "option 'host' is missing"),
        ({"host": "h", "port": 0}, OptionError, "option 'port'"),
        ({"host": "h", "hots": 0}, OptionError, "unknown option 'hots'"),
        ({"host": "${env:NOTHING}"}, SecretNotFoundError, "NOTHING"),
        ({"host": "down", "token": "odd-secret"}, ConnectError, r"^refused [^o]*$"),
    ],
)
async def test_what_is_wrong_is_named(
    registry: DataSourceRegistry, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await registry.discover("shelves", options)


async def test_choices_that_do_not_come_within_the_limit_are_a_connect_error() -> None:
    registry = registry_of(pool_config=PoolConfig(connect_timeout=0.01))
    with pytest.raises(ConnectError, match=r"no answer within 0\.01 seconds"):
        await registry.discover("shelves", {"host": "slow"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "other"}, "may not use the host 'other'"),
        ({"host": "localhost"}, "may not use 'localhost' at"),
        ({"host": "10.0.0.1", "token": "${env:PATH}"}, "may not refer to 'env:PATH'"),
        ({"host": "10.0.0.1", "port": 99}, "may not log in with an identity of this machine"),
    ],
)
async def test_the_policy_of_the_host_holds(options: dict[str, Any], message: str) -> None:
    registry = registry_of(
        Policy(
            allowed_hosts=("localhost", "10.*"),
            allowed_networks=("10.0.0.0/8",),
            allowed_references=("env:TOKEN",),
            allow_ambient=False,
        )
    )
    with pytest.raises(PolicyError, match=message):
        await registry.discover("shelves", options)
    assert Connector.asked == []
    assert await registry.discover("shelves", {"host": "10.0.0.1"})


async def test_others_than_administrators_use_references_that_are_bound_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    registry = registry_of(Policy(allowed_references={"env:TOKEN": ["h"], "env:*": None}))
    with pytest.raises(PolicyError, match="only an administrator may use a reference"):
        await registry.discover(
            "shelves", {"host": "h", "token": "${env:PATH}"}, by_administrator=False
        )
    assert Connector.asked == []
    bound = {"host": "h", "token": "${env:TOKEN}"}
    assert await registry.discover("shelves", bound, by_administrator=False)
    with pytest.raises(PolicyError, match="which is for the hosts h only"):
        await registry.discover("shelves", {**bound, "host": "g"}, by_administrator=False)


@pytest.mark.parametrize("options", [{"host": "down"}, {"host": "h", "port": 0}])
async def test_no_frame_of_a_failed_discovery_shows_a_secret_of_a_reference(
    registry: DataSourceRegistry, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    with pytest.raises((ConnectError, OptionError)) as caught:
        await registry.discover("shelves", {**options, "token": "${env:TOKEN}"})
    assert SECRET not in local_variables(caught.value)


@pytest.mark.parametrize("choices", [None, [("shelf", "a")], {"shelf": 5}])
async def test_choices_that_are_no_lists_by_name_are_a_connector_error(
    registry: DataSourceRegistry, choices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def discover(options: Any, *, check_address: Any) -> Any:
        return choices

    monkeypatch.setattr(Connector, "discover", discover)
    with pytest.raises(ConnectorError, match="the connector 'shelves' of source 'shelves' raised"):
        await registry.discover("shelves", {"host": "h"})


async def test_a_connector_without_the_ability_says_so(registry: DataSourceRegistry) -> None:
    with pytest.raises(RegistryError, match="'seed' cannot say what there is to choose"):
        await registry.discover("seed", {})
    assert issubclass(Connector, SupportsDiscover)
    assert "discover" in abilities(Connector)
    assert "discover" not in abilities(SeedConnector)
