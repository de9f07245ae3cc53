"""A store in a PostgreSQL database, shared by hosts: each `PostgreSQLStore` here stands for one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from datasources import (
    CredentialManager,
    DataSourceConfig,
    DataSourceExistsError,
    DataSourceNotFoundError,
    DataSourceRegistry,
    DataSourceType,
    Record,
    Records,
    Store,
    StoreError,
)
from datasources_postgresql.store import PostgreSQLStore, schema, store as store_module
from tests.core import test_records as core_records, test_stores as core
from tests.core.fakes import MemoryConnector, stored
from tests.servers import Database, PostgresServer
from tests.waiting import wait_until, wait_until_blocking

IDS = st.sampled_from("abcd")

Open = Callable[..., PostgreSQLStore]


@pytest.fixture
def open_store(pg_database: Database) -> Iterator[Open]:
    """Open stores on the test's database; they are closed afterwards, and leave no thread."""
    opened: list[PostgreSQLStore] = []

    def open_one(url: str | None = None) -> PostgreSQLStore:
        opened.append(PostgreSQLStore(url or pg_database.dsn()))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
    until_no_follower_is_left()


@pytest.fixture
def store(open_store: Open) -> Store:
    return open_store()


@pytest.fixture
def two(open_store: Open) -> tuple[PostgreSQLStore, PostgreSQLStore]:
    return open_store(), open_store()


@pytest.fixture
def database(pg_database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        yield connection


def followers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "datasources-store"]


def until_no_follower_is_left() -> None:
    """Wait for the threads of closed stores: `close` does so for a while only."""
    wait_until_blocking(lambda: not followers())


def shown(store: Store) -> dict[str, str]:
    return {record.id: record.credentials for record in store.list()}


def until_shown(store: Store, expected: dict[str, str]) -> None:
    wait_until_blocking(lambda: shown(store) == expected)


def written(store: Store, name: str, credentials: str) -> None:
    record = store.get(name)
    assert record
    store.update(replace(record, credentials=credentials))


