"""The server fails in every way it can, with fetches under way.

Every fetch ends as a complete file or as an error of this project, none hangs, and the source
works again by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    PoolConfig,
    PoolTimeoutError,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import PASSWORD, Admin, Source, active, sessions, until, with_limits
from tests.servers import Database, PostgresServer

ROWS = 30_000
QUERY = f"SELECT g AS n, repeat('x', 40) AS pad, {{}} AS which FROM generate_series(1, {ROWS}) g"


def _expected(which: int) -> str:
    lines = ["n,pad,which", *(f"{n},{'x' * 40},{which}" for n in range(1, ROWS + 1)), ""]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Crowd:
    """Clients that fetch over and over, and what became of their fetches."""

    def __init__(self, connector: PostgreSQLConnector, workspace: Workspace, size: int) -> None:
        self.ended = Counter[str]()
        self.wrong: list[str] = []
        self.last_success = 0.0
        self._connector = connector
        self._workspace = with_limits(workspace, max_rows=None, timeout=60)
        self._stopped = False
        self._tasks = [asyncio.create_task(self._client(which)) for which in range(size)]

    async def succeed(self, times: int) -> None:
        """Return after that many more complete files."""
        goal = self.ended["success"] + times
        await until(lambda: self.ended["success"] >= goal, "fetches to succeed", timeout=30)

    async def recover(self) -> float:
        """Return the seconds until the next complete file."""
        now = time.monotonic()
        await until(lambda: self.last_success > now, "a fetch to succeed", timeout=20)
        return self.last_success - now

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 60)

    async def _client(self, which: int) -> None:
        expected = _expected(which)
        while not self._stopped:
            try:
                path = await self._connector.fetch_data(QUERY.format(which), self._workspace)
            except (ConnectError, PoolTimeoutError) as exc:
                self.ended[type(exc).__name__] += 1
                await asyncio.sleep(0.02)
            else:
                self.ended["success"] += 1
                self.last_success = time.monotonic()
                if hashlib.sha256(Path(path).read_bytes()).hexdigest() != expected:
                    self.wrong.append(path)

    def leftovers(self) -> list[str]:
        return [name for name in os.listdir(self._workspace) if name.endswith(".part")]


async def test_terminated_backends_cost_nobody_a_wrong_file(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    crowd = Crowd(await source(pool=PoolConfig(max_size=5)), workspace, 10)
    killed = 0
    while killed < 60:
        await asyncio.sleep(random.uniform(0, 0.05))
        killed += admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
            " ORDER BY random() LIMIT 1"
        ).rowcount
    await crowd.succeed(20)
    await crowd.stop()
    assert crowd.wrong == []
    assert crowd.leftovers() == []
    assert crowd.ended["success"] > crowd.ended["ConnectError"]


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_restarted_server_is_back_within_a_second(
    admin: Admin, pg_roles: PostgresServer, source: Source, workspace: Workspace, how: str
) -> None:
    admin.close()
    crowd = Crowd(await source(pool=PoolConfig(max_size=5)), workspace, 20)
    for _ in range(2):
        await crowd.succeed(10)
        if how == "kill":
            await asyncio.to_thread(pg_roles.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(pg_roles.start)
        else:
            await asyncio.to_thread(pg_roles.restart)
        assert await crowd.recover() < 2  # 1 s on a machine of one's own
    await crowd.stop()
    assert crowd.wrong == []
    assert crowd.leftovers() == []


async def test_session_ended_in_mid_copy_starts_again(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source()
    unlimited = with_limits(workspace, max_rows=None, max_bytes=None)
    query = "SELECT g AS midway FROM generate_series(1, 2000000) g"
    task = asyncio.create_task(connector.fetch_data(query, unlimited))
    await until(lambda: _written(unlimited) > 1_000_000, "data to arrive")
    _terminate(admin)
    path = await task
    assert unlimited.written[path].rows == 2_000_000


@pytest.mark.soak  # under load the server may hang up before its last words are read
async def test_session_ended_again_and_again_is_an_error_with_sqlstate(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(allowed_functions="pg_sleep")
    task = asyncio.create_task(connector.fetch_data("SELECT pg_sleep(60)", workspace))
    while not task.done():
        _terminate(admin, "AND query LIKE '%pg_sleep(60)%'")
        await asyncio.sleep(0.01)
    with pytest.raises(ConnectError) as caught:
        await task
    assert caught.value.code == "57P01"


async def test_query_cancelled_by_an_administrator_is_not_repeated(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(allowed_functions="pg_sleep")
    task = asyncio.create_task(connector.fetch_data("SELECT pg_sleep(60)", workspace))
    while not task.done():  # the first may come while the query is still being looked at
        admin.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'reader' AND query LIKE '%pg_sleep(60)%'"
        )
        await asyncio.sleep(0.05)
    with pytest.raises(DataFetchError, match="canceling statement") as caught:
        await task
    assert caught.value.code == "57014"


async def test_server_stopped_for_a_while_hangs_nobody(
    admin: Admin, pg_roles: PostgresServer, source: Source, workspace: Workspace
) -> None:
    admin.close()
    crowd = Crowd(await source(pool=PoolConfig(max_size=5)), workspace, 10)
    await crowd.succeed(5)
    await asyncio.to_thread(pg_roles.kill)
    await until(lambda: crowd.ended["ConnectError"] > 30, "errors")
    await asyncio.sleep(2)
    await asyncio.to_thread(pg_roles.start)
    await crowd.recover()
    await crowd.stop()
    assert set(crowd.ended) <= {"success", "ConnectError", "PoolTimeoutError"}
    assert crowd.wrong == []


async def test_connections_of_the_server_used_up_by_others(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute(f"CREATE ROLE scarce LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 4")
    try:
        one = await source(user="scarce", pool=PoolConfig(max_size=4))
        two = await source(user="scarce", pool=PoolConfig(max_size=4))
        crowds = [Crowd(one, workspace, 6), Crowd(two, workspace, 6)]
        for crowd in crowds:
            await crowd.succeed(5)
        for crowd in crowds:
            await crowd.stop()
            assert crowd.wrong == []
        await one.disconnect()
        await two.disconnect()
        await until(lambda: sessions(admin, "scarce") == 0, "no session")
    finally:
        admin.execute("DROP ROLE scarce")


async def test_full_disk_leaves_the_old_file_and_ends_the_query(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace
) -> None:
    unlimited = with_limits(workspace, max_rows=None, max_bytes=None)
    query = "SELECT g AS filling FROM generate_series(1, {}) g"
    path = await reader.fetch_data(query.format(10), unlimited)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(DataFetchError, match="cannot write"):
            await reader.fetch_data(query.format(3_000_000), unlimited)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert os.listdir(unlimited) == [os.path.basename(path)]
    assert not active(admin, "filling")
    assert await reader.test_connection()


@pytest.mark.soak
async def test_two_hundred_cancelled_fetches_leave_nothing(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(pool=PoolConfig(max_size=4), allowed_functions="pg_sleep")
    unlimited = with_limits(workspace, max_rows=None, max_bytes=None)
    for _ in range(200):
        query = random.choice(["SELECT pg_sleep(30)", QUERY.format(0), "SELECT 1 AS tiny"])
        task = asyncio.create_task(connector.fetch_data(query, unlimited))
        await asyncio.sleep(random.uniform(0, 0.1))
        task.cancel()
        await asyncio.wait([task], timeout=3)
        assert task.done()
    await until(lambda: not active(admin, "pg_sleep"), "no query", timeout=2)
    assert not [name for name in os.listdir(unlimited) if name.endswith(".part")]
    assert sessions(admin) <= 4


@pytest.mark.soak
async def test_fifty_clients_survive_ten_restarts_and_five_hundred_terminations(
    admin: Admin, pg_roles: PostgresServer, pg_database: Database, source: Source,
    workspace: Workspace,
) -> None:  # fmt: skip
    admin.close()
    crowd = Crowd(await source(pool=PoolConfig(max_size=10)), workspace, 50)
    killed, recoveries = 0, []
    for _ in range(10):
        with psycopg.connect(pg_database.dsn(), autocommit=True) as other:
            for _ in range(50):
                await asyncio.sleep(random.uniform(0, 0.05))
                killed += other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'reader' ORDER BY random() LIMIT 1"
                ).rowcount
        await asyncio.to_thread(pg_roles.kill)
        await asyncio.to_thread(pg_roles.start)
        recoveries.append(await crowd.recover())
    await crowd.stop()
    print(f"{killed} terminated, {dict(crowd.ended)}, back after {max(recoveries):.2f} s at most")
    assert crowd.wrong == []
    assert crowd.leftovers() == []


async def test_wrong_role_in_mid_life_is_the_servers_answer(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute(f"CREATE ROLE leaving LOGIN PASSWORD '{PASSWORD}'")
    connector = await source(user="leaving")
    admin.execute("ALTER ROLE leaving NOLOGIN")
    _terminate(admin, user="leaving")
    with pytest.raises((AuthenticationError, ConnectorError)) as caught:
        await connector.fetch_data("SELECT 1", workspace)
    assert caught.value.code in {"28000", "28P01"}
    await connector.disconnect()
    admin.execute("DROP ROLE leaving")


def _terminate(admin: Admin, more: str = "", user: str = "reader") -> None:
    admin.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}' {more}"
    )


def _written(workspace: Workspace) -> int:
    if not os.path.isdir(workspace):
        return 0
    return sum(os.path.getsize(os.path.join(workspace, name)) for name in os.listdir(workspace))
