"""Keys are changed without a moment at which a source cannot be read."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datasources import (
    CredentialManager,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    DecryptionError,
    MemoryStore,
    MissingKeyError,
    SQLiteStore,
    Store,
    StoredSource,
    StoreError,
)
from datasources.credentials import fingerprint
from datasources.registry import SourceRecords
from tests.core.subprocesses import environment

OLD, NEW = CredentialManager.generate_key(), CredentialManager.generate_key()
COUNT = 1_000


class Stopped(BaseException):
    """As a signal ends the process: nothing catches it."""


def secret(name: str) -> dict[str, str]:
    return {"password": f"hunter2 of {name}"}


def fill(store: Store, count: int, key: str = OLD) -> None:
    manager = CredentialManager(key)
    names = [f"s{n:04}" for n in range(count)]
    store.add(
        *(
            StoredSource(
                name, "custom", name, 1.0, {}, None, None,
                manager.encrypt_credentials(secret(name), source_id=name),
            )
            for name in names
        )
    )  # fmt: skip


def sources(store: Store, *keys: str) -> SourceRecords:
    return SourceRecords(store, CredentialManager(keys))


def all_open(store: Store, *keys: str) -> int:
    """Check that every record opens to its own secret; return how many are under the first key."""
    manager = CredentialManager(keys)
    for record in store.list():
        options = manager.decrypt_credentials(record.credentials, source_id=record.id)
        assert options == secret(record.id)
    return sum(manager.is_current(record.credentials) for record in store.list())


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "s.db")
    yield opened
    opened.close()


def test_rotation_brings_all_under_the_new_key_and_then_none(store: Store):
    fill(store, 20)
    rotation = sources(store, NEW, OLD).reencrypt()
    assert (rotation.changed, rotation.failed) == (20, {})
    assert all_open(store, NEW) == 20
    again = sources(store, NEW).reencrypt()
    assert (again.changed, again.failed) == (0, {})


def test_registry_rotates_and_keeps_everything_else_of_a_source(tmp_path: Path):
    store = SQLiteStore(tmp_path / "s.db")
    fill(store, 3)
    before = store.list()
    registry = DataSourceRegistry(CredentialManager([NEW, OLD]), store=store)
    assert registry.reencrypt().changed == 3
    for old, new in zip(before, store.list(), strict=True):
        assert replace(new, credentials="", version=0) == replace(old, credentials="", version=0)
    assert registry.get_config("s0001", decrypt=True, sanitize=False).config == secret("s0001")
    store.close()


@pytest.mark.parametrize("count", [200, pytest.param(COUNT, marks=pytest.mark.soak)])
def test_stopped_at_every_tenth_record_all_stay_readable_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    path = tmp_path / "s.db"
    store = SQLiteStore(path)
    fill(store, count)
    update, calls = SQLiteStore.update, 0

    def stop_at_the_tenth(self: SQLiteStore, *records: StoredSource) -> None:
        nonlocal calls
        if calls == 10:
            raise Stopped
        calls += 1
        update(self, *records)

    monkeypatch.setattr(SQLiteStore, "update", stop_at_the_tenth)
    monkeypatch.setattr(SQLiteStore, "compact", lambda self: None)
    for done in range(10, count, 10):
        calls = 0
        with pytest.raises(Stopped):
            sources(store, NEW, OLD).reencrypt()
        store.close()
        store = SQLiteStore(path)
        assert all_open(store, NEW, OLD) == done
    calls = 0
    assert sources(store, NEW, OLD).reencrypt().changed == 10
    assert all_open(store, NEW) == count
    store.close()


KILLED = """
import os, signal, sys
from datasources import CredentialManager, SQLiteStore
from datasources.registry import SourceRecords

path, keys, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
update = SQLiteStore.update

def counted(self, *records):
    global left
    left -= 1
    update(self, *records)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