def sessions(database: psycopg.Connection) -> list[int]:
    """Return the backends of other sessions on this database."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return [pid for (pid,) in database.execute(query).fetchall()]


def terminate(database: psycopg.Connection) -> None:
    for pid in sessions(database):
        database.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


class TestAsEveryStore(core.TestEveryStore):
    """What core asks of every store."""


class TestRecordsAsInEveryStore(core_records.TestRecordsOfEveryStore):
    """What core asks of the records of every store."""

    @pytest.fixture
    def records(self, store: Store) -> Records:
        return core_records.records_of(store)


def test_processes_that_race_for_records_share_them_out(store: Store, pg_database: Database):
    core_records.race(pg_database.dsn(), core_records.records_of(store))


def test_records_are_seen_by_other_hosts_and_outlive_them(two, open_store: Open):
    mine, theirs = map(core_records.records_of, two)
    stored = mine.put(Record("job", "a", "ann", {"n": 1}))
    assert theirs.get("job", "a") == stored
    for store in two:
        store.close()
    assert core_records.records_of(open_store()).get("job", "a") == stored
    with pytest.raises(StoreError, match="is closed"):
        mine.get("job", "a")


def test_records_go_on_after_their_session_was_terminated(store: Store, database):
    records = core_records.records_of(store)
    number = records.append("event", "a", {"n": 1})
    terminate(database)
    assert records.append("event", "a", {"n": 2}) > number
    assert [data["n"] for _, data in records.read("event", "a")] == [1, 2]


def test_entry_that_is_committed_late_has_the_higher_number(store: Store, two, database):
    records = core_records.records_of(store)
    key = json.dumps(["datasources", "event", "a"])
    held = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
    database.execute(held, [key])  # another host is about to commit an entry
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(records.append, "event", "a", {"n": 2})
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until_blocking(lambda: database.execute(query).fetchone() == (1,))
        database.execute(
            "INSERT INTO datasources.entries"
            " VALUES ('event', 'a', nextval('datasources.record_numbers'), '{\"n\": 1}')"
        )
        database.execute("SELECT pg_advisory_unlock_all()")
        waiting.result(30)
    assert [data["n"] for _, data in records.read("event", "a")] == [1, 2]


def test_records_of_tables_that_are_not_upgraded_are_refused_in_one_sentence(
    pg_database: Database, pg_roles: PostgresServer, database, open_store: Open
):
    database.execute(OLD_TABLES)
    reader = replace(pg_database, user="reader", password="correct-horse-battery").dsn()
    records = core_records.records_of(open_store(reader))
    with pytest.raises(StoreError, match=r"no tables of records.* role owns the tables upgrades"):
        records.get("job", "a")


# Several hosts.


def test_change_of_another_host_is_seen(two):
    mine, theirs = two
    mine.add(stored("a"), stored("b"))
    wait_until_blocking(lambda: theirs.list() == mine.list() != [])
    written(theirs, "a", "new")
    wait_until_blocking(lambda: shown(mine)["a"] == "new")
    mine.remove("b")
    wait_until_blocking(lambda: shown(theirs) == {"a": "new"})
    theirs.add(stored("b", "again"))
    wait_until_blocking(lambda: shown(mine) == {"a": "new", "b": "again"})
    assert mine.list() == theirs.list()


def test_records_outlive_the_hosts(open_store: Open):
    first = open_store()
    first.add(stored("a"), stored("b"))
    first.remove("b")
    before = first.list()
    first.close()
    assert open_store().list() == before


def test_update_of_what_another_host_changed_is_refused(two):
    mine, theirs = two
    mine.add(stored("a"), stored("b"))
    stale_a, stale_b = mine.list()
    wait_until_blocking(lambda: len(theirs.list()) == 2)
    written(theirs, "a", "theirs")
    theirs.remove("b")
    for stale in (stale_a, stale_b):
        with pytest.raises(StoreError, match=f"'{stale.id}' was changed or removed meanwhile"):
            mine.update(replace(stale, credentials="mine"))
    assert shown(mine) == shown(theirs) == {"a": "theirs"}


def test_of_two_hosts_that_add_an_id_at_once_one_wins(two):
    def add(store: PostgreSQLStore, name: str) -> bool:
        start.wait()
        try:
            store.add(stored(name, repr(id(store))), stored(f"{name}-{id(store)}"))
        except DataSourceExistsError:
            return False
        return True

    start = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        for n in range(20):
            won = list(pool.map(add, two, [f"s{n}"] * 2))
            assert sorted(won) == [False, True]
            winner = two[won.index(True)]
            assert shown(winner)[f"s{n}"] == repr(id(winner))
    wait_until_blocking(lambda: shown(two[0]) == shown(two[1]))
    assert len(two[0].list()) == 40


COUNT = """
import os
from dataclasses import replace
from datasources import StoreError
from datasources_postgresql.store import PostgreSQLStore

store = PostgreSQLStore(os.environ["STORE"])
for _ in range(250):
    while True:
        record = store.get("counter")
        try:
            store.update(replace(record, credentials=str(int(record.credentials) + 1)))
            break
        except StoreError as exc:
            assert "changed or removed meanwhile" in str(exc), exc
