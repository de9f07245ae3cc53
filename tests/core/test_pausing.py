"""Sources that are paused, and sources that are tested before they are stored."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from datasources import (
    AuditLog,
    ConnectError,
    ConnectorError,
    CredentialManager,
    DataSourceRegistry,
    MemoryStore,
    OptionError,
    Policy,
    PolicyError,
    SecretRequiredError,
    SourcePausedError,
    StoredSource,
    StoreError,
    Workspace,
)
from tests.core.fakes import AbleConnector, blocking_registry_of, fresh, registry_of, source
from tests.waiting import wait_until


class GatedConnector(AbleConnector):
    """Fetches when the gate is open."""

    gate: ClassVar[asyncio.Event]

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        await self.gate.wait()
        return await super().fetch_data(identifier, workspace)


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    GatedConnector.gate = asyncio.Event()
    async with registry_of(fresh(GatedConnector)) as registry:
        await registry.register_data_source(source())
        yield registry


async def test_paused_source_refuses_every_operation_with_the_reason(
    registry: DataSourceRegistry, tmp_path: Path
):
    GatedConnector.gate.set()
    await registry.get_metadata("s", "a.csv")
    (tmp_path / "up").touch()
    await registry.pause("s", "moving until noon")
    operations = (
        registry.list_items("s"),
        registry.glob_items("s", "*"),
        registry.expand("s"),
        registry.get_metadata("s", "a.csv"),
        registry.preview("s", "a.csv"),
        registry.statistics("s", "a.csv"),
        registry.upload("s", str(tmp_path / "up")),
        registry.fetch("s", "a.csv", tmp_path),
        registry.fetch_tree("s", None, tmp_path),
        registry.get_connector("s"),
        registry.connection("s").__aenter__(),
        anext(aiter(registry.iter_items("s"))),
    )
    for operation in operations:
        with pytest.raises(SourcePausedError, match="source 's' is paused: moving until noon"):
            await operation
    (result,) = await registry.fetch_many([("s", "a.csv")], tmp_path)
    assert isinstance(result.error, SourcePausedError)
    check = await registry.check_connection("s")
    assert isinstance(check.error, SourcePausedError)
    assert not await registry.test_connection("s")
    assert registry.get_pool_stats("s")["in_use"] == 0
    await registry.resume("s")
    assert len(await registry.list_items("s")) == 2
    await registry.resume("s")  # nothing happens


async def test_paused_source_shows_its_reason_and_can_be_changed_and_removed(
    registry: DataSourceRegistry,
):
    assert registry.get_config("s").paused is None
    first = registry.get_config("s").version
    await registry.pause("s", "why")
    await registry.pause("s", "why")  # once more changes nothing
    assert registry.get_config("s").version == (first or 0) + 1
    await registry.pause("s", "because")
    assert registry.get_config("s").paused == "because"
    assert (await registry.update_data_source("s", {"name": "T"})).paused == "because"
    await registry.register_data_source(source(), replace=True)
    registry.reencrypt()
    assert [config.paused for config in registry.list_data_sources()] == ["because"]
    with pytest.raises(SourcePausedError):
        await registry.list_items("s")
    await registry.unregister_data_source("s")
    await registry.register_data_source(dataclasses.replace(source(), paused="because", version=7))
    assert registry.get_config("s").paused is None


@pytest.mark.parametrize("reason", ["", "  "])
async def test_pausing_needs_a_reason(registry: DataSourceRegistry, reason: str):
    with pytest.raises(OptionError, match="'reason' must be a text that is not empty"):
        await registry.pause("s", reason)


async def test_operations_under_way_end_normally(registry: DataSourceRegistry, tmp_path: Path):
    fetching = asyncio.create_task(registry.fetch("s", "a.csv", tmp_path))
    await wait_until(lambda: registry.get_pool_stats("s")["in_use"] == 1)
    await registry.pause("s", "why")
    with pytest.raises(SourcePausedError):
        await registry.list_items("s")
    await registry.resume("s")
    await registry.list_items("s")
    await registry.pause("s", "again")
    with pytest.raises(SourcePausedError):
        await registry.list_items("s")
    GatedConnector.gate.set()
    assert (await fetching).size == 8


async def test_resuming_connects_with_the_options_of_an_update_meanwhile():
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source(password="first-one"))
        await registry.list_items("s")
        await registry.pause("s", "new password")
        await registry.update_data_source("s", {"config": {"password": "second-one"}})
        await registry.resume("s")
        await registry.list_items("s")
        assert cls.passwords == ["first-one", "second-one"]


async def test_pause_keeps_the_connections_of_every_source_which_closing_closes() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        for name in ("s", "other"):
            await registry.register_data_source(source(name))
            await registry.list_items(name)
        await registry.pause("s", "why")
        await registry.resume("s")
        for name in ("s", "other"):
            await registry.list_items(name)
        assert (cls.connects, cls.live) == (2, 2)
    assert cls.live == 0


async def test_other_process_sees_a_pause_and_its_end(tmp_path: Path):
    key = CredentialManager.generate_key()
    registries = [
        registry_of(
            fresh(), credential_manager=CredentialManager(key), store=tmp_path / "sources.db"
        )
        for _ in range(2)
    ]
    async with registries[0] as mine, registries[1] as other:
        await mine.register_data_source(source())
        await other.list_items("s")
        await mine.pause("s", "why")
        pools = other._pools
        await wait_until(lambda: pools.source_pool("s").paused == "why")
        with pytest.raises(SourcePausedError):
            await other.list_items("s")
        await mine.resume("s")
        await wait_until(lambda: pools.source_pool("s").paused is None)
        assert len(await other.list_items("s")) == 2


class ForgetfulStore(MemoryStore):
    """A store that was written for 0.1.0."""

    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        rows = ([StoredSource.from_row(r.to_row()) for r in records] for records in (add, update))
        super().write(add=next(rows), update=next(rows))


async def test_store_that_cannot_hold_a_pause_says_so():
    async with registry_of(fresh(), store=ForgetfulStore()) as registry:
        await registry.register_data_source(source())
        with pytest.raises(StoreError, match="'s' is not paused: this store cannot hold that"):
            await registry.pause("s", "why")
        await registry.update_data_source("s", {"name": "T"})
        await registry.resume("s")
        assert len(await registry.list_items("s")) == 2


async def test_updates_and_pauses_are_observed(registry: DataSourceRegistry, tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    registry.plugins.register_plugin(AuditLog(log))
    await registry.update_data_source("s", {"name": "T"})
    await registry.pause("s", "why")
    await registry.resume("s")
    with pytest.raises(OptionError):
        await registry.update_data_source("s", {"colour": "red"})
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["operation"], line.get("outcome")) for line in lines] == [
        ("update", "ok"),
        ("registered", None),
        ("pause", "ok"),
        ("resume", "ok"),
        ("update", "OptionError"),
    ]


# Tests before saving.


class BrokenConnector(AbleConnector):
    async def connect(self) -> bool:
        password = self.options.password
        raise RuntimeError(f"refused: {password.get_secret_value() if password else None}")


async def test_source_that_is_not_stored_is_tested():
    cls = fresh()
    async with registry_of(cls) as registry:
        assert await registry.check_config(source(password="pa55-of-it"))
        assert (cls.passwords, cls.live) == (["pa55-of-it"], 0)
        check = await registry.check_config(source(host="unreachable"))
        assert isinstance(check.error, ConnectError)
        assert not registry.exists("s")
        with pytest.raises(OptionError, match="unknown option 'colour'"):
            await registry.check_config(source(colour="red"))


async def test_update_is_tested_as_it_would_be_under_the_rule_of_the_destination():
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source(password="pa55-of-it"))
        before = registry.store.get("s")
        assert await registry.check_update("s", {"config": {"password": "other-pa55"}})
        with pytest.raises(SecretRequiredError):
            await registry.check_update("s", {"config": {"host": "unreachable"}})
        check = await registry.check_update(
            "s", {"config": {"host": "unreachable", "password": "third-pa55"}}
        )
        assert isinstance(check.error, ConnectError)
        assert cls.passwords == ["other-pa55"]
        assert registry.store.get("s") == before


async def test_what_a_connector_raises_is_returned_without_its_secrets():
    async with registry_of(BrokenConnector) as registry:
        await registry.register_data_source(source(password="pa55-of-it"))
        for check in (
            await registry.check_config(source(password="pa55-of-it")),
            await registry.check_update("s", {}),
        ):
            assert isinstance(check.error, ConnectorError)
            assert isinstance(check.error.__cause__, RuntimeError)
            assert str(check.error.__cause__) == "refused: ***REDACTED***"
            assert check.duration >= 0


async def test_source_that_the_policy_refuses_is_not_tested():
    cls = fresh()
    async with registry_of(cls, policy=Policy(allowed_hosts=("localhost",))) as registry:
        with pytest.raises(PolicyError):
            await registry.check_config(source(host="elsewhere"))
        assert cls.connects == 0


def test_all_of_it_works_without_an_event_loop(tmp_path: Path):
    with blocking_registry_of(fresh(AbleConnector)) as registry:
        assert registry.check_config(source())
        registry.register_data_source(source())
        version = registry.get_config("s").version
        assert registry.update_data_source("s", {"name": "T"}, expected=version).name == "T"
        assert registry.check_update("s", {"name": "U"})
        registry.pause("s", "why")
        with pytest.raises(SourcePausedError):
            registry.list_items("s")
        registry.resume("s")
        with registry.workspace("w", root=tmp_path, keep=True) as workspace:
            registry.fetch("s", "a.csv", workspace.path)
            assert isinstance(workspace.path, Workspace)
        assert (tmp_path / "w" / "a.csv").is_file()
        assert registry.sweep_workspaces(tmp_path, 0) == ["w"]
