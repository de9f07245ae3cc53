"""Sources of a registry: registered, replaced, kept in a store, connected with their secrets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ConnectError,
    CredentialManager,
    DataSourceConnector,
    DataSourceExistsError,
    DataSourceNotFoundError,
    DataSourceRegistry,
    DecryptionError,
    MemoryStore,
    MissingKeyError,
    OptionError,
    Policy,
    PolicyError,
    SecretNotFoundError,
    SQLiteStore,
    StoredSource,
    StoreError,
    UnknownConnectorError,
    hookimpl,
)
from datasources.plugins import Plugins
from tests.core.fakes import (
    MemoryConnector,
    SeedConnector,
    fresh,
    registry_of,
    source,
)


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
        async with asyncio.timeout(30):
            while mine.passwords != ["one", "two"]:
                await here.get_connector("s")
                await asyncio.sleep(0.01)


async def test_metadata_are_those_of_the_source_that_another_registry_put_there(
    tmp_path: Path,
) -> None:
    class Described(MemoryConnector):
        async def get_metadata(self, identifier: str) -> dict[str, Any]:
            return {"host": self.options.host}

    keys = CredentialManager(CredentialManager.generate_key())

    def opened() -> DataSourceRegistry:
        store = SQLiteStore(tmp_path / "s.db")
        return registry_of(Described, store=store, credential_manager=keys)

    async with opened() as here, opened() as there:
        await there.register_data_source(source(host="old"))
        assert (await here.get_metadata("s", "a.csv"))["host"] == "old"
        await there.register_data_source(source(host="new"), replace=True)
        async with asyncio.timeout(30):  # until the pool has seen it, too
            host = "old"
            while host == "old":
                host = (await here.get_connector("s")).options.host
                await asyncio.sleep(0.01)
        assert (await here.get_metadata("s", "a.csv"))["host"] == "new"


@pytest.mark.parametrize("url", ["gopher://x", "redis:"])
def test_a_store_that_nobody_opens_is_named(url: str) -> None:
    with pytest.raises(StoreError, match=r"no plugin opens a store at '\w+'; built in: memory"):
        registry_of(MemoryConnector, store=url)


async def test_a_plugin_whose_import_never_ends_delays_nobody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = threading.Event()

    class Hanging(Plugins):
        def connector_class(self, type_name: str) -> type[DataSourceConnector]:
            release.wait(60)
            return MemoryConnector

    monkeypatch.setattr("datasources.registry.factory.IMPORT_TIMEOUT", 0.05)
    before = set(threading.enumerate())
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
    imports = {t for t in threading.enumerate() if t.name == "datasources-import"}
    assert len(imports - before) == 1
    assert (await registry.fetch("s", "a.csv", tmp_path)).size == 8
    release.set()
    await registry.close()