store.close()
"""


def test_four_processes_lose_no_update_of_a_thousand(store: Store, pg_database: Database):
    store.add(stored("counter", "0"))
    environment = {**os.environ, "STORE": pg_database.dsn()}
    command = [sys.executable, "-W", "error", "-c", COUNT]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(4)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, b"")
    wait_until_blocking(lambda: shown(store) == {"counter": "1000"})


def test_hosts_that_come_first_at_once_create_one_store(open_store: Open):
    start = threading.Barrier(6)

    def first(_: int) -> PostgreSQLStore:
        start.wait()
        return open_store()

    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(first, range(6)))
    stores[0].add(stored("a"))
    wait_until_blocking(lambda: all(shown(s) == {"a": "ciphertext"} for s in stores))


def test_hosts_and_a_dict_say_the_same_after_every_step(two):
    class Hosts(RuleBasedStateMachine):
        @initialize()
        def empty(self) -> None:
            for record in two[0].list():
                two[0].remove(record.id)
            self.model: dict[str, str] = {}
            self.check()

        @rule(which=st.integers(0, 1), ids=st.lists(IDS, max_size=3))
        def add(self, which: int, ids: list[str]) -> None:
            records = [stored(i, f"new {i}") for i in ids]
            if len(set(ids)) < len(ids) or set(ids) & self.model.keys():
                with pytest.raises(DataSourceExistsError):
                    two[which].add(*records)
            else:
                two[which].add(*records)
                self.model.update((record.id, record.credentials) for record in records)
            self.check()

        @rule(which=st.integers(0, 1), name=IDS, text=st.text("aü'\\\n", max_size=5))
        def update(self, which: int, name: str, text: str) -> None:
            if record := two[which].get(name):
                two[1 - which].update(replace(record, credentials=text))
                self.model[name] = text
                with pytest.raises(StoreError):
                    two[which].update(record)
            self.check()

        @rule(which=st.integers(0, 1), name=IDS)
        def remove(self, which: int, name: str) -> None:
            assert two[which].remove(name) == (self.model.pop(name, None) is not None)
            self.check()

        def check(self) -> None:
            for store in two:
                until_shown(store, self.model)
            assert two[0].list() == two[1].list()

    run_state_machine_as_test(
        Hosts, settings=settings(max_examples=15, stateful_step_count=15, deadline=None)
    )


# The server fails.


def test_reads_go_on_without_the_server_and_catch_up_when_it_is_back(
    two, open_store: Open, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
):
    mine, theirs = two
    mine.add(stored("a"), stored("b"), stored("c"))
    wait_until_blocking(lambda: len(theirs.list()) == 3)
    before = mine.list()
    postgres.kill()
    for write in (
        lambda: mine.add(stored("d")),
        lambda: mine.update(before[0]),
        lambda: mine.remove("b"),
        mine.compact,
    ):
        with pytest.raises(StoreError, match=f"//127.0.0.1:{postgres.port}/") as caught:
            write()
        assert postgres.password not in str(caught.value)
        assert mine.list() == before
        assert mine.get("a") == before[0]
    wait_until_blocking(lambda: caplog.messages)
    assert postgres.password not in caplog.text
    postgres.start()
    third = open_store()
    third.remove("b")
    written(third, "c", "new")
    for store in two:
        until_shown(store, {"a": "ciphertext", "c": "new"})
    mine.add(stored("d"))
    wait_until_blocking(lambda: theirs.get("d") and third.get("d"))


def test_store_can_be_closed_while_the_server_is_away(open_store: Open, postgres: PostgresServer):
    store = open_store()
    postgres.kill()
    store.close()
    until_no_follower_is_left()


def test_terminated_sessions_are_replaced_unnoticed(two, database: psycopg.Connection):
    mine, theirs = two
    for n in range(5):
        terminate(database)
        mine.add(stored(f"s{n}"))
        until_shown(theirs, {f"s{i}": "ciphertext" for i in range(n + 1)})
        assert shown(mine) == shown(theirs)


def test_session_terminated_while_it_writes_stores_nothing(two, database: psycopg.Connection):
    mine, theirs = two
    mine.add(stored("a"))
    with psycopg.connect(database.info.dsn, password=database.info.password) as other:
        other.execute("SELECT FROM datasources.store FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(mine.remove, "a")
            query = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            # It is replaced once, for nothing was written yet; and waits again.
            for _ in range(2):
                wait_until_blocking(lambda: database.execute(query).fetchone())
                database.execute(query.replace("pid", "pg_terminate_backend(pid, 5000)"))
            with pytest.raises(StoreError, match="terminating connection"):
                waiting.result()
    assert shown(mine) == shown(theirs) == {"a": "ciphertext"}
    assert mine.remove("a")


@pytest.mark.parametrize("version", [1, 100])  # written to since it was restored
def test_older_copy_of_the_database_replaces_what_is_in_memory(
    two, database: psycopg.Connection, version: int
):
    mine, theirs = two
    mine.add(stored("a"))
    older = mine.list()
    written(mine, "a", "newer")
    mine.add(stored("b"))
    wait_until_blocking(lambda: len(theirs.list()) == 2)
    database.execute("DELETE FROM datasources.sources WHERE id = 'b'")
    database.execute("UPDATE datasources.sources SET credentials = 'ciphertext', version = 1")
    database.execute("UPDATE datasources.store SET version = %s", [version])
    terminate(database)
    wait_until_blocking(lambda: mine.list() == theirs.list() == older)
    mine.add(stored("c"))
    wait_until_blocking(lambda: theirs.get("c"))


def test_reads_go_on_while_a_write_waits(store: Store, database: psycopg.Connection):
    store.add(stored("a"))
    with ThreadPoolExecutor(1) as pool:
        with database.transaction():
            database.execute("LOCK datasources.store, datasources.sources")
            waiting = pool.submit(store.add, stored("b"))
            wait_until_blocking(store._write_lock.locked)  # type: ignore[attr-defined]
            for _ in range(100):
                assert store.get("a")
                assert [r.id for r in store.list()] == ["a"]
            assert not waiting.done()
        waiting.result()
    assert [r.id for r in store.list()] == ["a", "b"]


def test_reads_say_nothing_to_the_server(store: Store, database: psycopg.Connection):
    store.add(*(stored(f"s{n}") for n in range(50)))
    store._connection.close()  # type: ignore[attr-defined]
    for n in range(50):
        assert store.get(f"s{n}")
    assert len(store.list()) == 50
    assert store._connection.closed  # type: ignore[attr-defined]


def test_failed_write_leaves_memory_and_database_alike(two, database: psycopg.Connection):
    mine, _ = two
    mine.add(stored("a"))
    with pytest.raises(TypeError):
        mine.add(stored("b"), stored("c", metadata={"x": object()}))
    for bad in (stored("c", "a\0b"), stored("c", "\ud800")):
        with pytest.raises(StoreError, match="cannot be used"):
            mine.add(stored("b"), bad)
        with pytest.raises(StoreError, match="cannot be used"):
            mine.write(add=[stored("b")], update=[replace(r, name="\0") for r in mine.list()])
    assert shown(mine) == {"a": "ciphertext"}
    assert database.execute("SELECT id FROM datasources.sources").fetchall() == [("a",)]
    mine.add(stored("b"))


def test_row_that_somebody_broke_does_not_hide_the_others(
    open_store: Open, database: psycopg.Connection
):
    open_store().add(*(stored(f"s{n}") for n in range(5)))
    for n, damage in enumerate(["type = 'No Type'", "metadata = '[]'", "limits = '{\"x\": 1}'"]):
        database.execute(f"UPDATE datasources.sources SET {damage} WHERE id = 's{n}'")
    records = open_store().list()
    assert [record.id for record in records] == [f"s{n}" for n in range(5)]
    assert [record.credentials for record in records] == [""] * 3 + ["ciphertext"] * 2


# Opening and closing.


def test_what_keeps_a_store_from_opening_is_said_without_the_password(
    pg_database: Database, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    place = f"{pg_database.host}:{pg_database.port}/{pg_database.name}"
    user = f"postgres:{pg_database.password}"
    for url, message in {
        f"postgresql://postgres:wrong-hunter2@{place}": f"{place}.*password authentication failed",
        f"postgresql://{user}@{place}-none": f"{place}-none.*does not exist",
        f"postgresql://{user}@127.0.0.1:9/db": r"127.0.0.1:9/db.*[Rr]efused",
        f"postgresql://{user}@/db": "option 'host' is missing",
        "postgresql://postgres:hunter2@with@signs@localhost/db": "percent-encoded",
        f"postgres://{user}@localhost/db?passfile=x": "'passfile' is not supported",
        f"postgres://{user}@localhost:port/db": "port is not a number",
    }.items():
        with pytest.raises(StoreError, match=message) as caught:
            PostgreSQLStore(url)
        for text in (str(caught.value), repr(caught.value), caplog.text):
            assert pg_database.password not in text
            assert "hunter2" not in text
    until_no_follower_is_left()


def test_store_of_a_newer_version_is_refused(store: Store, open_store: Open, database):
    database.execute("UPDATE datasources.store SET schema_version = 4")
    with pytest.raises(StoreError, match=r"newer version .*schema 4; this one knows 3"):
        open_store()


def test_store_of_an_older_version_is_brought_to_this_one(
    store: Store, open_store: Open, database, monkeypatch: pytest.MonkeyPatch
):
    store.add(stored("a"), stored("b"))
    step = "ALTER TABLE datasources.sources ADD note text; UPDATE datasources.sources SET note = id"
    broken = (*schema._MIGRATIONS, step, "SELECT no FROM such")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", broken)
        with pytest.raises(StoreError, match='"such" does not exist'):
            open_store()
    version = "SELECT schema_version FROM datasources.store"
    assert database.execute(version).fetchone() == (3,)
    monkeypatch.setattr(schema, "_MIGRATIONS", broken[:-1])
    start = threading.Barrier(4)

    def first(_: int) -> PostgreSQLStore:
        start.wait()
        return open_store()

    with ThreadPoolExecutor(4) as pool:
        for opened in pool.map(first, range(4)):
            assert opened.list() == store.list()
    assert database.execute(version).fetchone() == (4,)
    notes = database.execute("SELECT note FROM datasources.sources ORDER BY id").fetchall()
    assert notes == [("a",), ("b",)]


# As 0.1.0 made them; never to be changed.
OLD_TABLES = """
CREATE SCHEMA datasources AUTHORIZATION owner;
SET ROLE owner;
CREATE TABLE datasources.store (schema_version integer NOT NULL, version bigint NOT NULL);
INSERT INTO datasources.store VALUES (1, 7);
CREATE TABLE datasources.sources (
    id text COLLATE "C" PRIMARY KEY,
    type text,
    name text,
    created_at double precision,
    metadata json,
    limits json,
    options json,
    credentials text,
    version bigint NOT NULL UNIQUE
);
INSERT INTO datasources.sources
    VALUES ('a', 'custom', 'A', 12.5, '{}', NULL, NULL, 'ciphertext', 7);
