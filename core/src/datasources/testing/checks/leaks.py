"""Checks that repeated use leaves nothing open."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from datasources import DataSourceError
from datasources.testing.base import Checks, registry_of
from datasources.testing.subject import Subject
from datasources.testing.watch import nothing_left

CYCLES = 200


class LeakChecks(Checks):
    """Connections, tasks, threads and files do not accumulate."""

    async def test_200_cycles_of_connect_fetch_disconnect_leave_nothing(
        self, subject: Subject, workspace: Path
    ) -> None:
        identifier = min(subject.items, key=lambda name: len(subject.items[name]))

        async def cycle() -> None:
            connector = subject.connector()
            await connector.connect()
            await connector.fetch_data(identifier, str(workspace))
            await connector.disconnect()

        await cycle()
        async with nothing_left(f"{CYCLES} cycles of connect, fetch and disconnect"):
            for _ in range(CYCLES):
                await cycle()

    async def test_calls_on_one_connection_leave_nothing(
        self, subject: Subject, workspace: Path
    ) -> None:
        identifier = min(subject.items, key=lambda name: len(subject.items[name]))
        connector = subject.connector()

        async def calls(times: int) -> None:
            for _ in range(times):
                await connector.test_connection()
                await connector.list_items()
                await connector.get_metadata(identifier)
                await connector.fetch_data(identifier, str(workspace))
                with suppress(DataSourceError):
                    await connector.fetch_data(subject.missing, str(workspace))

        await connector.connect()
        try:
            await calls(2)
            async with nothing_left("25 rounds of every method on one connection"):
                await calls(25)
        finally:
            await connector.disconnect()

    async def test_a_registry_closes_what_it_opened(
        self, subject: Subject, workspace: Path
    ) -> None:
        async def life() -> None:
            async with registry_of(subject) as registry:
                await registry.register_data_source(subject.config())
                for identifier in subject.items:
                    await registry.fetch("subject", identifier, workspace)

        await life()
        async with nothing_left("a registry that was closed"):
            for _ in range(3):
                await life()
