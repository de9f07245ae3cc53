"""What every store promises, shown on each of them, and what SQLite promises besides."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from datasources import (
    CredentialManager,
    DataSourceExistsError,
    DataSourceRegistry,
    MemoryStore,
    SQLiteStore,
    Store,
    StoredSource,
    StoreError,
)
from datasources.registry import SourceRecords
from datasources.stores import sqlite as sqlite_module, sqlite_path
from tests.core.fakes import stored


def plain(record: StoredSource | None) -> StoredSource | None:
    return record and replace(record, version=0)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "s.db")
    yield opened
    opened.close()


class TestEveryStore:
    def test_record_comes_back_as_it_was(self, store: Store):
        record = stored(
            limits={"max_bytes": 5, "max_rows": None, "timeout": 1.5},
            options={"host": "h", "list": [1]},
            metadata={},
        )
        store.add(record)
        assert plain(store.get("a")) == record
        assert [plain(r) for r in store.list()] == [record]

    def test_reason_of_a_pause_is_kept(self, store: Store):
        store.add(stored("a", paused="Umzug „morgen“"))
        (record,) = store.list()
        assert record.paused == "Umzug „morgen“"
        store.update(replace(record, paused=None))
        assert [record.paused for record in store.list()] == [None]

    def test_unknown_id_is_none(self, store: Store):
        assert store.get("a") is None
        assert store.list() == []
        assert store.remove("a") is False

    def test_records_are_listed_in_order_of_ids(self, store: Store):
        store.add(stored("b"), stored("B"), stored("a10"), stored("a9"))
        store.add(stored("a"))
        assert [record.id for record in store.list()] == ["B", "a", "a10", "a9", "b"]

    def test_add_takes_all_or_none(self, store: Store):
        store.add(stored("b", "old"))
        for records in ([stored("a"), stored("b")], [stored("c"), stored("c")]):
            with pytest.raises(DataSourceExistsError, match=f"'{records[1].id}' exists"):
                store.add(*records)
        assert [plain(r) for r in store.list()] == [stored("b", "old")]

    def test_update_takes_all_or_none(self, store: Store):
        store.add(stored("a"), stored("b"))
        a, b = store.list()
        store.update(replace(b, credentials="theirs"))
        for stale in (b, stored("none"), replace(a, version=a.version + 1)):
            with pytest.raises(StoreError, match=f"'{stale.id}' was changed or removed"):
                store.update(replace(a, credentials="mine"), stale)
        assert [record.credentials for record in store.list()] == ["ciphertext", "theirs"]

    def test_new_and_replaced_are_one_write_or_none(self, store: Store):
        store.add(stored("a"), stored("b"))
        a, b = store.list()
        store.update(replace(b, credentials="theirs"))
        before = store.list()
        new = replace(a, credentials="mine")
        for add, update, error in (
            ([stored("c")], [new, b], StoreError),
            ([stored("c"), stored("b")], [new], DataSourceExistsError),
            ([stored("c"), stored("c")], [new], DataSourceExistsError),
            ([stored("c")], [replace(a, id="c")], StoreError),
        ):
            with pytest.raises(error):
                store.write(add=add, update=update)
            assert store.list() == before
        store.write(add=[stored("c"), stored("d")], update=[new])
        shown = {record.id: record.credentials for record in store.list()}
        assert shown == {"a": "mine", "b": "theirs", "c": "ciphertext", "d": "ciphertext"}
        assert len({record.version for record in store.list()}) == 4

    def test_compacting_changes_nothing_that_is_shown(self, store: Store):
        store.add(stored("a"), stored("b"))
        store.remove("a")
        before = store.list()
        store.compact()
        assert store.list() == before

    def test_one_record_is_not_updated_twice_at_once(self, store: Store):
        store.add(stored("a"))
        [a] = store.list()
        with pytest.raises(StoreError):
            store.update(a, a)
        assert store.list() == [a]

    def test_version_rises_and_is_never_given_again(self, store: Store):
        store.add(stored("a"))
        first = store.get("a")
        assert first
        store.update(first)
        second = store.get("a")
        store.remove("a")
        store.add(stored("a"))
        third = store.get("a")
        assert second
        assert third
        assert first.version < second.version < third.version
        for stale in (first, second):
            with pytest.raises(StoreError):
                store.update(stale)

    def test_revision_differs_after_each_change_and_after_nothing_else(self, store: Store):
        revisions = [store.revision()]
        store.add(stored("a"))
        revisions.append(store.revision())
        (record,) = store.list()
        store.update(replace(record, paused="later"))
        revisions.append(store.revision())
        assert store.get("a")
        assert store.revision() == revisions[-1]
        store.remove("a")
        revisions.append(store.revision())
        assert len(set(revisions)) == 4
        assert None not in revisions

    def test_nothing_is_added_or_updated_without_records(self, store: Store):
        store.add()
        store.update()
        assert store.list() == []

    def test_removed_is_gone(self, store: Store):
        store.add(stored("a"), stored("b"))
        assert store.remove("a") is True
        assert store.get("a") is None
        assert [record.id for record in store.list()] == ["b"]
        assert store.remove("a") is False

    def test_changed_record_is_not_removed(self, store: Store):
        store.add(stored("a"), stored("b"))
        old, other = store.list()
        store.update(replace(old, credentials="theirs"))
        with pytest.raises(StoreError, match="'a' was changed or removed"):
            store.remove_unchanged(old)
        assert [record.id for record in store.list()] == ["a", "b"]
        new = store.get("a")
        assert new is not None
        store.remove_unchanged(new)
        assert store.list() == [other]
        with pytest.raises(StoreError, match="'a' was changed or removed"):
            store.remove_unchanged(new)

    def test_list_is_the_callers_own(self, store: Store):
        store.add(stored("a"))
        store.list().clear()
        assert len(store.list()) == 1

    def test_threads_lose_no_update(self, store: Store):
        store.add(stored("a", "0"))

        def count(_: int) -> None:
            while True:
                record = store.get("a")
                assert record
                try:
                    store.update(replace(record, credentials=str(int(record.credentials) + 1)))
                    return
                except StoreError:
                    continue

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(100)))
        assert (record := store.get("a"))
        assert record.credentials == "100"

    def test_of_many_threads_one_adds_an_id(self, store: Store):
        start = threading.Barrier(8)

        def add(number: int) -> bool:
            start.wait()
            try:
                store.add(stored("a", str(number)))
            except DataSourceExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(add, range(8))) == 1

    def test_closing_twice_does_nothing_more(self, store: Store):
        store.close()
        store.close()


class OlderStore(MemoryStore):
    """A store that inherits what the first stores did not have."""

    remove_unchanged = Store.remove_unchanged


def test_store_that_inherits_the_removal_compares_versions() -> None:
    TestEveryStore().test_changed_record_is_not_removed(OlderStore())


def test_revision_that_is_read_before_a_record_is_not_that_of_its_removal() -> None:
    store = MemoryStore()
    store.add(stored("a"))
    read: list[tuple[int, StoredSource | None]] = []

    class Records(dict[str, StoredSource]):
        def pop(self, *arguments: Any) -> Any:
            read.append((store.revision(), store.get("a")))
            return super().pop(*arguments)

    store._records = Records(store._records)
    assert store.remove("a")
    ((revision, record),) = read
    assert record is not None
    assert store.revision() != revision


IDS = st.sampled_from("abcd")


class TwoOfOneFile(RuleBasedStateMachine):
    """Two SQLite stores on one file and a dict say the same after every step."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.stores = [SQLiteStore(f"{self.folder.name}/s.db") for _ in range(2)]
        self.model: dict[str, str] = {}

    @rule(which=st.integers(0, 1), ids=st.lists(IDS, max_size=3))
    def add(self, which: int, ids: list[str]) -> None:
        records = [stored(i, f"new {i}") for i in ids]
        if len(set(ids)) < len(ids) or set(ids) & self.model.keys():
            with pytest.raises(DataSourceExistsError):
                self.stores[which].add(*records)
        else:
            self.stores[which].add(*records)
            self.model.update((record.id, record.credentials) for record in records)

    @rule(which=st.integers(0, 1), name=IDS, text=st.text(max_size=5))
    def update(self, which: int, name: str, text: str) -> None:
        record = self.stores[which].get(name)
        assert (record is not None) == (name in self.model)
        if record:
            self.stores[1 - which].update(replace(record, credentials=text))
            self.model[name] = text
            with pytest.raises(StoreError):
                self.stores[which].update(record)

    @rule(which=st.integers(0, 1), name=IDS)
    def remove(self, which: int, name: str) -> None:
        assert self.stores[which].remove(name) == (self.model.pop(name, None) is not None)

    @rule(which=st.integers(0, 1))
    def compact_or_reopen(self, which: int) -> None:
        self.stores[which].compact()
        self.stores[which].close()
        self.stores[which] = SQLiteStore(f"{self.folder.name}/s.db")

    @invariant()
    def both_say_the_same(self) -> None:
        for store in self.stores:
            assert {r.id: r.credentials for r in store.list()} == self.model

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.folder.cleanup()