GRANT USAGE ON SCHEMA datasources TO reader;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA datasources TO reader;
RESET ROLE;
"""


def test_store_of_0_1_0_goes_on_working_for_roles_that_do_not_own_its_tables(
    pg_database: Database, pg_roles: PostgresServer, database, open_store: Open
):
    database.execute(OLD_TABLES)
    urls = [
        replace(pg_database, user=user, password="correct-horse-battery").dsn()
        for user in ("reader", "owner")
    ]
    old = open_store(urls[0])
    record = old.get("a")
    assert record
    assert (record.version, record.paused) == (7, None)
    old.update(record)
    record = old.get("a")
    assert record
    with pytest.raises(StoreError, match=r"'a' cannot be paused: .* role owns them upgrades them"):
        old.update(replace(record, paused="why"))
    new = open_store(urls[1])  # which upgrades the tables
    assert new.list() == [record]
    new.update(replace(record, paused="why"))
    wait_until_blocking(lambda: old.list() == new.list())
    paused = old.get("a")
    assert paused
    assert paused.paused == "why"
    old.update(replace(paused, paused="other"))
    wait_until_blocking(lambda: old.list() == new.list())
    assert old.remove("a")
    old.add(stored("a"))
    assert [r.paused for r in old.list()] == [None]


def test_role_needs_no_right_to_create(
    pg_database: Database, pg_roles: PostgresServer, database, open_store: Open
):
    url = replace(pg_database, user="owner", password="correct-horse-battery").dsn()
    with pytest.raises(StoreError, match="permission denied for database"):
        open_store(url)
    database.execute("CREATE SCHEMA datasources AUTHORIZATION owner")
    open_store(url).add(stored("a"))
    reader = replace(pg_database, user="reader", password="correct-horse-battery").dsn()
    with pytest.raises(StoreError, match="permission denied"):
        open_store(reader)
    database.execute("GRANT USAGE ON SCHEMA datasources TO reader")
    database.execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA datasources TO reader")
    other = open_store(reader)
    other.add(stored("b"))
    assert other.remove("a")
    with pytest.raises(StoreError, match="not compacted: permission denied to vacuum"):
        other.compact()


def test_closed_store_says_so_and_leaves_no_thread_and_no_session(
    open_store: Open, database: psycopg.Connection
):
    store = open_store()
    store.add(stored("a"))
    wait_until_blocking(lambda: len(sessions(database)) == 2)
    store.close()
    until_no_follower_is_left()
    wait_until_blocking(lambda: not sessions(database))
    for use in (
        store.list,
        lambda: store.get("a"),
        lambda: store.add(stored("b")),
        lambda: store.remove("a"),
        store.compact,
    ):
        with pytest.raises(StoreError, match="is closed"):
            use()
    store.close()


OPEN_AND_CLOSE = """
import os, threading
from datasources_postgresql.store import PostgreSQLStore

