"""Checks of calls that are cancelled at many moments."""

from __future__ import annotations

from pathlib import Path

from datasources import DataSourceConnector
from datasources.testing.base import Checks, Source
from datasources.testing.subject import Subject
from datasources.testing.watch import assert_unchanged, cancel_everywhere, files, nothing_left


class CancellationChecks(Checks):
    """A cancelled call ends soon with `CancelledError`, and leaves nothing."""

    async def test_a_cancelled_fetch_leaves_no_half_file(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        fetch = lambda: source.fetch(identifier, workspace)  # noqa: E731
        async for _ in cancel_everywhere(fetch, "a fetch"):
            written = files(workspace) if workspace.is_dir() else {}
            assert set(written.values()) <= {content}, f"a cancelled fetch left {sorted(written)}"
            for path in written:
                (workspace / path).unlink()

    async def test_a_cancelled_fetch_keeps_the_older_file(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        file = Path((await source.fetch(identifier, workspace)).path)
        before = files(workspace)
        fetch = lambda: source.fetch(identifier, workspace)  # noqa: E731
        async for _ in cancel_everywhere(fetch, "a repeated fetch"):
            assert_unchanged(workspace, before, "a cancelled fetch")
        assert file.read_bytes() == content

    async def test_the_source_works_on_after_cancelled_fetches(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        fetch = lambda: source.fetch(identifier, workspace)  # noqa: E731
        async for ended in cancel_everywhere(fetch, "a fetch followed by another"):
            if ended == "cancelled":
                file = await source.fetch(identifier, workspace)
                assert Path(file.path).read_bytes() == content

    async def test_cancelled_calls_leave_nothing_open(
        self, subject: Subject, workspace: Path
    ) -> None:
        await _connected(subject, workspace)
        async with nothing_left("a connector whose calls were cancelled"):
            async for _ in cancel_everywhere(
                lambda: _connected(subject, workspace), "a connector's life"
            ):
                pass

    async def test_a_cancelled_connect_leaves_nothing_open(self, subject: Subject) -> None:
        connector = subject.connector()
        await connector.connect()
        await connector.disconnect()
        async with nothing_left("a cancelled connect"):
            made: list[DataSourceConnector] = []

            async def connect() -> None:
                made.append(subject.connector())
                await made[-1].connect()

            async for _ in cancel_everywhere(connect, "connect"):
                while made:
                    await made.pop().disconnect()

    async def test_cancelled_listings_and_descriptions_pass_it_on(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        identifier, _ = subject.largest()
        async for _ in cancel_everywhere(connector.list_items, "list_items"):
            pass
        async for _ in cancel_everywhere(lambda: connector.get_metadata(identifier), "metadata"):
            pass
        assert identifier in {item.path for item in await connector.list_items()}


async def _connected(subject: Subject, workspace: Path) -> None:
    connector = subject.connector()
    identifier, _ = subject.largest()
    try:
        await connector.connect()
        await connector.list_items()
        await connector.get_metadata(identifier)
        await connector.fetch_data(identifier, str(workspace))
    finally:
        await connector.disconnect()
