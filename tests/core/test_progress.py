"""Progress is reported on the event loop, whichever thread writes the file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from datasources import Workspace, run_in_thread
from tests.core.fakes import MemoryConnector, fresh, registry_of, source

PIECES = 50


class ThreadedConnector(MemoryConnector):
    """Writes in a worker thread, piece by piece."""

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        return await run_in_thread(self._write, identifier, Workspace.of(workspace))

    @staticmethod
    def _write(identifier: str, workspace: Workspace) -> str:
        with workspace.create(identifier, size=10 * PIECES) as file:
            for _ in range(PIECES):
                file.write(b"0123456789")
        return file.path


async def test_a_writer_in_a_thread_is_reported_on_the_loop_up_to_its_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    threads: set[int] = set()

    def report(done: int, total: int | None) -> None:
        threads.add(threading.get_ident())
        calls.append((done, total))

    async with registry_of(fresh(ThreadedConnector)) as registry:
        await registry.register_data_source(source())
        await registry.fetch("s", "a", tmp_path, progress=report)
        await registry.fetch_many([("s", "b")], tmp_path, progress={0: report})
    assert threads == {threading.get_ident()}
    assert calls.count((10 * PIECES, 10 * PIECES)) == 2
    first = calls[: calls.index((10 * PIECES, 10 * PIECES)) + 1]
    assert first == sorted(set(first))


async def test_an_error_of_the_callback_ends_the_fetch_as_it_is(tmp_path: Path) -> None:
    class WrongError(Exception):
        pass

    def fail(done: int, total: int | None) -> None:
        raise WrongError(f"at {done}")

    async with registry_of(fresh(ThreadedConnector)) as registry:
        await registry.register_data_source(source())
        with pytest.raises(WrongError, match="at "):
            await registry.fetch("s", "a", tmp_path, progress=fail)
        assert registry.get_pool_stats("s")["in_use"] == 0