PostgreSQLStore(os.environ["STORE"]).close()
before = os.listdir("/dev/fd")
for _ in range(10):
    PostgreSQLStore(os.environ["STORE"]).close()
assert len(os.listdir("/dev/fd")) == len(before)
assert threading.enumerate() == [threading.main_thread()]
"""


def test_opening_and_closing_often_leaks_no_descriptor(pg_database: Database):
    # A process of its own, as others open and close descriptors of this one meanwhile.
    environment = {**os.environ, "STORE": pg_database.dsn()}
    command = [sys.executable, "-W", "error", "-c", OPEN_AND_CLOSE]
    subprocess.run(command, env=environment, check=True, timeout=120)


def test_child_of_a_fork_is_told_to_open_its_own(store: Store, database: psycopg.Connection):
    store.add(stored("a"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        refused = 0
        for use in (lambda: store.get("a"), store.list, lambda: store.remove("a")):
            try:
                use()
            except StoreError as exc:
                refused += "opened before a fork" in str(exc)
        with suppress(BaseException):
            store.close()
            os._exit(0 if refused == 3 else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    store.add(stored("b"))
    assert [record.id for record in store.list()] == ["a", "b"]


def test_compact_leaves_no_byte_of_what_was_overwritten(
    store: Any, postgres: PostgresServer, database: psycopg.Connection
):
    def content() -> bytes:
        database.execute("CHECKPOINT")
        query = "SELECT pg_relation_filepath('datasources.sources')"
        (path,) = database.execute(query).fetchone() or ("",)
        return (postgres.directory / "data" / path).read_bytes()

    store.add(*(stored(f"s{n}", f"old-{n}-") for n in range(20)))
    for n in range(20):
        written(store, f"s{n}", "new")
    assert b"old-1-" in content()
    store.compact()
    assert b"old-" not in content()
    assert b"new" in content()
    assert len(store.list()) == 20


def test_no_session_of_a_quiet_store_holds_anything(two, database: psycopg.Connection):
    mine, theirs = two
    query = """
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    """
    quiet = lambda: database.execute(query).fetchone() == (0,)  # noqa: E731
    wait_until_blocking(lambda: len(sessions(database)) == 4 and quiet())
    theirs.compact()
    mine.add(stored("a"))
    with pytest.raises(DataSourceExistsError):
        mine.add(stored("a"))
    assert not mine.remove("b")
    wait_until_blocking(quiet)
    theirs.compact()


# Registries, which find the store by the plugin's entry point.


async def goes_on_during(held: asyncio.Task[Any]) -> None:
    """See that the event loop turns while a task waits for what has not happened yet."""
    for _ in range(100):
        await asyncio.sleep(0)
        assert not held.done(), "it held up the event loop until its end"


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield a port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_opening_does_not_hold_up_the_event_loop(pg_database: Database):
    with silent_server() as port:
        url = f"postgresql://u:hunter2@127.0.0.1:{port}/db?connect_timeout="
        opening = asyncio.create_task(DataSourceRegistry.open(store=f"{url}60"))
        await goes_on_during(opening)
        opening.cancel()
        with pytest.raises(StoreError, match="timeout") as silent:
            await DataSourceRegistry.open(store=f"{url}2")
    assert "hunter2" not in str(silent.value)
    refused = f"postgresql://u:hunter2@127.0.0.1:{port}/db"
    with pytest.raises(StoreError, match="refused"):
        await DataSourceRegistry.open(store=refused)
    key = CredentialManager.generate_key()
    async with await DataSourceRegistry.open(
        CredentialManager(key), store=pg_database.dsn()
    ) as registry:
        assert registry.list_data_sources() == []
        assert registry.credentials.fingerprints == CredentialManager(key).fingerprints
    until_no_follower_is_left()


async def test_closing_does_not_hold_up_the_event_loop(
    open_store: Open, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store_module, "_CLOSE_TIMEOUT", 60.0)
    store = open_store()
    registry = DataSourceRegistry(CredentialManager(), store=store)
    with database.transaction(), ThreadPoolExecutor(1) as pool:
        database.execute("LOCK datasources.store")
        writing = pool.submit(store.add, stored("a"))
        wait_until_blocking(store._write_lock.locked)
        closing = asyncio.create_task(registry.close())  # waits for the write for a while
        await goes_on_during(closing)
        database.execute("ROLLBACK")
        writing.exception()
        await closing


async def test_opening_that_is_cancelled_leaves_nothing_open(
    pg_database: Database, database: psycopg.Connection
):
    with silent_server() as port:
        url = f"postgresql://u:p@127.0.0.1:{port}/db?connect_timeout=60"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await DataSourceRegistry.open(store=url)
    for moment in (0, 0.001, 0.01):
        opening = asyncio.create_task(DataSourceRegistry.open(store=pg_database.dsn()))
        await asyncio.sleep(moment)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).close()  # if it was opened before
    opening_threads = lambda: [t for t in threading.enumerate() if t.name == "datasources-open"]  # noqa: E731
    wait_until_blocking(lambda: not opening_threads() and not followers())
    wait_until_blocking(lambda: not sessions(database))


@pytest.fixture
async def registries(pg_database: Database) -> AsyncIterator[list[DataSourceRegistry]]:
    key = CredentialManager.generate_key()
    opened = []
    for _ in range(2):
        opened.append(DataSourceRegistry(CredentialManager(key), store=pg_database.dsn()))
        opened[-1].register_connector_class("memory", MemoryConnector)
    yield opened
    for registry in opened:
        await registry.close()
    until_no_follower_is_left()


def memory(name: str, **options: Any) -> DataSourceConfig:
    return DataSourceConfig(name, DataSourceType("memory"), name, options)


async def test_registries_of_two_hosts_share_sources(
    registries: list[DataSourceRegistry], tmp_path: Path
):
    mine, theirs = registries
    await mine.register_data_source(memory("a", host="one", password="hunter2"))
    await wait_until(lambda: theirs.exists("a"))
    await theirs.fetch("a", "a.csv", tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == b"x,y\n1,2\n"
    assert theirs.get_config("a", decrypt=True, sanitize=False).config["password"] == "hunter2"
    connector = await theirs.get_connector("a")

    await mine.register_data_source(memory("a", host="two"), replace=True)
    await wait_until(lambda: theirs.get_config("a").config["host"] == "two")
    await wait_until(lambda: theirs._pools.source_pool("a").connector is not connector)
    replaced = await theirs.get_connector("a")
    assert replaced.config.config["host"] == "two"

    await theirs.unregister_data_source("a")
    await wait_until(lambda: not mine.exists("a"))
    with pytest.raises(DataSourceNotFoundError):
        await mine.fetch("a", "a.csv", tmp_path)


async def test_password_and_options_are_shown_nowhere(
    registries: list[DataSourceRegistry],
    pg_database: Database,
    database: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.DEBUG)
    await registries[0].register_data_source(memory("a", password="hunter2"))
    store = registries[0].store
    host, port, name = pg_database.host, pg_database.port, pg_database.name
    assert repr(store) == f"PostgreSQLStore('postgresql://{host}:{port}/{name}')"
    activity = database.execute("SELECT * FROM pg_stat_activity").fetchall()
    stored = database.execute("SELECT s::text FROM datasources.sources s").fetchall()
    assert len(stored) == 1
    for text in (repr(store), str(store), repr(activity), repr(stored), caplog.text):
        assert pg_database.password not in text
        assert "hunter2" not in text


def test_a_registry_finds_the_store_without_importing_the_driver():
    code = """
import sys
from datasources.plugins import Plugins
plugins = Plugins()
plugins.load_observers()
assert "datasources_postgresql.store.store_plugin" in sys.modules
heavy = {"psycopg", "pydantic", "asyncio", "datasources_postgresql.plugin", "logging"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert plugins.first("datasources_open_store", url="mysql://x") is None
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