TestTwoOfOneFile = TwoOfOneFile.TestCase
TestTwoOfOneFile.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


# SQLite.


@pytest.fixture
def open_sqlite(tmp_path: Path) -> Iterator[Callable[[], SQLiteStore]]:
    opened: list[SQLiteStore] = []

    def open_one() -> SQLiteStore:
        opened.append(SQLiteStore(tmp_path / "s.db"))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def sqlite(open_sqlite: Callable[[], SQLiteStore]) -> SQLiteStore:
    return open_sqlite()


def test_sqlite_keeps_records_over_a_restart(open_sqlite: Callable[[], SQLiteStore]):
    first = open_sqlite()
    first.add(stored("a"), stored("b"))
    before = first.list()
    first.close()
    assert open_sqlite().list() == before


@pytest.mark.parametrize("umask", [0o000, 0o277], ids=oct)
def test_files_are_their_owners_only_whatever_the_umask(tmp_path: Path, umask: int):
    old = os.umask(umask)
    try:
        store = SQLiteStore(tmp_path / "new" / "inner" / "s.db")
        store.add(stored())
    finally:
        os.umask(old)
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "new").rglob("*")}
    assert modes == {"inner": 0o700, "s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    store.close()


def test_files_that_others_could_read_are_closed_to_them(open_sqlite: Any, tmp_path: Path):
    open_sqlite().add(stored())
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    open_sqlite()
    assert {stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 3


NEXT = (
    "ALTER TABLE sources ADD COLUMN note TEXT; UPDATE sources SET note = name",
    "CREATE INDEX sources_note ON sources (note); DELETE FROM sources WHERE id = 'b'",
)


def test_store_of_an_older_version_is_brought_to_this_one(
    open_sqlite: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch
):
    old = open_sqlite()
    old.add(stored("a"), stored("b"))
    before = old.list()
    monkeypatch.setattr(sqlite_module, "_MIGRATIONS", (*sqlite_module._MIGRATIONS, *NEXT))
    for _ in range(2):  # the second time there is nothing to do
        new = open_sqlite()
        assert new.list() == [before[0]]
        connection = new._connections["writer"]
        assert connection.execute("SELECT note FROM sources").fetchall() == [("A",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (5,)


def test_migration_that_fails_leaves_the_store_as_it_was(
    open_sqlite: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch
):
    old = open_sqlite()
    old.add(stored("a"), stored("b"))
    failing = (*sqlite_module._MIGRATIONS, *NEXT, "DELETE FROM sources; SELECT no FROM such")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_module, "_MIGRATIONS", failing)
        with pytest.raises(StoreError, match="no such table"):
            open_sqlite()
    assert open_sqlite().list() == old.list()
    assert len(old.list()) == 2


def test_closed_store_says_so(sqlite: SQLiteStore):
    sqlite.close()
    for use in (sqlite.list, lambda: sqlite.get("a"), lambda: sqlite.add(stored()), sqlite.compact):
        with pytest.raises(StoreError, match="is closed"):
            use()


@pytest.mark.parametrize("statement", [1, 2, 3])
def test_store_that_another_makes_while_it_is_opened_is_one(
    sqlite: SQLiteStore, tmp_path: Path, statement: int
):
    statements: list[str] = []

    def make(text: str) -> None:
        statements.append(text)
        if len(statements) == statement:
            SQLiteStore(tmp_path / "new.db").close()

    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as connection:
        connection.set_trace_callback(make)
        assert sqlite._schema_version(connection) in (0, len(sqlite_module._MIGRATIONS))
    assert len(statements) == 3


def test_nothing_is_acknowledged_that_went_to_a_file_that_is_gone(
    open_sqlite: Callable[[], SQLiteStore], tmp_path: Path
):
    store = open_sqlite()
    (tmp_path / "s.db").rename(tmp_path / "old")
    with pytest.raises(StoreError, match="No such file"):
        store.add(stored())
    open_sqlite().close()
    with pytest.raises(StoreError, match="was replaced since it was opened"):
        store.add(stored())


def read_elsewhere(path: Path) -> list[str]:
    """Return the ids of the sources that another process finds, whose connection it then closes."""
    code = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]); "
        "print(*(id for id, in connection.execute('SELECT id FROM sources'))); connection.close()"
    )
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()


