"""The registry: sources, connections and operations, over connectors in memory."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ConnectError,
    CredentialManager,
    DataFetchError,
    DataSourceConnector,
    DataSourceExistsError,
    DataSourceNotFoundError,
    DataSourceRegistry,
    DecryptionError,
    FetchRequest,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    MemoryStore,
    MissingKeyError,
    Operation,
    OptionError,
    Outcome,
    Policy,
    PolicyError,
    PoolConfig,
    PoolTimeoutError,
    RegistryError,
    SecretNotFoundError,
    SQLiteStore,
    StoredSource,
    StoreError,
    UnknownConnectorError,
    caller,
    hookimpl,
)
from datasources.plugins import Plugins
from tests.core.fakes import (
    AbleConnector,
    MemoryConnector,
    SeedConnector,
    fresh,
    registry_of,
    source,
)
from tests.waiting import wait_until


async def test_a_registered_source_is_listed_masked_and_gone_once_unregistered() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source(password="hunter2", port=7))
        (listed,) = registry.list_data_sources()
        assert (listed.id, listed.type.value, listed.name) == ("s", "memory", "S")
        assert listed.config == {"password": "***REDACTED***", "port": 7}
        assert registry.exists("s")
        await registry.unregister_data_source("s")
        assert not registry.exists("s")
        assert registry.list_data_sources() == []


async def test_a_configuration_is_masked_ciphertext_or_clear_as_asked() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source(password="hunter2"))
        assert registry.get_config("s").config == {"password": "***REDACTED***"}
        encrypted = registry.get_config("s", sanitize=False).config
        assert list(encrypted) == ["encrypted"]
        assert "hunter2" not in encrypted["encrypted"]
        assert (
            registry.get_config("s", decrypt=True, sanitize=False).config["password"] == "hunter2"
        )


async def test_options_that_nobody_declared_are_masked_by_what_they_look_like() -> None:
    async with registry_of(SeedConnector) as registry:
        await registry.register_data_source(source(api_key="k1", url="https://u:pw@h/x", depth=3))
        shown = registry.get_config("s").config
        assert shown == {
            "api_key": "***REDACTED***",
            "url": "https://u:***REDACTED***@h/x",
            "depth": 3,
        }


async def test_nobody_changes_a_source_through_what_the_registry_returns() -> None:
    async with registry_of(MemoryConnector) as registry:
        config = source(port=1)
        config.metadata["owners"] = ["a"]
        await registry.register_data_source(config)
        config.config["port"] = 2
        config.metadata["owners"].append("b")
        got = registry.get_config("s")
        got.metadata["owners"].append("c")
        got.config.clear()
        assert registry.get_config("s").metadata == {"owners": ["a"]}
        assert registry.get_config("s").config == {"port": 1}


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            source(type_name="mysql"),
            UnknownConnectorError,
            "no connector for 'mysql'; installed: m",
        ),
        (source(prot=1), OptionError, "source 's': unknown option 'prot'; options: host, port"),
        (source(port="x"), OptionError, "source 's': option 'port': "),
        (
            source(host="evil.example"),
            PolicyError,
            "source 's' may not use the host 'evil.example'",
        ),
        (source(password="${env:HOME}"), PolicyError, "may not refer to 'env:HOME'"),
        (source(host="unreachable"), ConnectError, "nobody listens at 'unreachable'"),
    ],
)
async def test_what_is_wrong_with_a_source_is_said_before_anything_is_stored(
    config: Any, error: type[Exception], message: str
) -> None:
    policy = Policy(allowed_hosts=("localhost", "unreachable"), allowed_references=())
    async with registry_of(MemoryConnector, policy=policy) as registry:
        with pytest.raises(error, match=message):
            await registry.register_data_source(config, test_connection=True)
        assert registry.list_data_sources() == []


async def test_a_duplicate_id_is_refused_and_changes_nothing() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source(port=1))
        with pytest.raises(DataSourceExistsError, match="source 's' exists already"):
            await registry.register_data_source(source(port=2))
        assert registry.get_config("s").config == {"port": 1}


async def test_replacing_a_source_reconnects_with_the_new_options() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source(password="old"))
        await registry.get_connector("s")
        await registry.register_data_source(source(password="new"), replace=True)
        await registry.get_connector("s")
        assert cls.passwords == ["old", "new"]
        assert cls.live == 1
    assert cls.live == 0


async def test_many_are_registered_all_or_none() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source("taken"))
        for bad in (source("taken"), source("bad", port="x"), source("new")):
            with pytest.raises((DataSourceExistsError, OptionError)):
                await registry.register_data_sources([source("new"), bad])
        assert [s.id for s in registry.list_data_sources()] == ["taken"]
        await registry.register_data_sources([source("b"), source("a")])
        assert [s.id for s in registry.list_data_sources()] == ["a", "b", "taken"]


class Counting(MemoryStore):
    """Counts writes; fails some, or lets somebody else write just before one."""

    def __init__(self, *plans: Callable[[Counting], None]) -> None:
        super().__init__()
        self.plans = list(plans)
        self.writes = 0

    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        if self.plans:
            self.plans.pop(0)(self)
        self.writes += 1
        super().write(add=add, update=update)


async def test_new_and_replaced_sources_are_one_write_or_none() -> None:
    def full(_: Counting) -> None:
        raise StoreError("the disk is full")

    store = Counting()
    async with registry_of(MemoryConnector, store=store) as registry:
        await registry.register_data_sources([source("a", port=1), source("b", port=1)])
        assert store.writes == 1
        store.plans = [full]
        wanted = [source("c", port=2), source("a", port=2)]
        with pytest.raises(StoreError, match="full"):
            await registry.register_data_sources(wanted, replace=True)
        assert {s.id: s.config["port"] for s in registry.list_data_sources()} == {"a": 1, "b": 1}
        await registry.register_data_sources(wanted, replace=True)
        assert store.writes == 2
        ports = {s.id: s.config["port"] for s in registry.list_data_sources()}
        assert ports == {"a": 2, "b": 1, "c": 2}


async def test_a_source_is_replaced_whoever_changes_it_meanwhile() -> None:
    def removed(store: Counting) -> None:
        store.remove("a")

    def added(store: Counting) -> None:
        MemoryStore.write(store, add=[theirs])

    def changed(store: Counting) -> None:
        MemoryStore.write(store, update=[record for record in store.list() if record.id == "a"])

    store = Counting()
    async with registry_of(MemoryConnector, store=store) as registry:
        await registry.register_data_source(source("a", port=1))
        (theirs,) = store.list()
        store.plans = [changed, removed, added, changed]
        await registry.register_data_sources([source("b"), source("a", port=2)], replace=True)
        assert (store.plans, store.writes) == ([], 6)
        assert {s.id: s.config for s in registry.list_data_sources()} == {
            "a": {"port": 2},
            "b": {},
        }
        with pytest.raises(DataSourceExistsError):
            await registry.register_data_sources([source("c"), source("c")], replace=True)


UNKNOWN: list[Callable[[DataSourceRegistry], Awaitable[Any]]] = [
    lambda r: r.get_connector("x"),
    lambda r: r.unregister_data_source("x"),
    lambda r: r.test_connection("x"),
    lambda r: r.check_connection("x"),
    lambda r: r.list_items("x"),
    lambda r: r.glob_items("x", "*"),
    lambda r: r.get_metadata("x", "a.csv"),
    lambda r: r.preview("x", "a.csv"),
    lambda r: r.statistics("x", "a.csv"),
    lambda r: r.upload("x", "a.csv"),
    lambda r: r.fetch("x", "a.csv", "/nowhere"),
    lambda r: asyncio.to_thread(r.get_config, "x"),
]


@pytest.mark.parametrize("call", UNKNOWN)
async def test_an_unknown_id_is_named(call: Callable[[DataSourceRegistry], Awaitable[Any]]) -> None:
    async with registry_of(MemoryConnector) as registry:
        with pytest.raises(DataSourceNotFoundError, match="no source 'x' is registered"):
            await call(registry)


async def test_all_callers_get_the_same_connector_connected_once() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        got = await asyncio.gather(*(registry.get_connector("s") for _ in range(20)))
        assert len(set(map(id, got))) == 1
        assert cls.connects == 1
        await registry.disconnect_all()
        assert cls.live == 0
        assert await registry.get_connector("s") is not got[0]


async def test_a_connector_asked_for_while_its_source_is_disconnected_leaks_no_lease() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        for turns in range(40):
            asking = asyncio.create_task(registry.get_connector("s"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await registry.disconnect_all(timeout=5)
            await asking
            await registry.disconnect_all(timeout=5)
            assert cls.live == 0


async def test_leases_are_exclusive_and_bounded() -> None:
    cls = fresh()
    config = PoolConfig(max_size=2, acquire_timeout=0.01)
    async with registry_of(cls, pool_config=config) as registry:
        await registry.register_data_source(source())
        async with registry.connection("s") as one, registry.connection("s") as two:
            assert one is not two
            with pytest.raises(PoolTimeoutError, match="2 of 2 in use"):
                async with registry.connection("s"):
                    pytest.fail("entered")
            stats = registry.get_pool_stats("s")
            assert {k: stats[k] for k in ("total", "in_use", "available", "max_size")} == {
                "total": 2,
                "in_use": 2,
                "available": 0,
                "max_size": 2,
            }
        async with registry.connection("s") as again:
            assert again in {one, two}
    assert cls.live == 0


async def test_references_are_resolved_at_connect_and_never_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cls = fresh()
    (tmp_path / "secret").write_text("from-file\n")
    async with registry_of(cls) as registry:
        await registry.register_data_source(source("env", password="${env:SALES_PW}"))
        await registry.register_data_source(source("file", password=f"${{file:{tmp_path}/secret}}"))
        with pytest.raises(
            SecretNotFoundError, match=r"\$\{env:SALES_PW\}: the environment has no"
        ):
            await registry.get_connector("env")
        monkeypatch.setenv("SALES_PW", "from-env")
        await registry.get_connector("env")
        await registry.get_connector("file")
        assert cls.passwords == ["from-env", "from-file"]
        assert registry.get_config("env").config == {"password": "${env:SALES_PW}"}


async def test_the_encryption_key_cannot_be_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", CredentialManager.generate_key())
    async with registry_of(fresh()) as registry:
        await registry.register_data_source(source(password="${env:DATASOURCE_ENCRYPTION_KEY}"))
        with pytest.raises(SecretNotFoundError):
            await registry.get_connector("s")


async def test_a_plugin_resolves_references_of_its_scheme() -> None:
    class Vault:
        @hookimpl
        def datasources_resolve_secret(self, scheme: str, name: str) -> str | None:
            return f"{name}!" if scheme == "vault" else None

    cls = fresh()
    async with registry_of(cls) as registry:
        registry.plugins.register_plugin(Vault())
        await registry.register_data_source(source("a", password="${vault:x}"))
        await registry.register_data_source(source("b", password="${safe:x}"))
        await registry.get_connector("a")
        assert cls.passwords == ["x!"]
        with pytest.raises(SecretNotFoundError, match="no plugin resolves the scheme 'safe'"):
            await registry.get_connector("b")


async def test_a_network_outside_the_allowed_ones_is_refused_at_connect() -> None:
    policy = Policy(allowed_networks=("10.0.0.0/8",))
    async with registry_of(fresh(), policy=policy) as registry:
        await registry.register_data_source(source(host="127.0.0.1"))
        with pytest.raises(
            PolicyError, match=r"may not use '127\.0\.0\.1' at 127\.0\.0\.1; allowed"
        ):
            await registry.get_connector("s")


async def test_a_check_tells_why_and_leaves_no_connection() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_sources([source("good"), source("bad", host="unreachable")])
        good, bad = await registry.check_connection("good"), await registry.check_connection("bad")
        assert (good.ok, good.error) == (True, None)
        assert not bad
        assert str(bad.error) == "nobody listens at 'unreachable'"
        assert await registry.test_connection("bad") is False
        assert cls.live == 0


async def test_a_source_that_never_answers_fails_its_check_in_time() -> None:
    class Hanging(MemoryConnector):
        async def connect(self) -> bool:
            await asyncio.Event().wait()
            return True

    config = PoolConfig(connect_timeout=0.01)
    async with registry_of(Hanging, pool_config=config) as registry:
        await registry.register_data_source(source())
        check = await registry.check_connection("s")
        assert str(check.error) == "source 's' did not answer within 0.01 seconds"


async def test_among_a_thousand_sources_a_hanging_one_delays_only_its_own_callers() -> None:
    slow = asyncio.Event()

    class Uneven(MemoryConnector):
        async def connect(self) -> bool:
            if self.options.host == "hanging":
                await asyncio.Event().wait()
            if self.options.host == "slow":
                await slow.wait()
            return await super().connect()

    cls = fresh(Uneven)
    hosts = {0: "hanging", 1: "slow", 2: "unreachable"}
    configs = [source(f"s{i}", host=hosts.get(i, "ok")) for i in range(1000)]
    pool_config = PoolConfig(connect_timeout=60, connect_attempts=1)
    async with registry_of(cls, pool_config=pool_config) as registry:
        await registry.register_data_sources(configs)
        callers = [asyncio.create_task(registry.get_connector(config.id)) for config in configs]
        await asyncio.wait(callers[3:], timeout=30)
        assert all(caller.done() for caller in callers[3:])
        await registry.register_data_source(source("new"))
        await registry.unregister_data_source("s999")
        assert registry.get_config("s0").config == {"host": "hanging"}
        with pytest.raises(ConnectError):
            await callers[2]
        assert not callers[0].done()
        assert not callers[1].done()
        slow.set()
        assert await callers[1] is await registry.get_connector("s1")
        await registry.unregister_data_source("s0")
        with pytest.raises(DataSourceNotFoundError):
            await callers[0]
        assert cls.connects == 998
    assert cls.live == 0


async def test_unregistering_waits_for_a_lease_that_comes_back() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        async with registry.connection("s") as connector:
            going = asyncio.create_task(registry.unregister_data_source("s"))
            await wait_until(lambda: not registry.exists("s"))
            await asyncio.sleep(0.01)
            assert not going.done()
            assert await connector.list_items()
        await going
        assert cls.live == 0


async def test_unregistering_cuts_off_a_lease_that_does_not_come_back() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        async with registry.connection("s"):
            with pytest.raises(ExceptionGroup, match="did not close well"):
                await registry.unregister_data_source("s", timeout=0.01)
            assert cls.live == 0
        assert not registry.exists("s")


async def test_a_fetch_of_a_plain_connector_gets_a_receipt(tmp_path: Path) -> None:
    async with registry_of(SeedConnector) as registry:
        await registry.register_data_source(source())
        receipt = await registry.fetch("s", "a.csv", tmp_path)
        assert receipt.path == str(tmp_path / "a.csv")
        assert (receipt.size, receipt.rows, receipt.truncated) == (8, None, False)
        assert receipt.source_id == "s"
        assert json.loads(json.dumps(receipt.to_dict()))["identifier"] == "a.csv"


async def test_limits_come_from_the_call_then_the_source_then_the_policy(tmp_path: Path) -> None:
    policy = Policy(limits=Limits(max_bytes=1))
    async with registry_of(MemoryConnector, policy=policy) as registry:
        roomy = source("roomy")
        roomy.limits = Limits(max_bytes=8)
        await registry.register_data_sources([source("tight"), roomy])
        with pytest.raises(LimitExceededError, match="limit of 1 bytes"):
            await registry.fetch("tight", "a.csv", tmp_path)
        assert (await registry.fetch("roomy", "a.csv", tmp_path)).size == 8
        with pytest.raises(LimitExceededError, match="limit of 7 bytes"):
            await registry.fetch("roomy", "a.csv", tmp_path, limits=Limits(max_bytes=7))
        unlimited = Limits(max_bytes=None)
        assert (await registry.fetch("tight", "b.csv", tmp_path, limits=unlimited)).size == 2


async def test_a_fetch_that_takes_too_long_is_ended_and_named(tmp_path: Path) -> None:
    async with registry_of(fresh()) as registry:
        await registry.register_data_source(source())
        with pytest.raises(LimitExceededError, match=r"'slow' from source 's' .* 0.01 seconds"):
            await registry.fetch("s", "slow", tmp_path, limits=Limits(timeout=0.01))
        assert registry.get_pool_stats("s")["in_use"] == 0


async def test_every_request_of_a_batch_gets_its_result_in_order(tmp_path: Path) -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_sources([source("s"), source("down", host="unreachable")])
        progress: list[int] = []
        results = await registry.fetch_many(
            [
                ("s", "a.csv"),
                ("s", "missing"),
                FetchRequest("s", "b.csv"),
                ("x", "y"),
                ("down", "z"),
            ],
            tmp_path,
            progress={0: lambda done, _: progress.append(done)},
        )
        outcomes = [r.receipt.size if r.receipt else type(r.error) for r in results]
        assert outcomes == [8, ItemNotFoundError, 2, DataSourceNotFoundError, ConnectError]
        assert [r.request.identifier for r in results] == ["a.csv", "missing", "b.csv", "y", "z"]
        assert progress == [8]


async def test_a_batch_never_runs_more_at_once_than_asked(tmp_path: Path) -> None:
    running, most = 0, 0

    class Counting(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return await super().fetch_data("a.csv", workspace)

    async with registry_of(Counting) as registry:
        await registry.register_data_source(source())
        await registry.fetch_many([("s", "a.csv")] * 20, tmp_path, concurrency=3)
    assert most == 3


async def test_one_file_for_two_items_of_a_batch_is_an_error_of_the_second(tmp_path: Path) -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_sources([source("one"), source("two")])
        first, second, same = await registry.fetch_many(
            [("one", "a.csv"), ("two", "a.csv"), ("one", "a.csv")], tmp_path
        )
        assert first.receipt
        assert same.receipt
        assert isinstance(second.error, DataFetchError)
        assert "would overwrite what 'a.csv' of source 'one' brings" in str(second.error)


async def test_cancelling_a_batch_leaves_nothing_running(tmp_path: Path) -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        batch = asyncio.ensure_future(registry.fetch_many([("s", "slow")] * 5, tmp_path))
        await wait_until(lambda: registry.get_pool_stats("s")["in_use"] == 5)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        assert registry.get_pool_stats("s")["in_use"] == 0
    assert os.listdir(tmp_path) == []


async def test_metadata_is_kept_as_copies_until_refreshed_or_cleared() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        first = await registry.get_metadata("s", "a.csv")
        first["columns"].append("changed")
        second = await registry.get_metadata("s", "a.csv")
        assert second == {"columns": ["x", "y"]}
        second.clear()
        assert await registry.get_metadata("s", "a.csv") == {"columns": ["x", "y"]}
        assert cls.described == 1
        await registry.get_metadata("s", "a.csv", refresh=True)
        registry.clear_cache("s")
        await registry.get_metadata("s", "a.csv")
        assert cls.described == 3


@pytest.mark.parametrize(("ttl", "expected"), [(60.0, {"tables": []}), (0.0, None)])
async def test_cached_metadata_lives_for_the_ttl_of_the_registry(ttl: float, expected: Any) -> None:
    registry = registry_of(MemoryConnector, cache_ttl=ttl)
    registry.cache_metadata("s", {"tables": []})
    assert registry.get_cached_metadata("s") == expected


async def test_a_preview_without_the_ability_comes_from_the_file() -> None:
    async with registry_of(SeedConnector) as registry:
        await registry.register_data_source(source())
        preview = await registry.preview("s", "a.csv")
        assert (preview.columns, list(preview.rows)) == (("x", "y"), [("1", "2")])


@pytest.mark.parametrize(
    ("size", "rows", "truncated"), [(1_000_000, 5, False), (1_000_001, 4, True)]
)
async def test_a_preview_by_fetching_reads_a_million_bytes_and_shows_no_row_that_is_cut(
    size: int, rows: int, truncated: bool
) -> None:
    content = b"\n".join([b"x" * 200_000] * 6)[:size]

    class Large(SeedConnector):
        async def connect(self) -> bool:
            self._connection = {"large.txt": content}
            return True

    async with registry_of(Large) as registry:
        await registry.register_data_source(source())
        preview = await registry.preview("s", "large.txt", rows=10)
    assert (len(preview.rows), preview.truncated) == (rows, truncated)


async def test_what_a_connector_cannot_do_is_said_with_what_it_can() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        with pytest.raises(RegistryError, match="'s' of type 'memory' cannot compute statistics"):
            await registry.statistics("s", "a.csv")
        with pytest.raises(RegistryError, match="cannot take files; its optional abilities: none"):
            await registry.upload("s", "/etc/hostname")


async def test_abilities_are_used_where_a_connector_has_them() -> None:
    async with registry_of(AbleConnector) as registry:
        await registry.register_data_source(source())
        assert (await registry.statistics("s", "a.csv"))["x"].mean == 1.0
        assert (await registry.upload("s", "/f", "n", overwrite=False)).metadata == {
            "overwrite": False
        }
        assert [i.path async for i in registry.iter_items("s")] == ["a.csv", "b.csv"]
        assert [i.path for i in await registry.glob_items("s", "a.*")] == ["a.csv"]


async def test_items_iterate_without_the_ability_too() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        assert [item.path async for item in registry.iter_items("s")] == ["a.csv", "b.csv"]


async def test_a_failed_operation_is_logged_once_with_who_asked_and_without_secrets(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    class Leaky(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            raise ConnectError("refused: postgresql://u:hunter2@db/x")

    async with registry_of(Leaky) as registry:
        await registry.register_data_source(source())
        with (
            caplog.at_level(logging.DEBUG),
            caller(user="ann", request_id="r1"),
            pytest.raises(ConnectError),
        ):
            await registry.fetch("s", "a.csv", tmp_path)
    (record,) = [r for r in caplog.records if r.name.startswith("datasources")]
    assert record.getMessage() == (
        "fetch of source 's' failed (request r1, user ann): "
        "ConnectError: refused: postgresql://u:***REDACTED***@db/x"
    )


async def test_what_names_a_caller_or_a_source_forges_no_line_of_the_log_and_leaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with registry_of(MemoryConnector) as registry:
        forged = "x\nWARNING fetch of source 's' failed password=hunter2"
        with caller(user=forged, request_id=forged), pytest.raises(DataSourceNotFoundError):
            await registry.list_items(forged)
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("datasources")]
    assert len(message.splitlines()) == 1
    assert "hunter2" not in message


async def test_a_caller_or_an_id_that_is_no_text_leaves_the_error_what_it_is() -> None:
    async with registry_of(MemoryConnector) as registry:
        with caller(user=7), pytest.raises(DataSourceNotFoundError):  # type: ignore[arg-type]
            await registry.list_items(5)  # type: ignore[arg-type]


class Audit:
    """Written before observers were told of outcomes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    @hookimpl
    def datasources_source_registered(self, config: Any) -> None:
        self.seen.append(("registered", config.id, str(config.config)))

    @hookimpl
    def datasources_source_unregistered(self, source_id: str) -> None:
        self.seen.append(("unregistered", source_id))

    @hookimpl
    def datasources_operation_finished(
        self, operation: Operation, error: BaseException | None
    ) -> None:
        self.seen.append((operation.name, operation.user or "", type(error).__name__))


