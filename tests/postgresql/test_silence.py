"""A path to the server that goes silent, while it acknowledges what is sent, holds nobody up."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datasources import (
    ConnectError,
    DataFetchError,
    LimitExceededError,
    Limits,
    PoolConfig,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector, copying, libpq, reading
from datasources_postgresql.copying import ServerSilentError
from datasources_postgresql.splits import plans
from tests.postgresql.conftest import Admin, Source, active, with_limits
from tests.servers import Database
from tests.waiting import wait_until

ENOUGH = 60  # seconds in which everything here has ended
SHORT = 0.2  # seconds that nothing is given which is to answer
SLEEP = "SELECT pg_sleep(50)"


class Proxy:
    """Passes bytes on between clients and a server, until it is silenced."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.silent = False
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def silence(self) -> None:
        """Drop what the present connections send, and what later ones send until `restore`."""
        self.silent = True

    def restore(self) -> None:
        """Serve later connections; the present ones stay silent."""
        for task in self._tasks:
            task.cancel()
        self.silent = False

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if not self.silent:
                sink.write(data)
                await sink.drain()
        sink.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # until the transports have closed their sockets


@pytest.fixture
def proxy(pg_database: Database) -> Proxy:
    return Proxy(pg_database.port)


@pytest.fixture
async def behind(
    admin: Admin, source: Source, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgreSQLConnector]:
    """A source with one connection through the proxy."""
    admin.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) g")
    monkeypatch.setattr(reading, "_GRACE", 0.2)
    async with await asyncio.start_server(proxy.accept, "127.0.0.1", 0) as server:
        connector = await source(
            port=server.sockets[0].getsockname()[1],
            statement_timeout=ENOUGH,
            connect_timeout=ENOUGH,
            allowed_functions="pg_sleep",
            pool=PoolConfig(max_size=1, connect_attempts=2),
        )
        yield connector
        await connector.disconnect()
        await proxy.close()


def expect_no_answer(connector: PostgreSQLConnector) -> None:
    """Shorten the limit of idle connections, which are silent, and not that of later ones."""
    assert connector._connections is not None
    for connection in connector._connections._pool._pool:
        connection.answer_timeout = SHORT


def expect_no_new_connection(connector: PostgreSQLConnector) -> None:
    """Shorten the limit of connecting, to a server that is silent."""
    assert connector._connections is not None
    connector._connections._connect_timeout = SHORT


