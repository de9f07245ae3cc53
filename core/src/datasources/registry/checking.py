"""Connect to a source outside its pool, to see that it works."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from datasources.connector import DataSourceConnector, SupportsRights
from datasources.connector_errors import ConnectorErrors
from datasources.errors import ConnectError, DataSourceError
from datasources.models import ConnectionCheck, DataSourceConfig, PoolConfig
from datasources.pool import DISCONNECT_TIMEOUT, DeadlineExceededError, run_with_deadline
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

    async def test(self, config: DataSourceConfig) -> tuple[str, ...]:
        """Connect to a source whose configuration is in clear, and disconnect again.

        A connector that does not end in time, even if it ignores cancellation, is abandoned.

        Returns:
            Sentences about what the account may do besides reading, if the connector tells.

        Raises:
            DataSourceError: It does not work. After a failure to connect, an error of disconnecting
                is left out.
        """
        connectors: list[DataSourceConnector] = []
        warnings: list[str] = []

        async def connect() -> None:
            connector = await self._factory.create(config, PoolConfig(max_size=1))
            connectors.append(connector)
            with ConnectorErrors(connector):
                await connector.connect()
                if not await connector.test_connection():
                    raise ConnectError(f"source {config.id!r} was reached but does not work")
                if isinstance(connector, SupportsRights):
                    warnings.extend(await _excess_rights(connector))

        try:
            await _within(self._seconds, connect, f"source {config.id!r} did not answer")
        except BaseException:
            for connector in connectors:
                with suppress(DataSourceError):
                    await _disconnect(connector)
            raise
        for connector in connectors:
            await _disconnect(connector)
        return tuple(warnings)


async def _excess_rights(connector: SupportsRights) -> Sequence[str]:
    try:
        return await connector.excess_rights()
    except DataSourceError as exc:  # the source works nevertheless
        return [f"the rights of the account could not be read: {exc}"]


async def _disconnect(connector: DataSourceConnector) -> None:
    async def disconnect() -> None:
        with ConnectorErrors(connector):
            await connector.disconnect()

    subject = f"source {connector.config.id!r} works, but did not disconnect"
    await _within(DISCONNECT_TIMEOUT, disconnect, subject)


async def _within(seconds: float, call: Callable[[], Awaitable[None]], subject: str) -> None:
    """Await a call for at most `seconds`; raise ConnectError, which begins with `subject`."""
    try:
        await run_with_deadline(call, seconds)
    except DeadlineExceededError as exc:
        raise ConnectError(f"{subject} within {seconds:g} seconds") from exc


async def checked(test: Callable[[], Awaitable[tuple[str, ...]]]) -> ConnectionCheck:
    """Run a test of a connection; return how it ended, its warnings, and how long it took.

    A `DataSourceError` is in the result; other errors are raised.
    """
    started = time.monotonic()
    error: DataSourceError | None = None
    warnings: tuple[str, ...] = ()
    try:
        warnings = await test()
    except DataSourceError as exc:
        error = exc
    return ConnectionCheck(error is None, time.monotonic() - started, error, warnings)
