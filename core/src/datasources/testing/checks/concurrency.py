"""Checks of many callers at once, and of calls that must not block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from datasources import DataSourceConnector, PoolConfig
from datasources.testing.base import Checks, registry_of
from datasources.testing.stalls import assert_never_stalls
from datasources.testing.subject import Subject
from datasources.testing.watch import all_of, files

_CALLERS = 8


class ConcurrencyChecks(Checks):
    """A shareable instance serves many callers at once, an exclusive one does in a pool."""

    async def test_one_instance_serves_many_fetches_at_once(
        self, connector: DataSourceConnector, subject: Subject, tmp_path: Path
    ) -> None:
        _needs_shareable(subject)
        requests = [(name, tmp_path / str(n)) for n in range(_CALLERS) for name in subject.items]
        paths = await all_of(connector.fetch_data(name, str(place)) for name, place in requests)
        for (name, _), path in zip(requests, paths, strict=True):
            assert Path(path).read_bytes() == subject.items[name], f"{name!r} came otherwise"

    async def test_one_instance_serves_different_calls_at_once(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        _needs_shareable(subject)
        identifier, content = subject.largest()
        calls: list[Coroutine[Any, Any, Any]] = [
            connector.list_items(),
            connector.get_metadata(identifier),
            connector.test_connection(),
            connector.fetch_data(identifier, str(workspace)),
        ]
        listed, metadata, alive, path = await all_of(calls)
        assert identifier in {item.path for item in listed}
        assert metadata
        assert alive is True
        assert Path(path).read_bytes() == content

    async def test_one_item_fetched_many_times_at_once_is_whole(
        self, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()

        async def fetch() -> str:
            connector = subject.connector()
            await connector.connect()
            try:
                return await connector.fetch_data(identifier, str(workspace))
            finally:
                await connector.disconnect()

        paths = await all_of(fetch() for _ in range(_CALLERS))
        assert len(set(paths)) == 1
        assert list(files(workspace).values()) == [content]

    async def test_instances_work_side_by_side(self, subject: Subject, tmp_path: Path) -> None:
        connectors = [subject.connector() for _ in range(4)]
        try:
            await all_of(connector.connect() for connector in connectors)
            for name, content in subject.items.items():
                paths = await all_of(
                    connector.fetch_data(name, str(tmp_path / str(number)))
                    for number, connector in enumerate(connectors)
                )
                assert all(Path(path).read_bytes() == content for path in paths)
        finally:
            for connector in connectors:
                await connector.disconnect()

    @pytest.mark.parametrize("size", [1, 4])
    async def test_a_pool_serves_more_callers_than_it_has_connections(
        self, subject: Subject, tmp_path: Path, size: int
    ) -> None:
        requests = [name for _ in range(_CALLERS) for name in subject.items]
        async with registry_of(subject, pool_config=PoolConfig(max_size=size)) as registry:
            await registry.register_data_source(subject.config())
            receipts = await all_of(
                registry.fetch("subject", name, tmp_path / str(number))
                for number, name in enumerate(requests)
            )
            assert registry.get_pool_stats("subject")["in_use"] == 0
        for name, receipt in zip(requests, receipts, strict=True):
            assert Path(receipt.path).read_bytes() == subject.items[name]

    async def test_connecting_and_disconnecting_keep_the_loop_free(self, subject: Subject) -> None:
        async def call() -> None:
            connector = subject.connector()
            await connector.connect()
            await connector.disconnect()

        await assert_never_stalls(call, "connect or disconnect")

    async def test_a_failing_connect_keeps_the_loop_free(self, subject: Subject) -> None:
        options = subject.unanswered()

        async def call() -> None:
            connector = subject.connector(options)
            await asyncio.gather(connector.connect(), return_exceptions=True)
            await connector.disconnect()

        await assert_never_stalls(call, "connecting to a host that does not answer")

    async def test_testing_keeps_the_loop_free(self, connector: DataSourceConnector) -> None:
        await assert_never_stalls(connector.test_connection, "test_connection")

    async def test_listing_keeps_the_loop_free(self, connector: DataSourceConnector) -> None:
        await assert_never_stalls(connector.list_items, "list_items")

    async def test_describing_keeps_the_loop_free(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        name, _ = subject.largest()
        await assert_never_stalls(lambda: connector.get_metadata(name), "get_metadata")

    async def test_fetching_keeps_the_loop_free(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        name, _ = subject.largest()
        await assert_never_stalls(lambda: connector.fetch_data(name, str(workspace)), "fetch_data")


def _needs_shareable(subject: Subject) -> None:
    if not subject.connector_class.shareable:
        pytest.skip("not applicable: an instance that is not shareable serves one caller at a time")
