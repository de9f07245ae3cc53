"""A path to the server that goes silent, while it acknowledges what is sent, ends a write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from datasources import StoreError
from datasources.threads import call_in_daemon_thread
from datasources_postgresql.connecting import StoreConnection
from datasources_postgresql.store import PostgreSQLStore, store as store_module
from tests.core.fakes import stored
from tests.servers import Database
from tests.servers.proxy import SilentProxy
from tests.waiting import wait_until_blocking

THREAD = "change"
ENOUGH = 60  # seconds in which everything here has ended; the limits below are far shorter
SHORT = 0.3
LIMITS = ("_LOCK_TIMEOUT", "_STATEMENT_TIMEOUT", "_GRACE")


@pytest.fixture(autouse=True)
def impatient_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the limit of the connections that wait for changes: they connect until they can."""
    connect = PostgreSQLStore._connect

    def connect_store(store: PostgreSQLStore) -> StoreConnection:
        connection = connect(store)
        if threading.current_thread().name == "datasources-store":
            connection.answer_timeout = SHORT
        return connection

    monkeypatch.setattr(PostgreSQLStore, "_connect", connect_store)


@pytest.fixture
def proxy(pg_database: Database) -> Iterator[SilentProxy]:
    with SilentProxy(pg_database.port) as proxy:
        yield proxy


@pytest.fixture
def behind(pg_database: Database, proxy: SilentProxy) -> Iterator[PostgreSQLStore]:
    store = PostgreSQLStore(proxy.in_front_of(pg_database).dsn() + "?connect_timeout=60")
    store.add(stored("a"))
    yield store
    store.close()


CHANGES: dict[str, Callable[[PostgreSQLStore], object]] = {
    "add": lambda store: store.add(stored("b")),
    "update": lambda store: store.update(stored("a")),
    "remove": lambda store: store.remove("a"),
    "compact": lambda store: store.compact(),
}


def in_time(change: Callable[[], object]) -> None:
    """Call a function in a thread that does not keep a failing test from its end."""
    call_in_daemon_thread(THREAD, change).result(ENOUGH)


@pytest.mark.parametrize("change", CHANGES)
def test_change_on_a_silent_path_is_an_error(
    behind: PostgreSQLStore, proxy: SilentProxy, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.silence()
    for limit in LIMITS:
        monkeypatch.setattr(store_module, limit, SHORT)
    behind._conninfo["connect_timeout"] = "2"
    with pytest.raises(StoreError, match="cannot be used"):
        in_time(lambda: CHANGES[change](behind))
    assert [record.id for record in behind.list()] == ["a"]


def test_path_that_works_again_is_used_by_the_same_write(
    behind: PostgreSQLStore, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.silence()
    proxy.restore()
    usual = {limit: getattr(store_module, limit) for limit in LIMITS}
    connect = PostgreSQLStore._connect

    def connect_store(store: PostgreSQLStore) -> StoreConnection:
        if threading.current_thread().name == THREAD:  # the silent connection is given up
            for limit, seconds in usual.items():
                monkeypatch.setattr(store_module, limit, seconds)
        return connect(store)

    monkeypatch.setattr(PostgreSQLStore, "_connect", connect_store)
    for limit in LIMITS:
        monkeypatch.setattr(store_module, limit, SHORT)
    in_time(lambda: behind.add(stored("b")))
    assert [record.id for record in behind.list()] == ["a", "b"]


def test_path_that_goes_silent_during_a_commit_leaves_the_change_in_doubt(
    behind: PostgreSQLStore, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = StoreConnection.commit

    def silent_commit(connection: StoreConnection) -> None:
        if threading.current_thread().name == THREAD:
            proxy.silence()
            connection.answer_timeout = SHORT
        commit(connection)

    monkeypatch.setattr(StoreConnection, "commit", silent_commit)
    with pytest.raises(StoreError, match="stored or not"):
        in_time(lambda: behind.add(stored("b")))


def test_changes_of_others_are_seen_once_a_silent_path_works_again(
    pg_database: Database, behind: PostgreSQLStore, proxy: SilentProxy
) -> None:
    behind._conninfo["connect_timeout"] = "2"  # it may connect while the path is silent
    proxy.silence()
    other = PostgreSQLStore(pg_database.dsn())
    other.add(stored("b"))
    other.close()
    proxy.restore()
    wait_until_blocking(lambda: behind.get("b"), timeout=120)


def test_answer_that_is_slow_within_the_limit_arrives(pg_database: Database) -> None:
    with StoreConnection.connect(pg_database.dsn()) as connection:
        connection.answer_timeout = 60.0
        assert connection.execute("SELECT pg_sleep(0.3)").rowcount == 1
        connection.answer_timeout = 0.3
        with pytest.raises(psycopg.OperationalError, match="no answer from the server"):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.closed