async def test_observers_are_told_what_came_of_an_operation(tmp_path: Path) -> None:
    seen: list[Outcome] = []

    class Watching:
        @hookimpl
        def datasources_operation_finished(self, outcome: Outcome) -> None:
            seen.append(outcome)

    async with registry_of(AbleConnector) as registry:
        await registry.register_data_source(source())
        registry.plugins.register_plugin(Watching())
        await registry.list_items("s")
        items = registry.iter_items("s")
        await anext(items)
        await items.aclose()  # type: ignore[attr-defined]
        receipt = await registry.fetch("s", "a.csv", tmp_path)
        (result,) = await registry.fetch_many([("s", "b.csv")], tmp_path)
        await registry.preview("s", "a.csv")
        with pytest.raises(ItemNotFoundError):
            await registry.fetch("s", "missing", tmp_path)
    assert seen == [
        Outcome(items=2),
        Outcome(items=1),
        Outcome(size=8, receipt=receipt),
        Outcome(size=2, receipt=result.receipt),
        Outcome(rows=1),
        Outcome(),
    ]


class Raising:
    @hookimpl
    def datasources_operation_started(self) -> None:
        raise RuntimeError

    @hookimpl
    def datasources_source_registered(self) -> None:
        raise SystemExit


async def test_observers_see_everything_and_one_that_raises_disturbs_nobody(
    tmp_path: Path,
) -> None:
    audit = Audit()
    async with registry_of(MemoryConnector) as registry:
        for plugin in (Raising(), audit):
            registry.plugins.register_plugin(plugin)
        with caller(user="ann"):
            await registry.register_data_source(source(password="hunter2"))
            await registry.fetch("s", "a.csv", tmp_path)
            with pytest.raises(ItemNotFoundError):
                await registry.fetch("s", "missing", tmp_path)
            await registry.unregister_data_source("s")
    assert audit.seen == [
        ("register", "ann", "NoneType"),
        ("registered", "s", "{'password': '***REDACTED***'}"),
        ("fetch", "ann", "NoneType"),
        ("fetch", "ann", "ItemNotFoundError"),
        ("unregister", "ann", "NoneType"),
        ("unregistered", "s"),
    ]


