"""Connect to a source outside its pool, to see that it works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from datasources.connector import mask_connector_error
from datasources.errors import ConnectError
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
            Exception: It does not work; whatever the connector raises.
        """
        connector = await self._factory.create(config, PoolConfig(max_size=1))
        try:
            async with asyncio.timeout(self._seconds):
                await connector.connect()
                if not await connector.test_connection():
                    raise ConnectError(f"source {config.id!r} was reached but does not work")
        except TimeoutError as exc:
            reason = f"source {config.id!r} did not answer within {self._seconds:g} seconds"
            raise ConnectError(reason) from exc
        except Exception as exc:
            mask_connector_error(connector, exc)
            raise
        finally:
            await connector.disconnect()


async def checked(
    test: Callable[[], Awaitable[None]], errors: type[Exception] = Exception
) -> ConnectionCheck:
    """Run a test of a connection; return how it ended, and how long it took.

    Args:
        test: Raises if the connection does not work.
        errors: Those that are returned; all others are raised.
    """
    started = time.monotonic()
    error: Exception | None = None
    try:
        await test()
    except errors as exc:
        error = exc
    return ConnectionCheck(error is None, time.monotonic() - started, error)
