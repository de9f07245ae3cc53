from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    DataSourceError,
    DataSourceRegistry,
    Limits,
    PolicyError,
    PoolClosedError,
    PoolConfig,
    PoolTimeoutError,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.reading import begin
from tests.postgresql.conftest import (
    PASSWORD,
    Admin,
    Source,
    active,
    configured,
    rows_of,
    sessions,
)
from tests.servers import Database, PostgresServer, free_port
from tests.waiting import wait_until


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose server accepts and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        held: list[socket.socket] = []
        ended = threading.Event()

        def accept() -> None:
            server.settimeout(0.05)
            while not ended.is_set():
                try:
                    held.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        thread.join()
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"password": "wrong-password"}, AuthenticationError, "28P01"),
        ({"password": None}, AuthenticationError, "28P01"),
        ({"user": "nobody-such"}, AuthenticationError, "28P01"),
        ({"database": "no_such_database"}, ConnectError, "3D000"),
        ({"host": "no-such-host.invalid"}, ConnectError, "08001"),
        ({"sslmode": "require"}, ConnectError, "08001"),
    ],
)
async def test_failed_connect_raises_its_own_error(
    admin: Admin,
    pg_database: Database,
    options: dict,
    error: type[ConnectorError],
    code: str | None,
) -> None:
    connector = configured(pg_database, **options)
    with pytest.raises(error) as caught:
        await connector.connect()
    assert type(caught.value) is error
    assert caught.value.code == code
    assert not await connector.test_connection()


async def test_closed_port_is_a_connect_error(admin: Admin, pg_database: Database) -> None:
    connector = configured(pg_database, port=free_port())
    with pytest.raises(ConnectError, match="refused") as caught:
        await connector.connect()
    assert caught.value.code == "08001"


async def test_silent_server_is_a_connect_error_within_the_timeout(
    admin: Admin, pg_database: Database, silent_port: int
) -> None:
    connector = configured(pg_database, port=silent_port, connect_timeout=0.3)
    with pytest.raises(ConnectError, match=r"no answer from the server .* within 0\.3 seconds"):
        await connector.connect()


async def test_connecting_that_is_cancelled_closes_its_socket(pg_database: Database) -> None:
    states: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        states.append("begun")
        with suppress(ConnectionError):
            await reader.read()
        states.append("ended")
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        connector = configured(pg_database, port=server.sockets[0].getsockname()[1])
        connecting = asyncio.create_task(connector.connect())
        await wait_until(lambda: states == ["begun"])
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await connecting
        # The traceback keeps the frames, and what they have, from the garbage collector.
        await wait_until(lambda: states == ["begun", "ended"])
        assert caught.value.__traceback__ is not None


async def test_nothing_is_left_of_a_failed_connect(admin: Admin, pg_database: Database) -> None:
    for options in ({"password": "wrong-password"}, {"user": "postgres"}):
        with pytest.raises(DataSourceError):
            await configured(pg_database, **options).connect()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()  # an unclosed connection would warn


async def test_connecting_twice_does_nothing_more(
    admin: Admin, pg_database: Database, source: Source
) -> None:
    connector = await source()
    assert await connector.connect() is True
    assert sessions(admin) == 1


async def test_disconnect_closes_every_session_and_connect_opens_again(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source()
    await asyncio.gather(*(connector.list_items() for _ in range(5)))
    await connector.disconnect()
    await connector.disconnect()
    await wait_until(lambda: sessions(admin) == 0)
    assert not await connector.test_connection()
    with pytest.raises(ConnectError, match="not connected"):
        await connector.list_items()
    await connector.connect()
    assert await connector.test_connection()


async def test_superuser_is_refused_unless_the_host_insists(
    admin: Admin, pg_database: Database, source: Source
) -> None:
    login = {"user": pg_database.user, "password": pg_database.password}
    with pytest.raises(PolicyError, match=r"is a superuser.*'allow_privileged_role'") as caught:
        await source(**login)
    assert "`datasources template postgresql --role`" in str(caught.value)
    assert await (await source(**login, allow_privileged_role=True)).test_connection()


@pytest.mark.parametrize(
    "membership",
    [
        "pg_execute_server_program",
        "pg_read_server_files",
        "pg_signal_backend",
        "pg_write_server_files",
    ],
)
async def test_role_with_rights_on_the_server_is_refused(
    admin: Admin, source: Source, membership: str
) -> None:
    admin.execute("CREATE ROLE between")
    admin.execute(f"CREATE ROLE indirect LOGIN PASSWORD '{PASSWORD}' NOINHERIT")
    try:
        admin.execute(f"GRANT {membership} TO between; GRANT between TO indirect")
        with pytest.raises(PolicyError, match=f"may act as '{membership}'"):
            await source(user="indirect")
    finally:
        admin.execute("DROP ROLE indirect, between")


async def test_pool_size_bounds_the_sessions(admin: Admin, source: Source) -> None:
    connector = await source(pool=PoolConfig(max_size=3))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sessions(admin))
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    async with AsyncExitStack() as held:
        await _leased(connector, held, 2)  # otherwise one session could be fast enough for all
        await asyncio.gather(*(connector.list_items() for _ in range(60)))
        assert sessions(admin) == 3
    await asyncio.gather(*(connector.list_items() for _ in range(60)))
    watcher.cancel()
    assert most == 3