def test_no_other_process_removes_the_log_of_a_store_that_is_open(
    open_sqlite: Callable[[], SQLiteStore], tmp_path: Path
):
    store = open_sqlite()
    store.add(stored("a"))
    open_sqlite().close()  # a second one in this process must not end the locks of the first
    assert read_elsewhere(tmp_path / "s.db") == ["a"]
    assert (tmp_path / "s.db-wal").exists()
    store.add(stored("b"))
    assert read_elsewhere(tmp_path / "s.db") == ["a", "b"]


def test_failed_write_leaves_memory_and_file_alike(open_sqlite: Callable[[], SQLiteStore]):
    store = open_sqlite()
    store.add(stored("a"))
    with pytest.raises(TypeError):
        store.add(stored("b"), stored("c", metadata={"x": object()}))
    with pytest.raises(TypeError):
        store.write(
            add=[stored("b")], update=[replace(r, metadata={"x": object()}) for r in store.list()]
        )
    assert [r.id for r in store.list()] == [r.id for r in open_sqlite().list()] == ["a"]
    store.add(stored("b"))


def traced(store: SQLiteStore) -> list[str]:
    statements: list[str] = []
    for connection in store._connections.values():
        connection.set_trace_callback(statements.append)
    return statements


def test_reads_cost_one_pragma_and_no_rows(sqlite: SQLiteStore):
    sqlite.add(*(stored(f"s{n}") for n in range(50)))
    sqlite.get("s1")
    statements = traced(sqlite)
    for n in range(50):
        assert sqlite.get(f"s{n}")
    assert len(sqlite.list()) == 50
    assert set(statements) == {"PRAGMA data_version"}
    assert len(statements) == 51