SQLiteStore.update = counted
SourceRecords(SQLiteStore(path), CredentialManager(keys)).reencrypt()
"""


def test_killed_process_leaves_all_readable_and_the_next_one_goes_on(tmp_path: Path):
    path = tmp_path / "s.db"
    store = SQLiteStore(path)
    fill(store, 100)
    for done in (1, 31, 100):
        left = done - all_open(store, NEW, OLD)
        command = [sys.executable, "-c", KILLED, str(path), f"{NEW},{OLD}", str(left)]
        ended = subprocess.run(command, check=False, env=environment(), timeout=60)
        assert ended.returncode == -signal.SIGKILL
        assert all_open(store, NEW, OLD) == done
    # All were renewed, and their old ciphertexts not yet overwritten everywhere.
    assert sources(store, NEW).reencrypt().changed == 0
    assert not any(fingerprint(OLD).encode() in f.read_bytes() for f in tmp_path.iterdir())
    store.close()


def test_no_byte_under_the_old_key_is_left_in_any_file(tmp_path: Path):
    store = SQLiteStore(tmp_path / "s.db")
    fill(store, 300)
    tokens = [record.credentials.partition(":")[2].encode() for record in store.list()]
    # Beginnings, middles and ends, as a page may cut a token.
    pieces = [t[at : at + 24] for t in tokens for at in (12, len(t) // 2, len(t) - 24)]
    before = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert sum(piece in before for piece in pieces[:300]) > 200
    assert sources(store, NEW, OLD).reencrypt().changed == 300
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        assert fingerprint(OLD).encode() not in data
        assert not [piece for piece in pieces if piece in data]
    store.close()


@pytest.mark.parametrize("under", [OLD, NEW], ids=["old", "new"])
def test_one_bad_record_is_named_and_stops_no_other(store: Store, under: str):
    fill(store, COUNT)
    bad = store.get("s0500")
    assert bad
    store.update(replace(bad, credentials=f"{fingerprint(under)}:gAAAAdamaged"))
    foreign = store.get("s0501")
    assert foreign
    stranger = CredentialManager().encrypt_credentials({}, source_id="s0501")
    store.update(replace(foreign, credentials=stranger))
    rotation = sources(store, NEW, OLD).reencrypt()
    assert rotation.changed == COUNT - 2
    assert list(rotation.failed) == ["s0500", "s0501"]
    assert fingerprint(under) in rotation.failed["s0500"]
    assert "not among those given" in rotation.failed["s0501"]
    manager = CredentialManager([NEW, OLD])
    for name in ("s0500", "s0501"):
        record = store.get(name)
        assert record
        with pytest.raises(DecryptionError, match=name):
            manager.decrypt_credentials(record.credentials, source_id=name)
    shown = {c.id: c.config for c in DataSourceRegistry(manager, store=store).list_data_sources()}
    assert len(shown) == COUNT
    assert [name for name, config in shown.items() if "error" in config] == ["s0500", "s0501"]


class Meddled(MemoryStore):
    """Lets somebody else write just before a record is renewed."""

    def __init__(self, *changes: str) -> None:
        super().__init__()
        self.changes = list(changes)

    def update(self, *records: StoredSource) -> None:
        if self.changes and records[0].id == "s0001":
            change = self.changes.pop(0)
            if change == "full":
                raise StoreError("the disk is full")
            current = self.get("s0001")
            assert current
            key = NEW if change == "new" else OLD
            theirs = CredentialManager(key).encrypt_credentials({"x": change}, source_id="s0001")
            if change in ("gone", "anew"):
                self.remove("s0001")
            if change == "anew":
                self.add(replace(current, credentials=theirs))
            if change in ("old", "new", "again"):
                super().update(replace(current, credentials=theirs))
        super().update(*records)


@pytest.mark.parametrize(
    ("changes", "changed", "left"),
    [
        (["old"], 3, {"x": "old"}),
        (["old", "again"], 3, {"x": "again"}),
        (["new"], 2, {"x": "new"}),
        (["anew"], 3, {"x": "anew"}),
        (["gone"], 2, None),
    ],
)
def test_update_of_a_concurrent_writer_is_kept(
    changes: list[str], changed: int, left: dict[str, str] | None
):
    store = Meddled()
    fill(store, 3)
    store.changes = changes
    rotation = sources(store, NEW, OLD).reencrypt()
    assert (rotation.changed, rotation.failed) == (changed, {})
    record = store.get("s0001")
    assert (record is None) == (left is None)
    if record:
        options = CredentialManager(NEW).decrypt_credentials(record.credentials, source_id="s0001")
        assert options == left


def test_record_that_cannot_be_written_is_named_and_kept():
    store = Meddled()
    fill(store, 3)
    store.changes = ["full"]
    rotation = sources(store, NEW, OLD).reencrypt()
    assert rotation.changed == 2
    assert rotation.failed == {"s0001": "the disk is full"}
    assert all_open(store, NEW, OLD) == 2


async def test_sources_registered_before_are_used_after(tmp_path: Path):
    from tests.core.fakes import SeedConnector

    def registry(*keys: str) -> DataSourceRegistry:
        opened = DataSourceRegistry(CredentialManager(keys), store=str(tmp_path / "s.db"))
        opened.register_connector_class("custom", SeedConnector)
        return opened

    async with registry(OLD) as before:
        config = DataSourceConfig("s", DataSourceType.CUSTOM, "S", {"password": "hunter2"})
        await before.register_data_source(config)
    async with registry(NEW, OLD) as between:
        assert between.reencrypt().changed == 1
    async with registry(NEW) as after:
        assert await after.test_connection("s")
        assert after.get_config("s", decrypt=True, sanitize=False).config == {"password": "hunter2"}
    async with registry(OLD) as stale:
        with pytest.raises(DecryptionError, match=f"'s'.*{fingerprint(NEW)}.*{fingerprint(OLD)}"):
            stale.get_config("s", decrypt=True, sanitize=False)


# A second key.


async def registered(store: Store, name: str, *keys: str, replace: bool = False) -> None:
    """Register a source as a host with these keys does."""
    await host(store, *keys).register_data_source(
        DataSourceConfig(name, DataSourceType.CUSTOM, name, secret(name)), replace=replace
    )


def host(store: Store, *keys: str) -> DataSourceRegistry:
    from tests.core.fakes import SeedConnector

    registry = DataSourceRegistry(CredentialManager(keys), store=store)
    registry.register_connector_class("custom", SeedConnector)
    return registry


async def test_key_that_opens_nothing_of_a_store_is_refused(store: Store):
    await registered(store, "first", OLD)
    before = store.list()
    with pytest.raises(MissingKeyError) as caught:
        await registered(store, "second", NEW)
    assert str(caught.value) == (
        f"the stored sources are encrypted with {fingerprint(OLD)!r}, which is not among the keys "
        f"given: {fingerprint(NEW)!r}; to change keys give both, the new one first, and re-encrypt, "
        "as `datasources keys rotate` does"
    )
    assert store.list() == before
    await registered(store, "second", NEW, OLD)
    await registered(store, "third", NEW)
    assert all_open(store, NEW, OLD) == 2


async def test_host_that_was_not_told_of_a_rotation_adds_nothing_under_the_old_key(store: Store):
    await registered(store, "first", OLD)
    informed, uninformed = host(store, NEW, OLD), host(store, OLD)
    await registered(store, "second", OLD)
    assert informed.reencrypt().changed == 2
    config = DataSourceConfig("third", DataSourceType.CUSTOM, "third", secret("third"))
    with pytest.raises(MissingKeyError, match=f"{fingerprint(NEW)}.*{fingerprint(OLD)}"):
        await uninformed.register_data_source(config)
    with pytest.raises(MissingKeyError):
        await uninformed.register_data_sources([config])
    assert all_open(store, NEW) == 2


async def test_lost_key_is_given_up_by_replacing_or_removing_all_that_it_encrypts(store: Store):
    fill(store, 3)
    with pytest.raises(MissingKeyError):
        await registered(store, "s0001", NEW, replace=True)
    store.remove("s0000")
    store.remove("s0002")
    await registered(store, "s0001", NEW, replace=True)
    await registered(store, "s0000", NEW)
    assert all_open(store, NEW) == 2


async def test_record_whose_key_nobody_can_tell_keeps_no_key_out(store: Store):
    fill(store, 1)
    (record,) = store.list()
    store.update(replace(record, credentials="damaged"))
    await registered(store, "new", NEW)
    assert len(store.list()) == 2