async def _leased(connector: PostgreSQLConnector, held: AsyncExitStack, count: int) -> None:
    """Lease connections until the stack is closed."""
    assert connector._connections is not None
    for _ in range(count):
        await held.enter_async_context(connector._connections.lease())


async def test_pool_in_use_is_a_timeout_that_says_so(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(
        pool=PoolConfig(max_size=1, acquire_timeout=1), allowed_functions="pg_sleep"
    )
    slow = asyncio.create_task(connector.fetch_data("SELECT pg_sleep(30)", workspace))
    await wait_until(lambda: active(admin, "pg_sleep(30)"))
    with pytest.raises(PoolTimeoutError, match="all 1 connections of the source are in use"):
        await connector.list_items()
    slow.cancel()
    await asyncio.wait([slow])
    connections = connector._connections
    assert connections is not None
    await wait_until(lambda: connections._pool.get_stats()["pool_available"] == 1)
    assert await connector.test_connection()


async def test_server_that_went_away_is_an_error_until_it_is_back(
    admin: Admin, pg_roles: PostgresServer, pg_database: Database, source: Source
) -> None:
    connector = await source()
    admin.close()
    pg_roles.kill()
    for _ in range(3):
        with pytest.raises(ConnectError):
            await connector.list_items()
    await asyncio.to_thread(pg_roles.start)
    assert await connector.list_items() == []


async def test_changed_password_is_an_authentication_error_for_new_sessions(
    admin: Admin, source: Source
) -> None:
    admin.execute(f"CREATE ROLE fickle LOGIN PASSWORD '{PASSWORD}'")
    try:
        connector = await source(user="fickle")
        admin.execute("ALTER ROLE fickle PASSWORD 'changed'")
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'fickle'"
        )
        with pytest.raises(AuthenticationError):
            await connector.list_items()
        admin.execute(f"ALTER ROLE fickle PASSWORD '{PASSWORD}'")
        assert await connector.list_items() is not None
        await connector.disconnect()
    finally:
        admin.execute("DROP ROLE fickle")


async def test_connections_used_up_at_the_server_are_waited_for(
    admin: Admin, source: Source
) -> None:
    admin.execute(f"CREATE ROLE narrow LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 2")
    try:
        connector = await source(user="narrow")
        async with AsyncExitStack() as held:
            await _leased(connector, held, 1)
            results = await asyncio.gather(*(connector.list_items() for _ in range(30)))
        assert len(results) == 30
        assert sessions(admin, "narrow") == 2
        with pytest.raises(ConnectError) as caught:
            await type(connector)(connector.config).connect()
        assert caught.value.code == "53300"
        await connector.disconnect()
        await wait_until(lambda: sessions(admin, "narrow") == 0)
    finally:
        admin.execute("DROP ROLE narrow")


async def test_terminated_idle_sessions_are_replaced_before_they_are_used(
    admin: Admin, source: Source
) -> None:
    connector = await source(pool=PoolConfig(connect_attempts=1))  # no read is tried again
    for _ in range(5):
        async with AsyncExitStack() as held:
            await _leased(connector, held, 2)
        await _end_sessions(admin)
        await asyncio.gather(*(connector.list_items() for _ in range(6)))
        assert _sessions(admin, "pid")


async def _end_sessions(admin: Admin) -> None:
    ended = dict(_sessions(admin, "pid, pg_terminate_backend(pid)"))
    assert len(ended) > 1
    assert all(ended.values())
    await wait_until(lambda: not ended.keys() & dict(_sessions(admin, "pid, 0")))


def _sessions(admin: Admin, columns: str) -> list[tuple]:
    """Return what the server says of each session of `reader`."""
    where = "datname = current_database() AND usename = 'reader'"
    return admin.execute(f"SELECT {columns} FROM pg_stat_activity WHERE {where}").fetchall()


