"""Connect to a source outside its pool, to see that it works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from datasources.connector import connector_errors
from datasources.errors import ConnectError, DataSourceError
from datasources.models import ConnectionCheck, DataSourceConfig, PoolConfig
from datasources.registry.factory import ConnectorFactory


class ConnectionTester:
    """Connects to sources, each time by a connector of its own.

    Args:
        factory: Makes the connectors.
        pool_config: Of the registry, for the time that connecting may take.
    """

    def __init__(self, factory: ConnectorFactory, pool_config: PoolConfig) -> None:
        self._factory = factory
        self._seconds = pool_config.connect_timeout

    async def test(self, config: DataSourceConfig) -> None:
        """Connect to a source whose configuration is in clear, and disconnect again.

        Raises:
            DataSourceError: It does not work.
        """
        connector = await self._factory.create(config, PoolConfig(max_size=1))
        try:
            async with asyncio.timeout(self._seconds):
                with connector_errors(connector):
                    await connector.connect()
                    if not await connector.test_connection():
                        raise ConnectError(f"source {config.id!r} was reached but does not work")
        except TimeoutError as exc:
            reason = f"source {config.id!r} did not answer within {self._seconds:g} seconds"
            raise ConnectError(reason) from exc
        finally:
            with connector_errors(connector):
                await connector.disconnect()


async def checked(test: Callable[[], Awaitable[None]]) -> ConnectionCheck:
    """Run a test of a connection; return how it ended, and how long it took.

    A `DataSourceError` is in the result; other errors are raised.
    """
    started = time.monotonic()
    error: DataSourceError | None = None
    try:
        await test()
    except DataSourceError as exc:
        error = exc
    return ConnectionCheck(error is None, time.monotonic() - started, error)
