"""Checks of connecting and disconnecting, in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasources import DataSourceConnector, DataSourceError
from datasources.testing.base import Checks
from datasources.testing.subject import Subject
from datasources.testing.watch import disconnect_at_each_step, nothing_left


class LifecycleChecks(Checks):
    """A connector is connected, used and disconnected, also twice, early and late."""

    async def test_connect_returns_true(self, subject: Subject) -> None:
        connector = subject.connector()
        try:
            assert await connector.connect() is True
        finally:
            await connector.disconnect()

    async def test_connecting_twice_does_nothing_more(
        self, subject: Subject, workspace: Path
    ) -> None:
        await _cycle(subject, workspace)  # what the first use of all imports and opens for good
        connector = subject.connector()
        async with nothing_left("connecting twice and disconnecting once"):
            await connector.connect()
            assert await connector.connect() is True
            await _assert_works(connector, subject, workspace)
            await connector.disconnect()

    async def test_disconnecting_without_connecting_is_harmless(self, subject: Subject) -> None:
        await subject.connector().disconnect()

    async def test_disconnecting_twice_is_harmless(self, subject: Subject) -> None:
        connector = subject.connector()
        await connector.connect()
        await connector.disconnect()
        await connector.disconnect()

    async def test_disconnecting_leaves_nothing_open(
        self, subject: Subject, workspace: Path
    ) -> None:
        await _cycle(subject, workspace)
        async with nothing_left("a connector that was used and disconnected"):
            await _cycle(subject, workspace)

    async def test_a_disconnected_connector_connects_again(
        self, subject: Subject, workspace: Path
    ) -> None:
        connector = subject.connector()
        try:
            for _ in range(2):
                await connector.connect()
                await _assert_works(connector, subject, workspace)
                await connector.disconnect()
        finally:
            await connector.disconnect()

    async def test_testing_a_connection_is_true(self, connector: DataSourceConnector) -> None:
        assert await connector.test_connection() is True

    async def test_testing_leaves_the_connection_usable(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        await connector.test_connection()
        await connector.connect()  # as a pool does; nothing more where still connected
        await _assert_works(connector, subject, workspace)

    async def test_testing_before_connecting_is_an_answer(self, subject: Subject) -> None:
        connector = subject.connector()
        try:
            assert await connector.test_connection() in (True, False)
        finally:
            await connector.disconnect()

    @pytest.mark.parametrize("method", ["list_items", "fetch_data", "get_metadata"])
    async def test_use_before_connecting_is_a_clear_error(
        self, subject: Subject, workspace: Path, method: str
    ) -> None:
        await _assert_clear_error(subject.connector(), subject, workspace, method)

    @pytest.mark.parametrize("method", ["list_items", "fetch_data", "get_metadata"])
    async def test_use_after_disconnecting_is_a_clear_error(
        self, subject: Subject, workspace: Path, method: str
    ) -> None:
        connector = subject.connector()
        await connector.connect()
        await connector.disconnect()
        await _assert_clear_error(connector, subject, workspace, method)

    async def test_instances_do_not_share_their_connection(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        other = subject.connector()
        await other.connect()
        await other.disconnect()
        await _assert_works(connector, subject, workspace)

    async def test_disconnecting_during_a_fetch_ends_it(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        identifier, content = subject.largest()
        await disconnect_at_each_step(subject.connector, identifier, content, tmp_path)


async def _cycle(subject: Subject, workspace: Path) -> None:
    connector = subject.connector()
    await connector.connect()
    try:
        await _assert_works(connector, subject, workspace)
    finally:
        await connector.disconnect()


async def _assert_works(connector: DataSourceConnector, subject: Subject, workspace: Path) -> None:
    for identifier, content in list(subject.items.items())[:2]:
        path = Path(await connector.fetch_data(identifier, str(workspace)))
        assert path.read_bytes() == content


async def _assert_clear_error(
    connector: DataSourceConnector, subject: Subject, workspace: Path, method: str
) -> None:
    identifier = next(iter(subject.items))
    arguments: dict[str, tuple[Any, ...]] = {
        "list_items": (),
        "fetch_data": (identifier, str(workspace)),
        "get_metadata": (identifier,),
    }
    try:
        await getattr(connector, method)(*arguments[method])
    except DataSourceError as exc:
        assert "connect" in str(exc), f"{method} should say that there is no connection, not {exc}"
    except Exception as exc:  # noqa: BLE001  (shown in the failure)
        pytest.fail(f"{method} without a connection must be a ConnectError, not {exc!r}")
    else:
        pytest.fail(f"{method} without a connection must raise ConnectError")
