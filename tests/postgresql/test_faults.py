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
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    LimitExceededError,
    PoolConfig,
    PoolTimeoutError,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import (
    PASSWORD,
    Admin,
    Report,
    Source,
    active,
    sessions,
    with_limits,
)
from tests.servers import Database, PostgresServer
from tests.waiting import wait_until, wait_until_blocking

ROWS = 30_000
QUERY = f"SELECT g AS n, repeat('x', 40) AS pad, {{}} AS which FROM generate_series(1, {ROWS}) g"


def _expected(which: int) -> str:
    lines = ["n,pad,which", *(f"{n},{'x' * 40},{which}" for n in range(1, ROWS + 1)), ""]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Crowd:
    """Clients that fetch over and over, and what became of their fetches."""

    def __init__(self, connector: PostgreSQLConnector, workspace: Workspace, size: int) -> None:
        self.ended = Counter[str]()
        self.codes = Counter[str | None]()
        self.wrong: list[str] = []
        self.failed_while_up = Counter[str]()
        self._connector = connector
        self._workspace = with_limits(workspace, max_rows=None, timeout=60)
        self._stopped = False
        self._server = 1  # how often it was started; 0 while it is down
        self._tasks = [asyncio.create_task(self._client(which)) for which in range(size)]

    async def succeed(self, times: int) -> None:
        """Return after that many more complete files."""
        goal = self.ended["success"] + times
        await wait_until(lambda: self.ended["success"] >= goal)

    async def survive(self, *steps: Callable[[], object]) -> None:
        """Take steps, in threads, that end with the server started anew; fetch once more."""
        started, self._server = self._server, 0
        for step in steps:
            await asyncio.to_thread(step)
        self._server = started + 1
        await self.succeed(1)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 60)

    async def _client(self, which: int) -> None:
        expected = _expected(which)
        while not self._stopped:
            server = self._server
            try:
                path = await self._connector.fetch_data(QUERY.format(which), self._workspace)
            except (AuthenticationError, ConnectError, PoolTimeoutError) as exc:
                self.ended[type(exc).__name__] += 1
                self.codes[getattr(exc, "code", None)] += 1
                if server and server == self._server:
                    self.failed_while_up[type(exc).__name__] += 1
                await asyncio.sleep(0.02)
            else:
                self.ended["success"] += 1
                if hashlib.sha256(Path(path).read_bytes()).hexdigest() != expected:
                    self.wrong.append(path)

    def leftovers(self) -> list[str]:
        return [name for name in os.listdir(self._workspace) if name.endswith(".part")]

    def told(self) -> str:
        """Return what became of every fetch, for a soak test's report."""
        errors = ", ".join(f"{count} {code}" for code, count in self.codes.most_common()) or "none"
        return (
            f"{self.ended.total()} fetches: {self.ended['success']} complete files, errors by"
            f" SQLSTATE: {errors}; {len(self.wrong)} wrong, {len(self.leftovers())} left over"
        )


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
async def test_fetch_that_begins_once_the_server_is_back_succeeds(
    admin: Admin, pg_roles: PostgresServer, source: Source, workspace: Workspace, how: str
) -> None:
    admin.close()
    crowd = Crowd(await source(pool=PoolConfig(max_size=5)), workspace, 20)
    for _ in range(2):
        await crowd.succeed(10)
        if how == "kill":
            await crowd.survive(pg_roles.kill, lambda: time.sleep(0.5), pg_roles.start)
        else:
            await crowd.survive(pg_roles.restart)
    await crowd.stop()
    assert crowd.failed_while_up == {}
    assert crowd.wrong == []
    assert crowd.leftovers() == []


