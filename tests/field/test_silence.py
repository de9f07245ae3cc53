"""A path to the server that goes silent, while the kernel still acknowledges, holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from datasources import (
    ConnectError,
    DataSourceError,
    DataSourceRegistry,
    LimitExceededError,
    PoolConfig,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector
from tests.field.operations import OPERATIONS, SMALL_TABLE
from tests.postgresql.conftest import Admin, Source, configured, with_limits
from tests.servers import Database
from tests.servers.proxy import SilentProxy

LIMIT = 1.0  # seconds for a statement and for a connection
PATIENCE = 15.0  # seconds in which an operation must have ended


@pytest.fixture
async def behind_proxy(
    request: pytest.FixtureRequest, admin: Admin, source: Source, silent_proxy: SilentProxy
) -> PostgreSQLConnector:
    """A source with warm connections through the proxy, one unless the test's parameter says more.

    The proxy is torn down first, so that closing the source need not wait for the server.
    """
    size = getattr(request, "param", 1)
    admin.execute(SMALL_TABLE)
    connector = await source(
        port=silent_proxy.port,
        statement_timeout=LIMIT,
        connect_timeout=LIMIT,
        pool=PoolConfig(min_size=size, max_size=size, connect_attempts=1),
    )
    await asyncio.gather(*(connector.preview("orders") for _ in range(size)))
    return connector


async def test_proxy_passes_on_until_it_is_silenced(
    behind_proxy: PostgreSQLConnector, silent_proxy: SilentProxy
) -> None:
    trips = silent_proxy.round_trips
    await behind_proxy.preview("orders")
    assert silent_proxy.round_trips > trips


async def test_first_connection_on_a_silent_path_is_an_error(
    admin: Admin, source: Source, silent_proxy: SilentProxy
) -> None:
    silent_proxy.silence()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectError, match="no answer from the server"):
            await source(port=silent_proxy.port, connect_timeout=LIMIT)


async def test_fetch_on_a_silent_path_ends_by_its_time_limit(
    behind_proxy: PostgreSQLConnector, silent_proxy: SilentProxy, workspace: Workspace
) -> None:
    silent_proxy.silence()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LimitExceededError, match="1 seconds"):
            await behind_proxy.fetch_data("orders", with_limits(workspace, timeout=LIMIT))


async def test_check_of_a_source_on_a_silent_path_ends(
    admin: Admin, pg_database: Database, silent_proxy: SilentProxy
) -> None:
    database = silent_proxy.in_front_of(pg_database)
    connector = configured(database, statement_timeout=LIMIT, connect_timeout=LIMIT)
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(connector.config)
        assert await registry.test_connection("pg")
        silent_proxy.silence()
        async with asyncio.timeout(PATIENCE):
            assert not await registry.test_connection("pg")


@pytest.mark.parametrize("behind_proxy", [len(OPERATIONS)], indirect=True, ids=["every operation"])
async def test_no_operation_outlasts_its_statement_on_a_silent_path(
    behind_proxy: PostgreSQLConnector, silent_proxy: SilentProxy, workspace: Workspace
) -> None:
    limited = with_limits(workspace, timeout=LIMIT)
    silent_proxy.silence()
    operations = {
        asyncio.ensure_future(operation(behind_proxy, limited)): name
        for name, operation in OPERATIONS.items()
        if name != "test_connection"
    }
    ended, hanging = await asyncio.wait(operations, timeout=PATIENCE)
    for operation in hanging:
        operation.cancel()
    await asyncio.gather(*operations, return_exceptions=True)
    assert [operations[operation] for operation in hanging] == []
    assert all(isinstance(operation.exception(), DataSourceError) for operation in ended)


async def test_source_works_again_once_the_path_does(
    behind_proxy: PostgreSQLConnector, silent_proxy: SilentProxy, workspace: Workspace
) -> None:
    silent_proxy.silence()
    with pytest.raises(LimitExceededError):
        await behind_proxy.fetch_data("orders", with_limits(workspace, timeout=LIMIT))
    silent_proxy.restore()
    async with asyncio.timeout(PATIENCE):
        await behind_proxy.fetch_data("orders", with_limits(workspace, timeout=60))
