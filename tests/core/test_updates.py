"""Updates of stored sources: merged, compared, and with every secret again where it matters."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import AliasChoices, BaseModel, Field, SecretStr

from datasources import (
    ConflictError,
    ConnectError,
    ConnectorOptions,
    CredentialManager,
    DataSourceNotFoundError,
    DataSourceRegistry,
    Limits,
    OptionError,
    Policy,
    PolicyError,
    SecretRequiredError,
    StoredSource,
    StoreError,
)
from datasources.registry.updates import merge_patch
from tests.core.fakes import (
    SeedConnector,
    fresh,
    registry_of,
    source,
)
from tests.waiting import wait_until

SECRET = "pa55-of-the-source"
OTHER = "0ther-pa55"


class Tls(BaseModel):
    verify: bool = True
    key: SecretStr | None = None


class PlaceOptions(ConnectorOptions):
    host: str = Field(validation_alias=AliasChoices("host", "server"))
    port: int = 1
    password: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("password", "secret")
    )
    token: SecretStr | None = None
    tls: Tls | None = None
    note: str = ""
    dsn: SecretStr | None = None

    def hosts(self) -> list[str]:
        return [self.host]


class PlaceConnector(SeedConnector):
    """Declares no destination, so that every option counts that is no secret."""

    options_class = PlaceOptions


class NarrowOptions(PlaceOptions):
    def destination(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port}


class NarrowConnector(SeedConnector):
    options_class = NarrowOptions


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(NarrowConnector) as registry:
        yield registry


async def add(registry: DataSourceRegistry, **options: Any) -> None:
    await registry.register_data_source(source(**options))


def clear(registry: DataSourceRegistry, source_id: str = "s") -> dict[str, Any]:
    return registry.get_config(source_id, decrypt=True, sanitize=False).config


# Merging. The cases are those of RFC 7396, appendix A.


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_changes_are_a_merge_patch(target: Any, patch: Any, merged: Any):
    assert merge_patch(target, patch) == merged


async def test_what_is_left_out_stays_and_none_removes(registry: DataSourceRegistry):
    config = source(host="h", password=SECRET, note="n", tls={"verify": False, "key": "k3y"})
    config.metadata = {"owner": "ops", "tags": {"a": 1, "b": 2}}
    config.limits = Limits(max_rows=5, max_bytes=6)
    await registry.register_data_source(config)
    changed = await registry.update_data_source(
        "s",
        {
            "name": "New",
            "config": {"note": None, "tls": {"verify": True}},
            "metadata": {"owner": None, "tags": {"a": None, "c": [3]}},
            "limits": {"max_rows": 7, "timeout": None},
        },
    )
    now = registry.get_config("s", decrypt=True, sanitize=False)
    assert now.config == {"host": "h", "password": SECRET, "tls": {"verify": True, "key": "k3y"}}
    assert (now.name, now.metadata) == ("New", {"tags": {"b": 2, "c": [3]}})
    assert now.limits == Limits(max_rows=7, max_bytes=6, timeout=None)
    assert (now.id, now.type, now.created_at) == (config.id, config.type, config.created_at)
    assert changed == registry.get_config("s")
    assert SECRET not in repr(changed.config)
    assert changed.version == now.version
    await registry.update_data_source("s", {"metadata": None, "limits": None})
    now = registry.get_config("s")
    assert (now.metadata, now.limits) == ({}, None)
    await registry.update_data_source("s", {"limits": {"max_rows": 1}})
    assert registry.get_config("s").limits == Limits(max_rows=1)


async def test_alias_changes_the_option_whichever_name_it_was_stored_under(
    registry: DataSourceRegistry,
):
    await add(registry, server="h", secret=SECRET)
    await registry.update_data_source("s", {"config": {"password": OTHER}})
    assert clear(registry) == {"server": "h", "password": OTHER}
    with pytest.raises(SecretRequiredError) as caught:
        await registry.update_data_source("s", {"config": {"host": "g"}})
    assert caught.value.options == ("password",)
    await registry.update_data_source("s", {"config": {"host": "g", "secret": SECRET}})
    assert clear(registry) == {"host": "g", "secret": SECRET}
    await registry.update_data_source("s", {"config": {"password": None}})
    assert clear(registry) == {"host": "g"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "h"}, "unknown 'host'; .* options stand under 'config'"),
        ({"type": "memory"}, "'type' cannot be changed"),
        ({"id": "t"}, "'id' cannot be changed"),
        ({"created_at": 1}, "'created_at' cannot be changed"),
        ({"name": None}, "'name' must be text"),
        ({"name": 1}, "'name' must be text"),
        ({"config": []}, "the changes of 'config' must be a mapping"),
        ({"metadata": "x"}, "the changes of 'metadata' must be a mapping"),
        ({"limits": {"rows": 1}}, "'limits': unknown 'rows'"),
        ({"limits": {"max_rows": -1}}, "'max_rows' must be"),
        ({"config": None}, "option 'host' is missing"),
        ({"config": {"colour": "red"}}, "unknown option 'colour'"),
        ({"config": {"port": "many"}}, "option 'port'"),
        ({"config": {"password": "***REDACTED***"}}, "'password' comes from a masked copy"),
        ({"config": {"tls": {"key": "***REDACTED***"}}}, "'tls' comes from a masked copy"),
        ({"config": {"note": float("nan")}}, "values that JSON can hold"),
        ({"config": {"password": SecretStr("x")}}, "values that JSON can hold"),
        ([], "changes are a mapping"),
        ("name", "changes are a mapping"),
    ],
)
async def test_malformed_changes_are_refused_and_change_nothing(
    registry: DataSourceRegistry, changes: Any, message: str
):
    await add(registry, host="h", password=SECRET)
    before = registry.store.get("s")
    with pytest.raises(OptionError, match=message) as caught:
        await registry.update_data_source("s", changes)
    assert SECRET not in str(caught.value)
    assert registry.store.get("s") == before


async def test_changes_nested_without_end_are_refused(registry: DataSourceRegistry):
    await add(registry, host="h")
    deep: dict[str, Any] = {}
    deep["again"] = deep
    with pytest.raises(OptionError, match="values that JSON can hold"):
        await registry.update_data_source("s", {"metadata": deep})


async def test_metadata_nested_deeper_than_64_levels_are_refused(registry: DataSourceRegistry):
    def nested(levels: int) -> dict[str, Any]:
        value: Any = "leaf"
        for level in range(levels):
            value = {"below": value} if level % 2 else [value]
        return {"top": value}

    await add(registry, host="h")
    await registry.update_data_source("s", {"metadata": nested(63)})
    for levels in (64, 800):
        with pytest.raises(OptionError, match="64 levels deep, and no deeper"):
            await registry.update_data_source("s", {"metadata": nested(levels)})
        deep = source("deep", host="h")
        deep.metadata = nested(levels)
        with pytest.raises(OptionError, match="64 levels deep, and no deeper"):
            await registry.register_data_source(deep)
    assert [config.id for config in registry.list_data_sources()] == ["s"]


async def test_masked_copy_is_refused_where_the_connector_declares_no_options():
    async with registry_of(SeedConnector) as registry:
        await add(registry, password=SECRET)
        with pytest.raises(OptionError, match="'password' comes from a masked copy"):
            await registry.update_data_source("s", {"config": registry.get_config("s").config})
        assert clear(registry) == {"password": SECRET}


async def test_unknown_source_cannot_be_updated(registry: DataSourceRegistry):
    for operation in (
        registry.update_data_source("none", {}),
        registry.check_update("none", {}),
        registry.pause("none", "why"),
        registry.resume("none"),
    ):
        with pytest.raises(DataSourceNotFoundError):
            await operation


# Versions.


async def test_version_is_shown_and_rises(registry: DataSourceRegistry):
    assert source().version is None
    await add(registry, host="h")
    first = registry.get_config("s")
    assert first.version
    assert registry.list_data_sources()[0].version == first.version
    second = await registry.update_data_source("s", {"name": "T"}, expected=first.version)
    assert second.version
    assert second.version > first.version
    assert second != first
    second.name = first.name
    assert second == first  # the version is no part of what they are compared by
    await registry.register_data_source(second, replace=True)
    third = registry.get_config("s").version
    assert third
    assert third > second.version


async def test_another_version_is_a_conflict_that_names_both(registry: DataSourceRegistry):
    await add(registry, host="h")
    old = registry.get_config("s").version
    new = (await registry.update_data_source("s", {"name": "T"})).version
    with pytest.raises(ConflictError, match=f"has version {new}, and not {old} as expected"):
        await registry.update_data_source("s", {"name": "U"}, expected=old)
    with pytest.raises(ConflictError, match="and not 99 as expected"):
        await registry.update_data_source("s", {"name": "U"}, expected=99)
    assert registry.get_config("s").name == "T"


_OTHERS: dict[str, Callable[[DataSourceRegistry, int], Awaitable[object]]] = {
    "pause": lambda registry, version: registry.pause("s", "why", expected=version),
    "resume": lambda registry, version: registry.resume("s", expected=version),
    "remove": lambda registry, version: registry.unregister_data_source("s", expected=version),
}


@pytest.mark.parametrize("name", _OTHERS)
async def test_pauses_and_removals_hold_for_the_expected_version_only(
    registry: DataSourceRegistry, name: str
):
    await add(registry, host="h")
    seen = registry.get_config("s").version
    assert seen
    await registry.update_data_source("s", {"name": "Of somebody else"})
    if name == "resume":
        await registry.pause("s", "why")
    before = registry.get_config("s")
    assert before.version
    with pytest.raises(ConflictError, match=f"has version {before.version}, and not {seen} as"):
        await _OTHERS[name](registry, seen)
    assert registry.get_config("s") == before
    await _OTHERS[name](registry, before.version)
    after = registry.get_config("s").paused if registry.exists("s") else "removed"
    assert after != before.paused
    with pytest.raises(DataSourceNotFoundError if name == "remove" else ConflictError):
        await _OTHERS[name](registry, before.version)  # it is so already, in another version


@pytest.mark.parametrize("name", _OTHERS)
async def test_change_between_the_check_and_the_write_is_a_conflict(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch, name: str
):
    await add(registry, host="h")
    if name == "resume":
        await registry.pause("s", "why")
    before = registry.get_config("s")
    assert before.version
    method = "remove_unchanged" if name == "remove" else "update"
    write = getattr(registry.store, method)

    def change_and_write(record: StoredSource) -> None:
        monkeypatch.setattr(registry.store, method, write)
        others = registry.store.get("s")
        assert others is not None
        registry.store.update(dataclasses.replace(others, name="Of somebody else"))
        write(record)

    monkeypatch.setattr(registry.store, method, change_and_write)
    with pytest.raises(ConflictError, match=f"and not {before.version} as expected"):
        await _OTHERS[name](registry, before.version)
    after = registry.get_config("s")
    assert (after.name, after.paused) == ("Of somebody else", before.paused)


@pytest.mark.parametrize("expected", [-1, True, "1", 1.0])
async def test_expected_version_is_a_whole_number(registry: DataSourceRegistry, expected: Any):
    await add(registry, host="h")
    with pytest.raises(OptionError, match="'expected' must be a version"):
        await registry.update_data_source("s", {}, expected=expected)


@pytest.fixture(params=["memory", "sqlite"])
async def two(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[DataSourceRegistry, DataSourceRegistry]]:
    """Two registries on one store, as two processes have them."""
    key = CredentialManager.generate_key()
    first = registry_of(
        NarrowConnector,
        credential_manager=CredentialManager(key),
        store=tmp_path / "s.db" if request.param == "sqlite" else None,
    )
    second = registry_of(
        NarrowConnector,
        credential_manager=CredentialManager(key),
        store=tmp_path / "s.db" if request.param == "sqlite" else first.store,
    )
    async with first, second:
        yield first, second


UPDATES = [100, pytest.param(1000, marks=pytest.mark.soak)]


async def count_up(registry: DataSourceRegistry, updates: int) -> int:
    """Count in the metadata as a host does that reads, and updates what it has read."""
    conflicts = done = 0
    while done < updates:
        config = registry.get_config("s")
        count = config.metadata.get("count", 0) + 1
        try:
            await registry.update_data_source(
                "s", {"metadata": {"count": count}}, expected=config.version
            )
            done += 1
        except ConflictError:
            conflicts += 1
    return conflicts


async def check_that_no_update_is_lost(
    first: DataSourceRegistry, second: DataSourceRegistry, updates: int
) -> None:
    """Have two registries on one store count up in the same source, each by `updates`."""
    await first.register_data_source(source(host="h", password=SECRET))
    await wait_until(lambda: second.exists("s"))
    started = first.get_config("s").version or 0
    conflicts = await asyncio.gather(*(count_up(r, updates) for r in (first, second)))
    await wait_until(
        lambda: all(r.get_config("s").metadata == {"count": 2 * updates} for r in (first, second))
    )
    # As many writes as there were updates: each of the others was told of its conflict.
    assert first.get_config("s").version == started + 2 * updates
    assert sum(conflicts) > 0


async def check_that_writers_keep_what_the_other_changes(
    first: DataSourceRegistry, second: DataSourceRegistry, updates: int
) -> None:
    """Have two registries on one store change different options without a version."""
    await first.register_data_source(source(host="h", password=SECRET))
    await wait_until(lambda: second.exists("s"))

    async def write(registry: DataSourceRegistry, option: str) -> None:
        for number in range(updates):
            await registry.update_data_source("s", {"metadata": {f"{option}{number}": number}})
            await registry.update_data_source("s", {"config": {option: f"{option}-{number}"}})

    await asyncio.gather(write(first, "note"), write(second, "token"))
    expected = {
        "host": "h",
        "password": SECRET,
        "note": f"note-{updates - 1}",
        "token": f"token-{updates - 1}",
    }
    await wait_until(lambda: clear(first) == clear(second) == expected)
    await wait_until(
        lambda: all(len(r.get_config("s").metadata) == 2 * updates for r in (first, second))
    )


Two = tuple[DataSourceRegistry, DataSourceRegistry]


@pytest.mark.parametrize("updates", UPDATES)
async def test_no_update_is_lost_where_a_version_is_expected(two: Two, updates: int):
    await check_that_no_update_is_lost(*two, updates)


@pytest.mark.parametrize("updates", UPDATES)
async def test_writers_that_expect_no_version_keep_what_the_other_changes(two: Two, updates: int):
    await check_that_writers_keep_what_the_other_changes(*two, updates)


async def test_conflict_of_a_write_is_told_where_a_version_is_expected(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch
):
    await add(registry, host="h")
    store, write = registry.store, registry.store.write

    def overtaken(**records: Any) -> None:
        monkeypatch.setattr(store, "write", write)
        record = store.get("s")
        assert record
        store.update(record)
        write(**records)

    for expected in (registry.get_config("s").version, None):
        monkeypatch.setattr(store, "write", overtaken)
        if expected is None:
            await registry.update_data_source("s", {"name": "T"})
        else:
            with pytest.raises(ConflictError, match="has version 2, and not 1 as expected"):
                await registry.update_data_source("s", {"name": "T"}, expected=expected)
    assert registry.get_config("s").version == 4


async def test_store_that_cannot_be_written_is_an_error_and_no_endless_loop(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch
):
    await add(registry, host="h")

    def fail(**_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(registry.store, "write", fail)
    for operation in (registry.update_data_source("s", {"name": "T"}), registry.pause("s", "x")):
        with pytest.raises(StoreError, match="the disk is full"):
            await operation


async def test_update_is_tested_first_where_that_is_asked_for():
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source(password=SECRET))
        changes = {"config": {"host": "unreachable", "password": OTHER}}
        with pytest.raises(ConnectError):
            await registry.update_data_source("s", changes, test_connection=True)
        assert clear(registry) == {"password": SECRET}
        changes["config"]["host"] = "localhost"
        await registry.update_data_source("s", changes, test_connection=True)
        assert cls.passwords == [OTHER]
        assert cls.live == 0


async def test_update_takes_effect_at_the_next_operation():
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source(password=SECRET))
        await registry.list_items("s")
        await registry.get_metadata("s", "a.csv")
        await registry.update_data_source("s", {"config": {"password": OTHER}})
        await registry.list_items("s")
        await registry.get_metadata("s", "a.csv")
        assert (cls.passwords, cls.live, cls.described) == ([SECRET, OTHER], 1, 2)


# The destination.


@pytest.mark.parametrize("connector", [PlaceConnector, NarrowConnector])
@pytest.mark.parametrize(
    "change", [{"host": "g"}, {"port": 2}, {"server": "g"}, {"port": "${env:P}"}]
)
async def test_new_destination_needs_every_secret_again(connector: Any, change: dict[str, Any]):
    async with registry_of(connector) as registry:
        await add(registry, host="h", password=SECRET, token="t0ken-t0ken", note="n")
        before = registry.store.get("s")
        for given in ({}, {"password": SECRET}, {"token": None}, {"note": "m"}):
            with pytest.raises(SecretRequiredError) as caught:
                await registry.update_data_source("s", {"config": change | given})
            missing = tuple(name for name in ("password", "token") if name not in given)
            assert caught.value.options == missing
            assert f"missing: {', '.join(map(repr, missing))}" in str(caught.value)
            assert SECRET not in str(caught.value)
            with pytest.raises(SecretRequiredError):
                await registry.check_update("s", {"config": change | given})
        assert registry.store.get("s") == before
        await registry.update_data_source(
            "s", {"config": change | {"password": SECRET, "token": None}}
        )


@pytest.mark.parametrize(
    "change",
    [
        {"password": OTHER},
        {"token": "new"},
        {"token": None},
        {"host": "h"},
        {"port": 1},
        {"port": "1"},
        {"tls": {"key": "k"}},
        {},
    ],
)
async def test_same_destination_needs_no_secret_again(
    registry: DataSourceRegistry, change: dict[str, Any]
):
    await add(registry, host="h", password=SECRET, token="t0ken", dsn=SECRET)
    await registry.update_data_source("s", {"config": change, "name": "T"})
    assert clear(registry) == merge_patch(
        {"host": "h", "password": SECRET, "token": "t0ken", "dsn": SECRET}, change
    )


@pytest.mark.parametrize(("connector", "needs"), [(PlaceConnector, True), (NarrowConnector, False)])
async def test_by_default_every_option_counts_that_is_no_secret(connector: Any, needs: bool):
    async with registry_of(connector) as registry:
        await add(registry, host="h", password=SECRET)
        change = {"config": {"note": "m"}}
        if needs:
            with pytest.raises(SecretRequiredError, match="a change of 'note' decides"):
                await registry.update_data_source("s", change)
        else:
            await registry.update_data_source("s", change)


async def test_by_default_the_host_in_a_connection_string_counts():
    async with registry_of(PlaceConnector) as registry:
        await add(registry, host="h", password=SECRET, dsn=f"db://u:{SECRET}@h/x")
        for dsn in (f"db://u:{SECRET}@evil/x", "Server=evil;Uid=u"):
            with pytest.raises(SecretRequiredError) as caught:
                await registry.update_data_source("s", {"config": {"dsn": dsn}})
            assert caught.value.options == ("password",)


class DetourOptions(ConnectorOptions):
    password: SecretStr
    key: SecretStr | None = None
    proxy: SecretStr | None = None
    jump_host: SecretStr | None = None
    dsn: SecretStr | None = None


class DetourConnector(SeedConnector):
    options_class = DetourOptions


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("proxy", "proxy:3128", "evil:3128"),
        ("proxy", None, "evil:3128"),
        ("jump_host", "h", "evil"),
        ("dsn", "${env:A}", "${env:B}"),
    ],
)
async def test_by_default_a_secret_option_for_a_host_counts(name: str, old: str | None, new: str):
    async with registry_of(DetourConnector) as registry:
        await add(registry, password=SECRET, key="k", **{name: old})
        await registry.update_data_source("s", {"config": {"key": "evil.org:3128"}})
        with pytest.raises(SecretRequiredError, match=f"a change of '{name}' decides") as caught:
            await registry.update_data_source("s", {"config": {name: new}})
        assert caught.value.options == ("password", "key")


class SealedOptions(ConnectorOptions):
    ticket: SecretStr
    password: SecretStr

    def hosts(self) -> list[str]:
        return [self.ticket.get_secret_value()[::-1]]


class SealedConnector(SeedConnector):
    options_class = SealedOptions


async def test_by_default_the_hosts_count_that_the_connector_tells():
    async with registry_of(SealedConnector) as registry:
        await add(registry, ticket="doog", password=SECRET)
        with pytest.raises(SecretRequiredError, match="a change of 'host' decides") as caught:
            await registry.update_data_source("s", {"config": {"ticket": "live"}})
        assert caught.value.options == ("password",)


async def test_every_secret_of_a_nested_option_is_needed_again(registry: DataSourceRegistry):
    await add(registry, host="h", tls={"verify": True, "key": "k3y"})
    partly: list[dict[str, Any]] = [{}, {"tls": {}}, {"tls": {"verify": False}}]
    for tls in partly:
        with pytest.raises(SecretRequiredError, match=r"missing: 'tls\.key'"):
            await registry.update_data_source("s", {"config": {"host": "g", **tls}})
    await registry.update_data_source("s", {"config": {"host": "g", "tls": {"key": "k3y"}}})
    await registry.update_data_source("s", {"config": {"host": "f", "tls": {"key": None}}})
    assert clear(registry) == {"host": "f", "tls": {"verify": True}}


async def test_reference_is_a_secret_wherever_it_stands(registry: DataSourceRegistry):
    await add(registry, host="${env:HOST}", port="${env:PORT}", note="see ${file:/x}")
    with pytest.raises(SecretRequiredError) as caught:
        await registry.update_data_source("s", {"config": {"port": 2}})
    assert caught.value.options == ("host", "note")
    with pytest.raises(SecretRequiredError):
        await registry.update_data_source("s", {"config": {"host": "${env:OTHER}"}})
    await registry.update_data_source("s", {"config": {"token": "t", "note": "none"}})
    await registry.update_data_source(
        "s", {"config": {"port": 2, "host": "${env:HOST}", "token": None}}
    )


async def test_without_declared_options_all_count_but_secrets():
    async with registry_of(SeedConnector) as registry:
        await add(
            registry,
            password=SECRET,
            place={"at": "h", "api_key": "k3y-of-it"},
            url=f"http://u:{SECRET}@h/",
            rows=[1],
        )
        await registry.update_data_source("s", {"config": {"password": OTHER}})
        await registry.update_data_source("s", {"config": {"place": {"api_key": "other-k3y"}}})
        for change in ({"rows": [2]}, {"place": {"at": "g"}}, {"new": 1}, {"rows": None}):
            with pytest.raises(SecretRequiredError) as caught:
                await registry.update_data_source("s", {"config": change})
            assert caught.value.options == ("password", "place", "url")
        with pytest.raises(SecretRequiredError) as caught:
            await registry.update_data_source("s", {"config": {"url": "http://evil/"}})
        assert caught.value.options == ("password", "place")


class FaultyOptions(PlaceOptions):
    error: ClassVar[type[BaseException]] = AttributeError

    def destination(self) -> dict[str, Any]:
        raise self.error("a reference where a number was expected")


class FaultyConnector(SeedConnector):
    options_class = FaultyOptions


@pytest.mark.parametrize("error", [AttributeError, SystemExit])
async def test_destination_that_cannot_be_told_is_changed_by_every_option(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(FaultyOptions, "error", error)
    async with registry_of(FaultyConnector) as registry:
        await add(registry, host="h", password=SECRET, token="t0ken")
        for change in ({"note": "m"}, {"token": "new"}):
            with pytest.raises(SecretRequiredError):
                await registry.update_data_source("s", {"config": change})
        await registry.update_data_source("s", {"config": {}, "name": "T"})


async def test_whoever_gives_everything_is_asked_for_nothing_more(registry: DataSourceRegistry):
    await add(registry, host="h", password=SECRET)
    await registry.register_data_source(source(host="g", password=SECRET), replace=True)
    assert registry.reencrypt().failed == {}
    assert clear(registry) == {"host": "g", "password": SECRET}


# References of administrators.

POLICY = Policy(allowed_references={"env:BOUND": ["h", "g"], "env:*": None})


@pytest.fixture
async def shared() -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(NarrowConnector, policy=POLICY) as registry:
        yield registry


async def test_only_an_administrator_sets_a_reference_that_is_not_bound(
    shared: DataSourceRegistry,
):
    unbound = source(host="h", note="${env:HOME}")
    for operation in (
        shared.register_data_source(unbound, by_administrator=False),
        shared.register_data_sources([unbound], by_administrator=False),
        shared.check_config(unbound, by_administrator=False),
    ):
        with pytest.raises(PolicyError, match="only an administrator may use a reference"):
            await operation
    assert not shared.exists("s")
    bound = source(host="h", password="${env:BOUND}")
    await shared.register_data_source(bound, by_administrator=False)
    for changes in ({"note": "${env:HOME}"}, {"tls": {"key": "${env:HOME}"}}):
        with pytest.raises(PolicyError, match="only an administrator may use a reference"):
            await shared.update_data_source("s", {"config": changes}, by_administrator=False)
        await shared.update_data_source("s", {"config": changes})


async def test_reference_of_an_administrator_stays_while_the_destination_does(
    shared: DataSourceRegistry,
):
    await add(shared, host="h", password="${env:PASSWORD}")
    await shared.update_data_source("s", {"config": {"note": "n"}}, by_administrator=False)
    assert clear(shared) == {"host": "h", "password": "${env:PASSWORD}", "note": "n"}


async def test_reference_of_an_administrator_is_cleared_where_another_changes_the_destination(
    shared: DataSourceRegistry,
):
    await add(shared, host="h", password="${env:PASSWORD}", tls={"key": "${env:K}"}, token="t")
    change = {"config": {"host": "g"}}
    with pytest.raises(SecretRequiredError) as caught:  # the token is no reference
        await shared.update_data_source("s", change, by_administrator=False)
    assert caught.value.options == ("password", "tls", "token")
    change["config"]["token"] = "t"
    await shared.update_data_source("s", change, by_administrator=False)
    assert clear(shared) == {"host": "g", "token": "t", "tls": {}}


async def test_reference_that_is_cleared_but_needed_has_to_be_given(shared: DataSourceRegistry):
    await add(shared, host="${env:HOST}")
    with pytest.raises(SecretRequiredError, match="missing: 'host'"):
        await shared.update_data_source("s", {"config": {"port": 2}}, by_administrator=False)
    assert clear(shared) == {"host": "${env:HOST}"}


async def test_bound_reference_goes_to_its_hosts_only():
    async with registry_of(
        NarrowConnector, policy=Policy(allowed_references={"env:BOUND": ["h", "g"]})
    ) as registry:
        with pytest.raises(PolicyError, match="'env:BOUND', which is for the hosts g, h only"):
            await add(registry, host="evil", password="${env:BOUND}")
        await add(registry, host="h", password="${env:BOUND}")
        given = {"password": "${env:BOUND}"}
        await registry.update_data_source("s", {"config": {"host": "g", **given}})
        with pytest.raises(PolicyError, match="which is for the hosts g, h only"):
            await registry.update_data_source("s", {"config": {"host": "evil", **given}})
        assert clear(registry)["host"] == "g"


async def test_bound_reference_is_refused_for_a_host_that_only_looks_like_a_reference(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("BOUND", SECRET)

    class EscapedOptions(PlaceOptions):
        def hosts(self) -> list[str]:
            return self.host.replace("%24", "$").split(",")

    class Escaped(SeedConnector):
        options_class = EscapedOptions

    policy = Policy(allowed_references={"env:BOUND": ["h"]})
    async with registry_of(Escaped, policy=policy) as registry:
        await add(registry, host="evil,%24{env:A}", password="${env:BOUND}")
        with pytest.raises(PolicyError, match="'env:BOUND', which is for the hosts h only"):
            await registry.list_items("s")