async def test_session_ended_in_mid_copy_starts_again(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source()
    unlimited = with_limits(workspace, max_rows=None, max_bytes=None)
    query = "SELECT g AS midway FROM generate_series(1, 2000000) g"
    task = asyncio.create_task(connector.fetch_data(query, unlimited))
    await wait_until(lambda: _written(unlimited) > 1_000_000)
    _terminate(admin)
    path = await task
    assert unlimited.written[path].rows == 2_000_000


async def test_session_ended_in_mid_query_starts_again(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(allowed_functions="pg_sleep")
    query = "SELECT 1 AS midway, pg_sleep(0.5)"
    task = asyncio.create_task(connector.fetch_data(query, workspace))
    await wait_until(lambda: active(admin, query))
    _terminate(admin)
    assert Path(await task).read_text() == 'midway,pg_sleep\n1,""\n'


async def test_session_ended_while_connecting_is_an_answer_or_an_error(
    admin: Admin, source: Source
) -> None:
    outcomes = await _connect_under_fire(admin, source, 20)
    assert outcomes.total() == 20
    assert {code[:2] for code in outcomes if code} <= {"08", "57", "OK"}
    assert await (await source()).test_connection()


async def _connect_under_fire(admin: Admin, source: Source, attempts: int) -> Counter[str]:
    """Connect and list while every session is ended as soon as it is seen; count OK or SQLSTATE."""
    outcomes = Counter[str]()
    waiting = iter(range(attempts))

    async def connect() -> None:
        for _ in waiting:
            try:
                await (await source()).list_items()
            except ConnectError as exc:
                outcomes[exc.code or ""] += 1
            else:
                outcomes["OK"] += 1

    tasks = [asyncio.create_task(connect()) for _ in range(4)]
    while not all(task.done() for task in tasks):
        _terminate(admin)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return outcomes


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
    await crowd.survive(
        pg_roles.kill,
        lambda: wait_until_blocking(lambda: crowd.ended["ConnectError"] > 60),
        pg_roles.start,
    )
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
        await wait_until(lambda: sessions(admin, "scarce") == 0)
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
    await wait_until(lambda: not active(admin, "filling"))
    assert await reader.test_connection()


@pytest.mark.soak
async def test_two_hundred_cancelled_fetches_leave_nothing(
    admin: Admin, source: Source, workspace: Workspace, report: Report
) -> None:
    connector = await source(pool=PoolConfig(max_size=4), allowed_functions="pg_sleep")
    unlimited = with_limits(workspace, max_rows=None, max_bytes=None)
    for _ in range(200):
        query = random.choice(["SELECT pg_sleep(30)", QUERY.format(0), "SELECT 1 AS tiny"])
        task = asyncio.create_task(connector.fetch_data(query, unlimited))
        await asyncio.sleep(random.uniform(0, 0.1))
        task.cancel()
        await asyncio.wait([task])
    await wait_until(lambda: not active(admin, "pg_sleep"))
    assert not [name for name in os.listdir(unlimited) if name.endswith(".part")]
    await wait_until(lambda: sessions(admin) <= 4)
    report("200 cancelled, 200 ended")


@pytest.mark.soak
async def test_two_hundred_deadlines_end_their_fetches(
    admin: Admin, source: Source, workspace: Workspace, report: Report
) -> None:
    connector = await source(pool=PoolConfig(max_size=8), allowed_functions="pg_sleep")
    queries = [
        "SELECT pg_sleep(30) AS endless",
        "SELECT generate_series(1, 1000000000) AS endless",
        "SELECT count(*) AS endless FROM generate_series(1, 1000000000) g",
    ]

    async def fetch(number: int) -> None:
        timeout = random.uniform(0.01, 1)
        limited = with_limits(workspace, max_rows=None, max_bytes=None, timeout=timeout)
        with pytest.raises(LimitExceededError):
            await connector.fetch_data(f"{queries[number % 3]} -- {number}", limited)

    for start in range(0, 200, 8):
        await asyncio.gather(*(fetch(number) for number in range(start, start + 8)))
    await wait_until(lambda: not active(admin, "endless"))
    assert os.listdir(workspace) == []
    report("200 deadlines, 200 kept")


@pytest.mark.soak
async def test_fifty_clients_survive_ten_restarts_and_five_hundred_terminations(
    admin: Admin, pg_roles: PostgresServer, pg_database: Database, source: Source,
    workspace: Workspace, report: Report,
) -> None:  # fmt: skip
    admin.close()
    crowd = Crowd(await source(pool=PoolConfig(max_size=10)), workspace, 50)
    killed = 0
    for number in range(10):
        with psycopg.connect(pg_database.dsn(), autocommit=True) as other:
            while killed < 50 * (number + 1):
                await asyncio.sleep(random.uniform(0, 0.05))
                killed += other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'reader' ORDER BY random() LIMIT 1"
                ).rowcount
        await crowd.survive(pg_roles.kill if number % 2 else pg_roles.restart, pg_roles.start)
    await crowd.stop()
    report(f"{killed} sessions ended, 10 restarts; {crowd.told()}")
    assert crowd.wrong == []
    assert crowd.leftovers() == []


@pytest.mark.soak
async def test_server_stopped_for_ten_seconds_hangs_nobody(
    admin: Admin, pg_roles: PostgresServer, source: Source, workspace: Workspace, report: Report
) -> None:
    admin.close()
    crowd = Crowd(await source(pool=PoolConfig(max_size=10)), workspace, 50)
    await crowd.succeed(20)
    await crowd.survive(pg_roles.kill, lambda: time.sleep(10), pg_roles.start)
    await crowd.stop()
    report(f"stopped for 10 s; {crowd.told()}")
    assert crowd.failed_while_up == {}
    assert crowd.wrong == []
    assert crowd.leftovers() == []


@pytest.mark.soak
async def test_every_phase_of_a_fetch_survives_the_end_of_its_session(
    admin: Admin, source: Source, workspace: Workspace, report: Report
) -> None:
    outcomes = await _connect_under_fire(admin, source, 100)
    assert outcomes.total() == 100
    report(f"100 ended while connecting: {dict(outcomes)}")
    connector = await source(pool=PoolConfig(max_size=2), allowed_functions="pg_sleep")
    unlimited = with_limits(workspace, max_rows=None, max_bytes=None)
    for phase, query, begun in (
        ("in mid-query", "SELECT pg_sleep(0.1) AS phase", lambda: active(admin, "AS phase")),
        (
            "in mid-COPY",
            "SELECT g AS phase FROM generate_series(1, 300000) g",
            lambda: _written(unlimited) > 200_000,
        ),
    ):
        ended = Counter[str]()
        for _ in range(50):
            task = asyncio.create_task(connector.fetch_data(query, unlimited))
            await _terminate_once(admin, begun, task)
            path = await task
            ended["complete" if unlimited.written[path].rows in {1, 300_000} else "wrong"] += 1
            os.unlink(path)
        report(f"50 ended {phase}: {dict(ended)}")
        assert ended == {"complete": 50}
    assert os.listdir(unlimited) == []


@pytest.mark.soak
async def test_scarce_connections_and_changed_passwords_are_survived(
    admin: Admin, source: Source, workspace: Workspace, report: Report
) -> None:
    admin.execute(f"CREATE ROLE scarce LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 3")
    try:
        sources = [await source(user="scarce", pool=PoolConfig(max_size=1)) for _ in range(3)]
        for each in sources[1:]:
            await each.disconnect()
        crowds = [Crowd(sources[0], workspace, 10)]
        tried = refused = 0
        for _ in range(20):
            admin.execute("ALTER ROLE scarce PASSWORD 'changed'")
            _terminate(admin, user="scarce")
            tried += 1
            try:
                await sources[1].connect()
            except AuthenticationError as exc:
                refused += exc.code == "28P01"
            admin.execute(f"ALTER ROLE scarce PASSWORD '{PASSWORD}'")
            await crowds[0].succeed(2)
        await crowds[0].stop()
        report(f"{tried} passwords changed, {refused} refused with 28P01; {crowds[0].told()}")
        assert refused == tried
        assert crowds[0].wrong == []
    finally:
        for each in sources:
            await each.disconnect()
        await wait_until(lambda: sessions(admin, "scarce") == 0)
        admin.execute("DROP ROLE scarce")


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


async def _terminate_once(
    admin: Admin, begun: Callable[[], object], task: asyncio.Task[str]
) -> None:
    await wait_until(lambda: begun() or task.done())
    _terminate(admin)


def _terminate(admin: Admin, more: str = "", user: str = "reader") -> None:
    admin.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}' {more}"
    )


def _written(workspace: Workspace) -> int:
    if not os.path.isdir(workspace):
        return 0
    return sum(os.path.getsize(os.path.join(workspace, name)) for name in os.listdir(workspace))