async def test_session_is_as_new_for_the_next_user(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    connector = await source(
        pool=PoolConfig(max_size=1),
        allowed_functions="set_config,pg_advisory_lock,setseed,nextval",
    )
    before = await _session(connector, workspace)
    for query in (
        "SELECT set_config('work_mem', '64kB', false), set_config('search_path', 'x', false)",
        "SELECT pg_advisory_lock(42)",
        "SELECT 1/0",
        "SELECT set_config('role', 'reader', false)",
        "SELECT set_config('statement_timeout', '0', false) FROM generate_series(1, 9)",
    ):
        with suppress(DataFetchError):
            await connector.fetch_data(query, workspace)
        assert await _session(connector, workspace) == before


async def _session(connector, workspace: Workspace) -> list:
    settings = await connector.preview(
        "SELECT name, setting, source FROM pg_settings ORDER BY name", 1000
    )
    state = await connector.preview(
        "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),"
        " (SELECT count(*) FROM pg_prepared_statements),"
        " (SELECT count(*) FROM pg_cursors WHERE NOT is_holdable),"
        " (SELECT count(*) FROM pg_listening_channels()), current_user, session_user"
    )
    return [settings.rows, state.rows]


@pytest.mark.parametrize("jit", ["on", "off"])
async def test_only_the_callers_statements_run_with_the_roles_jit(
    admin: Admin, pg_database: Database, source: Source, workspace: Workspace, jit: str
) -> None:
    admin.execute(f"ALTER ROLE reader IN DATABASE {pg_database.name} SET jit = {jit}")
    connector = await source()
    query = "SELECT current_setting('jit') AS jit"
    assert (await connector.preview(query)).rows == [(jit,)]
    assert (await connector.preview("SHOW jit")).rows == [(jit,)]
    assert rows_of(await connector.fetch_data(query, workspace)) == [["jit"], [jit]]
    assert rows_of(await connector.fetch_data("SHOW jit", workspace)) == [["jit"], [jit]]
    assert connector._connections is not None
    async with connector._connections.lease() as connection:
        transaction = await begin(connection, connector.options)
        assert await transaction.execute(query.encode()) == [("off",)]


SESSIONS_ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
SLOW = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
LARGE = "SELECT repeat('x', 1000) FROM generate_series(1, 100000000)"


@pytest.mark.parametrize("format_", ["csv", "parquet"])
@pytest.mark.parametrize("query", [SLOW, LARGE], ids=["slow", "large"])
async def test_disconnecting_ends_a_fetch_and_its_query(
    admin: Admin, source: Source, tmp_path: Path, query: str, format_: str
) -> None:
    connector = await source()
    workspace = Workspace(tmp_path, limits=Limits(None, None, None), file_format=format_)
    fetch = asyncio.create_task(connector.fetch_data(query, workspace))
    await wait_until(lambda: active(admin, "COPY"))
    await connector.disconnect()
    with pytest.raises(ConnectError, match="disconnected while"):
        await fetch
    await wait_until(lambda: not sessions(admin))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["unregister", "disconnect_all", "close"])
async def test_closing_cuts_off_a_fetch_that_takes_too_long(
    admin: Admin, pg_database: Database, tmp_path: Path, ending: str
) -> None:
    registry = DataSourceRegistry()
    await registry.register_data_source(configured(pg_database).config)
    fetch = asyncio.create_task(
        registry.fetch("pg", SLOW, tmp_path, limits=Limits(None, None, None))
    )
    await wait_until(lambda: active(admin, "COPY"))
    match ending:
        case "unregister":
            await registry.unregister_data_source("pg", timeout=0.01)
        case "disconnect_all":
            await registry.disconnect_all(timeout=0.01)
        case _:
            await registry.close(timeout=0.01)
    assert fetch.done()
    with pytest.raises(PoolClosedError, match="'pg' was closed while it was in use"):
        await fetch
    await wait_until(lambda: not sessions(admin))
    assert list(tmp_path.iterdir()) == []
    await registry.close()


async def test_rotated_password_works_without_a_refusal(
    admin: Admin, pg_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute("CREATE ROLE rotating LOGIN PASSWORD 'first-pass-1'")
    monkeypatch.setenv("ROTATING", "first-pass-1")
    config = configured(pg_database, user="rotating", password="${env:ROTATING}").config
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(config)
        await registry.list_items("pg")
        monkeypatch.setenv("ROTATING", "second-pass-2")
        admin.execute("ALTER ROLE rotating PASSWORD 'second-pass-2'")
        admin.execute(f"{SESSIONS_ENDED} WHERE usename = 'rotating'")
        await wait_until(lambda: not sessions(admin, "rotating"))
        assert await registry.list_items("pg") == []
    admin.execute("DROP ROLE rotating")