def test_change_of_another_process_costs_its_own_rows_only(
    open_sqlite: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch
):
    mine, theirs = open_sqlite(), open_sqlite()
    theirs.add(*(stored(f"s{n}") for n in range(500)))
    assert len(mine.list()) == 500
    read: list[int] = []
    take = SQLiteStore._apply

    def counted(self: SQLiteStore, rows: Any, gone: Any) -> None:
        read.append(len(rows))
        take(self, rows, gone)

    monkeypatch.setattr(SQLiteStore, "_apply", counted)
    record = theirs.get("s7")
    assert record
    theirs.update(replace(record, credentials="new"))
    theirs.remove("s8")
    assert len(mine.list()) == 499
    assert (changed := mine.get("s7"))
    assert changed.credentials == "new"
    assert sum(read) <= 1


def test_newer_change_read_just_after_a_write_is_not_overlaid(
    open_sqlite: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch
):
    mine, theirs = open_sqlite(), open_sqlite()
    remember = mine._remember

    def meddled(*written: Any) -> None:
        record = theirs.get("a")
        assert record
        theirs.update(replace(record, credentials="newer"))
        assert mine.get("a") == theirs.get("a")
        remember(*written)

    monkeypatch.setattr(mine, "_remember", meddled)
    mine.add(stored("a", "older"))
    assert mine.get("a") == theirs.get("a")


def test_adding_many_is_one_transaction_and_is_not_read_back(sqlite: SQLiteStore):
    statements = traced(sqlite)
    sqlite.add(*(stored(f"s{n:05}") for n in range(10_000)))
    ends = [text for text in statements if text in ("COMMIT", "BEGIN IMMEDIATE")]
    assert ends == ["BEGIN IMMEDIATE", "COMMIT"]
    assert len(statements) < 2 * 10_000 + 20
    sqlite._apply = pytest.fail  # type: ignore[method-assign,assignment]
    assert len(sqlite._records) == 10_000


def test_listing_ten_thousand_decrypts_none(sqlite: SQLiteStore, monkeypatch: pytest.MonkeyPatch):
    manager = CredentialManager(CredentialManager.generate_key())
    sqlite.add(*(stored(f"s{n:05}", options={"host": "h"}) for n in range(10_000)))
    monkeypatch.setattr(CredentialManager, "decrypt_with_version", pytest.fail)
    sources = SourceRecords(sqlite, manager)
    assert len([sources.masked_config(record) for record in sqlite.list()]) == 10_000


def test_reads_go_on_while_a_write_waits_for_another_process(open_sqlite: Any, tmp_path: Path):
    store = open_sqlite()
    store.add(stored("a"))
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.add, stored("b"))
        while not store._write_lock.locked():
            pass
        for _ in range(100):
            assert store.get("a")
            assert [r.id for r in store.list()] == ["a"]
        assert not waiting.done()
        other.execute("ROLLBACK")
        waiting.result()
    other.close()
    assert [r.id for r in store.list()] == ["a", "b"]