async def after_all_limits(task: asyncio.Future[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the limits of a task that waits for the server be over, until it ends.

    The clocks stay ahead until the source is disconnected, as it connects again meanwhile.
    """
    ahead = 0.0
    loop = asyncio.get_running_loop()
    loop_time, thread_time = loop.time, time.monotonic
    monkeypatch.setattr(loop, "time", lambda: loop_time() + ahead)
    clock = SimpleNamespace(monotonic=lambda: thread_time() + ahead)
    monkeypatch.setattr(copying, "time", clock)
    while not task.done():
        ahead += 2 * ENOUGH
        await asyncio.wait({task}, timeout=0.01)
    return task.result()


OPERATIONS: dict[str, Callable[[PostgreSQLConnector, Workspace], Awaitable[Any]]] = {
    "list_items": lambda connector, _: connector.list_items(),
    "get_metadata": lambda connector, _: connector.get_metadata("t"),
    "exact_rows": lambda connector, _: connector.get_metadata("t", exact_rows=True),
    "preview": lambda connector, _: connector.preview("t"),
    "statistics": lambda connector, _: connector.statistics("t"),
    "read_table": lambda connector, _: connector.read_table("t"),
    "fetch": lambda connector, workspace: connector.fetch_data("t", workspace),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_on_a_silent_connection_is_a_connect_error(
    behind: PostgreSQLConnector, proxy: Proxy, workspace: Workspace, name: str
) -> None:
    proxy.silence()
    expect_no_answer(behind)
    expect_no_new_connection(behind)
    async with asyncio.timeout(ENOUGH):
        with pytest.raises(ConnectError, match="no answer from the server"):
            await OPERATIONS[name](behind, workspace)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_on_a_connection_that_went_silent_has_a_new_one_that_works(
    behind: PostgreSQLConnector, proxy: Proxy, workspace: Workspace, name: str
) -> None:
    proxy.silence()
    await asyncio.sleep(0)
    proxy.restore()
    expect_no_answer(behind)
    async with asyncio.timeout(ENOUGH):
        await OPERATIONS[name](behind, workspace)
    assert proxy.connections == 2


READS: dict[str, Callable[[PostgreSQLConnector, Workspace], Awaitable[Any]]] = {
    "preview": lambda connector, _: connector.preview(SLEEP),
    "fetch": lambda connector, workspace: connector.fetch_data(SLEEP, workspace),
    "read_table": lambda connector, _: connector.read_table(SLEEP),
}


@pytest.mark.parametrize("name", READS)
async def test_statement_without_an_answer_ends_after_its_timeout_and_is_not_repeated(
    admin: Admin,
    behind: PostgreSQLConnector,
    proxy: Proxy,
    workspace: Workspace,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = asyncio.ensure_future(READS[name](behind, workspace))
    await wait_until(
        lambda: (
            active(admin, "pg_sleep(50)")
            and admin.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").rowcount
        )
    )
    proxy.silence()
    expect_no_new_connection(behind)
    with pytest.raises(ConnectError, match=r"no answer from the server within 60.2 seconds"):
        await after_all_limits(answer, monkeypatch)  # to repeat it, one would connect in vain


@pytest.mark.parametrize("format_", ["csv", "parquet"])
async def test_copy_that_stops_in_the_middle_ends_after_the_statement_timeout(
    behind: PostgreSQLConnector,
    proxy: Proxy,
    workspace: Workspace,
    format_: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endless = Workspace(workspace, file_format=format_, limits=Limits(timeout=None, max_rows=None))
    query = "SELECT repeat('x', 1000), generate_series(1, 100000000)"
    fetch = asyncio.ensure_future(behind.fetch_data(query, endless))
    await wait_until(lambda: written(endless))
    proxy.silence()
    expect_no_new_connection(behind)
    with pytest.raises(ConnectError, match="no answer from the server"):
        await after_all_limits(fetch, monkeypatch)


def written(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*"))


async def test_plan_whose_only_connection_goes_silent_under_a_reader_can_be_left(
    admin: Admin, behind: PostgreSQLConnector, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_UNDO_TIMEOUT", SHORT)
    admin.execute("INSERT INTO t SELECT generate_series(1, 1000000)")

    async def read_and_leave() -> AsyncIterator[Any]:
        async with behind.plan_splits("t", target_bytes=1 << 30, max_splits=1) as plan:
            batches = behind.read_split(plan.splits[0])
            await anext(batches)
            proxy.silence()
            expect_no_new_connection(behind)
        return batches

    leaving = asyncio.ensure_future(read_and_leave())
    await asyncio.wait([leaving], timeout=ENOUGH)
    assert leaving.done()
    with pytest.raises(DataFetchError, match="the plan of the split has ended"):
        _ = [batch async for batch in leaving.result()]


async def test_time_limit_of_a_fetch_is_kept_on_a_silent_path(
    behind: PostgreSQLConnector, proxy: Proxy, workspace: Workspace
) -> None:
    proxy.silence()
    limited = with_limits(workspace, timeout=0.2)
    async with asyncio.timeout(ENOUGH):
        with pytest.raises(LimitExceededError, match=r"0.2 seconds"):
            await behind.fetch_data("t", limited)


async def test_idle_connections_are_replaced_at_once_after_one_went_silent(
    admin: Admin, source: Source, proxy: Proxy
) -> None:
    async with await asyncio.start_server(proxy.accept, "127.0.0.1", 0) as server:
        connector = await source(
            port=server.sockets[0].getsockname()[1],
            connect_timeout=ENOUGH,
            pool=PoolConfig(min_size=4, max_size=4, connect_attempts=2),
        )
        assert connector._connections is not None
        idle = connector._connections._pool._pool
        await wait_until(lambda: len(idle) == 4)
        proxy.silence()
        await asyncio.sleep(0)
        proxy.restore()
        expect_no_answer(connector)
        async with asyncio.timeout(ENOUGH):
            for _ in range(4):
                assert (await connector.preview("SELECT 1")).rows == [(1,)]
        await connector.disconnect()
        await proxy.close()


async def test_answer_that_arrives_while_the_loop_is_blocked_counts(
    admin: Admin, source: Source
) -> None:
    connector = await source()
    assert connector._connections is not None
    async with connector._connections.lease() as connection:
        connection.answer_timeout = 1
        answer = asyncio.create_task(libpq.query(connection, b"SELECT 1, pg_sleep(0.1)"))
        await asyncio.sleep(0.05)
        # The claim is about a loop that is blocked until the answer is there and its time over.
        select.select([connection.fileno()], [], [], ENOUGH)
        time.sleep(1.1)  # noqa: ASYNC251
        assert (await answer).get_value(0, 0) == b"1"
        with pytest.raises(ServerSilentError):
            await libpq.query(connection, b"SELECT pg_sleep(10)")
        assert connection.closed
