"""Sources are listed page by page, and found by type and by parts of their names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ConflictError,
    CredentialManager,
    DataSourceConfig,
    DataSourceRegistry,
    Grant,
    Operation,
    OptionError,
    Policy,
    PolicyError,
    Principal,
    UnsupportedError,
    blocking,
    hookimpl,
)
from tests.core.fakes import (
    AbleConnector,
    CountingStore,
    MemoryConnector,
    fresh,
    registry_of,
    source,
)

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(AbleConnector, store=CountingStore()) as registry:
        registry.register_connector_class("other", MemoryConnector)
        for source_id in IDS:
            config = source(source_id, "other" if source_id == "d" else "memory")
            config.name = f"Straße {source_id.upper()}"
            await registry.register_data_source(config)
        yield registry


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcde"),
    ({"limit": 2}, "ab"),
    ({"after": "b"}, "cde"),
    ({"after": "bb", "limit": 1}, "c"),
    ({"after": "e"}, ""),
    ({"after": ""}, "abcde"),
    ({"type": "other"}, "d"),
    ({"type": "memory", "after": "c"}, "e"),
    ({"type": "no type"}, ""),
    ({"q": "D"}, "d"),
    ({"q": "STRASSE C"}, "c"),
    ({"q": "straße", "limit": 3}, "abc"),
    ({"q": "*"}, ""),
]


@pytest.mark.parametrize(("chosen", "ids"), FILTERS, ids=str)
async def test_sources_are_listed_by_page_type_and_name(
    registry: DataSourceRegistry, chosen: dict[str, Any], ids: str
) -> None:
    def of(configs: list[DataSourceConfig]) -> str:
        return "".join(config.id for config in configs)

    grants = [Grant(source_id, {"read"}) for source_id in (*reversed(IDS), "gone")]
    ann = registry.access(Principal("ann", grants=grants))
    assert of(registry.list_data_sources(**chosen)) == ids
    assert of(await registry.access(Principal("root", {"admin"})).list_sources(**chosen)) == ids
    assert of(await ann.list_sources(**chosen)) == ids
    async with ann.workspace("w") as session:
        assert of(await session.list_sources(**chosen)) == ids


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "1"])
async def test_limit_is_a_whole_number(registry: DataSourceRegistry, limit: Any) -> None:
    for attempt in (
        lambda: registry.list_data_sources(limit=limit),
        lambda: registry.list_data_sources(limit=limit, after="z"),
    ):
        with pytest.raises(OptionError, match="'limit' must be at least 1"):
            attempt()


async def test_a_page_of_granted_sources_reads_no_others(registry: DataSourceRegistry) -> None:
    store: Any = registry.store
    ann = registry.access(Principal("ann", grants=[Grant(name, {"read"}) for name in IDS]))
    store.asked = 0
    assert len(await ann.list_sources(after="b", limit=2)) == 2
    assert store.asked == 2


# Replacing the version that was seen.


async def test_a_source_is_replaced_only_in_the_version_expected(
    registry: DataSourceRegistry,
) -> None:
    seen = registry.get_config("a").version
    await registry.register_data_source(source("a", port=2), replace=True, expected=seen)
    now = registry.get_config("a").version
    assert registry.get_config("a").config["port"] == 2
    for expected in (seen, 99):
        with pytest.raises(ConflictError, match=f"has version {now}, and not {expected} as exp"):
            await registry.register_data_source(source("a"), replace=True, expected=expected)
    with pytest.raises(OptionError, match="'expected' must be a version"):
        await registry.register_data_source(source("a"), replace=True, expected=-1)
    with pytest.raises(OptionError, match="of a source that is replaced"):
        await registry.register_data_source(source("a"), expected=now)
    await registry.unregister_data_source("a")
    with pytest.raises(Exception, match="no source 'a'"):
        await registry.register_data_source(source("a"), replace=True, expected=now)
    assert not registry.exists("a")


async def test_who_writes_between_check_and_write_is_not_overwritten(tmp_path: Path) -> None:
    manager = CredentialManager(CredentialManager.generate_key())
    async with registry_of(
        AbleConnector, credential_manager=manager, store=tmp_path / "s.db"
    ) as registry:
        await registry.register_data_source(source("a"))
        seen = registry.get_config("a").version
        save = registry._records.save

        def overtaken(configs: Any, **arguments: Any) -> None:
            registry._records.set_paused("a", "faster")
            save(configs, **arguments)

        registry._records.save = overtaken  # type: ignore[method-assign]
        with pytest.raises(ConflictError):
            await registry.register_data_source(source("a", port=2), replace=True, expected=seen)
        assert registry.get_config("a").config == {}


# Validating without a connection.


async def test_a_source_is_validated_without_a_connection_and_not_stored() -> None:
    policy = Policy(allowed_hosts=("localhost",), allowed_references={"env:*": None})
    connector = fresh(AbleConnector)
    async with registry_of(connector, policy=policy) as registry:
        await registry.validate_config(source("s"))
        for config, error in (
            (source("s", host="evil"), PolicyError),
            (source("s", port="many"), OptionError),
        ):
            with pytest.raises(error):
                await registry.validate_config(config)
        unbound = source("s", password="${env:P}")
        await registry.validate_config(unbound)
        with pytest.raises(PolicyError, match="only an administrator"):
            await registry.validate_config(unbound, by_administrator=False)
        assert registry.list_data_sources() == []
        assert connector.connects == 0
    with pytest.raises(Exception, match="closed"):
        await registry.validate_config(source("s"))


def test_the_blocking_registry_validates_and_pages() -> None:
    with blocking.DataSourceRegistry() as registry:
        registry.register_connector_class("memory", AbleConnector)
        registry.validate_config(source("a"))
        for source_id in IDS:
            registry.register_data_source(source(source_id))
        assert [c.id for c in registry.list_data_sources(after="b", limit=2)] == ["c", "d"]
        seen = registry.get_config("a").version
        registry.register_data_source(source("a", port=2), replace=True, expected=seen)
        with pytest.raises(ConflictError):
            registry.register_data_source(source("a", port=3), replace=True, expected=seen)


async def test_observers_see_discover_under_the_name_of_the_type() -> None:
    seen: list[tuple[str, str, bool]] = []

    class Audit:
        @hookimpl
        def datasources_operation_finished(
            self, operation: Operation, error: BaseException | None
        ) -> None:
            seen.append((operation.name, operation.source_id, error is not None))

    async with registry_of(AbleConnector) as registry:
        registry.plugins.register_plugin(Audit())
        with pytest.raises(UnsupportedError):
            await registry.discover("memory", {})
    assert seen == [("discover", "memory", True)]
