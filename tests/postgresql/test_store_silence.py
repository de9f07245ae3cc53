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
ENOUGH = 30  # seconds in which everything here has ended; the limits below are far shorter


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the client's limits; those of the server stay as they are."""
    for name in ("_LOCK_TIMEOUT", "_STATEMENT_TIMEOUT", "_GRACE"):
        monkeypatch.setattr(store_module, name, 0.3)


@pytest.fixture
def proxy(pg_database: Database) -> Iterator[SilentProxy]:
    with SilentProxy(pg_database.port) as proxy:
        yield proxy


@pytest.fixture
def behind(pg_database: Database, proxy: SilentProxy) -> Iterator[PostgreSQLStore]:
    store = PostgreSQLStore(proxy.in_front_of(pg_database).dsn() + "?connect_timeout=2")
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
    behind: PostgreSQLStore, proxy: SilentProxy, change: str
) -> None:
    proxy.silence()
    with pytest.raises(StoreError, match="cannot be used"):
        in_time(lambda: CHANGES[change](behind))
    assert [record.id for record in behind.list()] == ["a"]


def test_path_that_works_again_is_used_by_the_same_write(
    behind: PostgreSQLStore, proxy: SilentProxy
) -> None:
    proxy.silence()
    proxy.restore()
    in_time(lambda: behind.add(stored("b")))
    assert [record.id for record in behind.list()] == ["a", "b"]


def test_path_that_goes_silent_during_a_commit_leaves_the_change_in_doubt(
    behind: PostgreSQLStore, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = StoreConnection.commit

    def silent_commit(connection: StoreConnection) -> None:
        if threading.current_thread().name == THREAD:
            proxy.silence()
        commit(connection)

    monkeypatch.setattr(StoreConnection, "commit", silent_commit)
    with pytest.raises(StoreError, match="stored or not"):
        in_time(lambda: behind.add(stored("b")))


def test_changes_of_others_are_seen_once_a_silent_path_works_again(
    pg_database: Database, behind: PostgreSQLStore, proxy: SilentProxy
) -> None:
    proxy.silence()
    other = PostgreSQLStore(pg_database.dsn())
    other.add(stored("b"))
    other.close()
    proxy.restore()
    wait_until_blocking(lambda: behind.get("b"))


def test_answer_that_is_slow_within_the_limit_arrives(pg_database: Database) -> None:
    with StoreConnection.connect(pg_database.dsn()) as connection:
        connection.answer_timeout = 2.0
        assert connection.execute("SELECT pg_sleep(0.3)").rowcount == 1
        with pytest.raises(psycopg.OperationalError, match="no answer from the server"):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.closed