async def test_sources_on_disk_survive_a_restart_as_ciphertext(tmp_path: Path) -> None:
    path, key = tmp_path / "sources.db", CredentialManager.generate_key()
    for _ in range(2):
        cls = fresh()
        store = SQLiteStore(path)
        async with registry_of(
            cls, store=store, credential_manager=CredentialManager(key)
        ) as registry:
            if not registry.exists("s"):
                await registry.register_data_source(source(password="hunter2"))
            await registry.get_connector("s")
        assert cls.passwords == ["hunter2"]
    assert not any(b"hunter2" in file.read_bytes() for file in tmp_path.iterdir())


async def test_a_store_on_disk_never_depends_on_a_key_nobody_has(tmp_path: Path) -> None:
    async with registry_of(MemoryConnector, store=f"sqlite:///{tmp_path}/s.db") as registry:
        with pytest.raises(MissingKeyError, match="set DATASOURCE_ENCRYPTION_KEY"):
            await registry.register_data_source(source())
        assert registry.list_data_sources() == []


async def test_with_a_wrong_key_sources_are_listed_but_do_not_connect(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    for registered in (False, True):
        keys = CredentialManager(CredentialManager.generate_key())
        registry = registry_of(MemoryConnector, store=store, credential_manager=keys)
        if not registered:
            await registry.register_data_source(source(port=7))
    assert registry.get_config("s").config == {"port": 7}
    with pytest.raises(DecryptionError, match="source 's' are encrypted with the key"):
        await registry.get_connector("s")
    await registry.close()


async def test_a_change_by_another_registry_reaches_this_one(tmp_path: Path) -> None:
    key = CredentialManager.generate_key()
    mine, theirs = fresh(), fresh()

    def opened(cls: type[MemoryConnector]) -> DataSourceRegistry:
        keys = CredentialManager(key)
        return registry_of(cls, store=SQLiteStore(tmp_path / "s.db"), credential_manager=keys)

    async with opened(mine) as here, opened(theirs) as there:
        await there.register_data_source(source(password="one"))
        await here.get_connector("s")
        await there.register_data_source(source(password="two"), replace=True)
        async with asyncio.timeout(10):
            while mine.passwords != ["one", "two"]:
                await here.get_connector("s")
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("url", ["gopher://x", "redis:"])
def test_a_store_that_nobody_opens_is_named(url: str) -> None:
    with pytest.raises(StoreError, match=r"no plugin opens a store at '\w+'; built in: memory"):
        registry_of(MemoryConnector, store=url)


async def test_event_loops_have_connections_of_their_own_and_all_are_closed() -> None:
    cls = fresh()
    registry = registry_of(cls)
    await registry.register_data_source(source())
    seen: list[int] = []
    ready, done = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        seen.append(id(await registry.get_connector("s")))
        ready.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await asyncio.to_thread(ready.wait)
    seen.append(id(await registry.get_connector("s")))
    assert len(set(seen)) == 2
    assert cls.live == 2
    await registry.close()
    assert cls.live == 0
    done.set()
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("on_disk", [False, True])
def test_threads_registering_using_and_removing_one_id_end_consistently(
    tmp_path: Path, on_disk: bool
) -> None:
    cls = fresh()
    keys = CredentialManager(CredentialManager.generate_key())
    store = SQLiteStore(tmp_path / "s.db") if on_disk else MemoryStore()
    registry = registry_of(cls, store=store, credential_manager=keys)
    unexpected: list[BaseException] = []

    async def churn(number: int) -> None:
        workspace = tmp_path / str(number)
        for round_ in range(20):
            for call in (
                lambda: registry.register_data_source(source()),
                lambda: registry.get_connector("s"),
                lambda: registry.register_data_source(source(port=number), replace=True),
                lambda: registry.fetch("s", "a.csv", workspace),
                lambda: registry.unregister_data_source("s"),
            ):
                try:
                    await call()
                except (DataSourceExistsError, DataSourceNotFoundError):
                    pass
                except Exception as exc:  # noqa: BLE001  (kept)
                    unexpected.append(exc)
            if round_ % 5 == number:
                await registry.disconnect_all()
        await registry.disconnect_all()

    def run(number: int) -> None:
        asyncio.run(churn(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert unexpected == []
    assert cls.live == 0
    asyncio.run(registry.close())


async def test_closing_finishes_the_rest_when_one_fails() -> None:
    class Stubborn(MemoryConnector):
        async def disconnect(self) -> None:
            await super().disconnect()
            if self.options.port == 13:
                raise RuntimeError("will not go")

    cls = fresh(Stubborn)
    registry = registry_of(cls)
    await registry.register_data_sources([source("a"), source("b", port=13), source("c")])
    for source_id in "abc":
        await registry.get_connector(source_id)
    only = pytest.RaisesExc(RuntimeError, match="will not go")
    with pytest.RaisesGroup(only, flatten_subgroups=True):
        await registry.disconnect_all()
    assert cls.live == 0
    await registry.close()


async def test_a_plugin_whose_import_never_ends_delays_nobody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = threading.Event()

    class Hanging(Plugins):
        def connector_class(self, type_name: str) -> type[DataSourceConnector]:
            release.wait(60)
            return MemoryConnector

    monkeypatch.setattr("datasources.sources.IMPORT_TIMEOUT", 0.05)
    registry = DataSourceRegistry(plugins=Hanging(index=[]))
    registry.register_connector_class("memory", MemoryConnector)
    await registry.register_data_source(source())
    stuck = [source(f"x{i}", type_name="other") for i in range(20)]
    outcomes = await asyncio.gather(
        *map(registry.register_data_source, stuck), return_exceptions=True
    )
    assert {str(outcome) for outcome in outcomes} == {
        "the plugin of type 'other' was not imported within 0.05 seconds"
    }
    assert [t.name for t in threading.enumerate()].count("datasources-import") == 1
    assert (await registry.fetch("s", "a.csv", tmp_path)).size == 8
    release.set()
    await registry.close()


def test_connections_are_closed_with_the_event_loop_they_belong_to(tmp_path: Path) -> None:
    cls = fresh()
    registry = registry_of(cls)
    asyncio.run(registry.register_data_source(source()))
    for _ in range(5):
        asyncio.run(registry.get_connector("s"))
        assert cls.live == 0
        asyncio.run(registry.fetch("s", "a.csv", tmp_path))
        assert cls.live == 0
    assert cls.connects == 10
    asyncio.run(registry.close())
    assert len(registry._connections._loops) <= 1


def test_an_event_loop_that_has_ended_is_given_nothing_to_do() -> None:
    cls = fresh()
    registry = registry_of(cls)
    ending = asyncio.new_event_loop()
    ending.run_until_complete(registry.register_data_source(source()))
    ending.run_until_complete(registry.get_connector("s"))
    ending.run_until_complete(ending.shutdown_asyncgens())  # what `asyncio.run` does at its end
    assert cls.live == 0
    asyncio.run(registry.disconnect_all())  # another loop, which asks every loop there is
    ending.call_soon(ending.stop)
    ending.run_forever()  # once more, as a loop may turn before it is closed
    assert asyncio.all_tasks(ending) == set()
    ending.close()
    asyncio.run(registry.close())


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_a_batch_needs_room_for_one(tmp_path: Path, concurrency: int) -> None:
    async with registry_of(MemoryConnector) as registry:
        with pytest.raises(OptionError, match="'concurrency' must be at least 1"):
            await registry.fetch_many([("s", "a.csv")], tmp_path, concurrency=concurrency)


@pytest.mark.parametrize("answer", [None, 5, b"a.csv", "a\0b", "", "/etc/hostname", []])
async def test_a_connector_that_returns_no_file_of_the_workspace_is_told_so(
    tmp_path: Path, answer: Any
) -> None:
    class Lying(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            return answer

    async with registry_of(Lying) as registry:
        await registry.register_data_source(source())
        with pytest.raises(DataFetchError, match="no file of the workspace"):
            await registry.fetch("s", "a.csv", tmp_path)