def test_compact_leaves_no_byte_of_what_was_overwritten(open_sqlite: Any, tmp_path: Path):
    store = open_sqlite()
    store.add(*(stored(f"s{n}", f"old-{n}-" * 50) for n in range(200)))
    store.update(*(replace(r, credentials="new" * 100) for r in store.list()[:100]))
    for record in store.list()[100:]:
        store.remove(record.id)
    assert any(b"old-1-" in file.read_bytes() for file in tmp_path.iterdir())
    # As another program does, which does not overwrite what it deletes.
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA secure_delete = OFF")
        other.execute("CREATE TABLE scratch AS SELECT randomblob(9) || 'old-scratch' FROM sources")
        other.execute("DROP TABLE scratch")
    other.close()
    store.compact()
    assert {file.name for file in tmp_path.iterdir()} == {"s.db", "s.db-wal", "s.db-shm"}
    assert not any(b"old-" in file.read_bytes() for file in tmp_path.iterdir())
    assert len(store.list()) == len(open_sqlite().list()) == 100


def test_compact_says_when_a_reader_keeps_old_content(
    open_sqlite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("datasources.stores.sqlite._LOCK_TIMEOUT", 0.05)
    store = open_sqlite()
    store.add(stored("a"))
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM sources").fetchall()
    with pytest.raises(StoreError, match="compact it again"):
        store.compact()
    other.close()
    store.compact()


def test_child_of_a_fork_uses_connections_of_its_own(sqlite: SQLiteStore):
    sqlite.add(stored("a"))
    inherited = set(map(id, sqlite._connections.values()))
    held = sqlite._lock.acquire() and sqlite._write_lock.acquire()
    assert held  # as if other threads were at work at that moment
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        signal.alarm(20)  # where it waits for a lock of the parent's
        try:
            assert sqlite.get("a")
            sqlite.add(stored("child"))
            assert not inherited & set(map(id, sqlite._connections.values()))
            sqlite.close()
            status = 0
        finally:
            os._exit(status)
    sqlite._lock.release()
    sqlite._write_lock.release()
    assert os.waitpid(child, 0)[1] == 0
    sqlite.add(stored("parent"))
    assert [r.id for r in sqlite.list()] == ["a", "child", "parent"]


def test_store_shows_its_path_and_nothing_else(sqlite: SQLiteStore):
    assert repr(sqlite) == f"SQLiteStore({sqlite.path!r})"


# URLs of stores.


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///x.db", "x.db"),
        ("sqlite:////srv/x.db", "/srv/x.db"),
        ("sqlite:///~/x.db", "/home/ann/x.db"),
        ("~/x.db", "/home/ann/x.db"),
        (Path("~/x.db"), "/home/ann/x.db"),
        ("x.db", "x.db"),
        ("./a:b.db", "./a:b.db"),
        (Path("a:b.db"), "a:b.db"),
        ("what?.db", "what?.db"),
        ("postgresql://host/db", None),
        ("memory:", None),
    ],
)
def test_a_url_names_the_path_of_a_sqlite_file(
    monkeypatch: pytest.MonkeyPatch, url: str | Path, path: str | None
):
    monkeypatch.setenv("HOME", "/home/ann")
    assert sqlite_path(url) == path


@pytest.mark.parametrize(
    "url", ["sqlite://x.db", "sqlite:x.db", "sqlite:", "sqlite:///", "sqlite:///x.db?mode=ro"]
)
def test_a_malformed_url_of_a_sqlite_store_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="one is sqlite:///relative/path or sqlite:////absolute"):
        DataSourceRegistry(store=url)
    assert list(tmp_path.iterdir()) == []


def test_a_home_directory_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="there is no home directory '~nobody-of-that-name'"):
        DataSourceRegistry(store="~nobody-of-that-name/x.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["memory:", "sqlite:///:memory:"])
async def test_a_store_in_memory_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
):
    monkeypatch.chdir(tmp_path)
    async with DataSourceRegistry(store=url) as registry:
        assert isinstance(registry.store, MemoryStore)
    assert list(tmp_path.iterdir()) == []


async def test_a_store_may_be_given_as_a_path(tmp_path: Path):
    async with DataSourceRegistry(store=tmp_path / "x.db") as registry:
        assert registry.list_data_sources() == []
    async with await DataSourceRegistry.open(store=tmp_path / "x.db") as registry:
        assert registry.list_data_sources() == []
    assert (tmp_path / "x.db").exists()
