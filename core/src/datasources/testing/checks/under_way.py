"""Checks of fetches that are slow or large, and are ended while the system works at them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from datasources import DataSourceError, LimitExceededError, Limits, Workspace
from datasources.testing import watch
from datasources.testing.base import Checks, registry_of
from datasources.testing.subject import Subject
from datasources.testing.watch import assert_unchanged, counted_pauses

_LOAD = 3  # fetches at once
_START = 20.0  # seconds that the system has until it works at all of them
_UNSEEN = 0.5  # seconds after which a fetch counts as begun where nothing shows it
_SHORT = 0.03  # seconds, in which 50 MB do not arrive

Fetches = dict["asyncio.Task[Any]", Path]
"""The fetches under way, and the workspace of each."""


class UnderWayChecks(Checks):
    """Several slow or large fetches end when they are told to, here and at the system."""

    @pytest.fixture(params=["slow", "large"])
    def heavy(self, request: pytest.FixtureRequest, subject: Subject) -> str:
        """An identifier that the system works at for long."""
        identifier: str = subject.given(request.param)
        return identifier

    async def test_disconnecting_ends_fetches_under_way(
        self, subject: Subject, heavy: str, tmp_path: Path
    ) -> None:
        shared = subject.connector_class.shareable
        connectors = [subject.connector() for _ in range(1 if shared else _LOAD)]
        for connector in connectors:
            await connector.connect()

        def fetch(number: int, workspace: Workspace) -> Coroutine[Any, Any, Any]:
            return connectors[number % len(connectors)].fetch_data(heavy, workspace)

        async with _started(subject, heavy, fetch, tmp_path) as fetches:
            leaving = [asyncio.create_task(connector.disconnect()) for connector in connectors]
            with counted_pauses(besides=leaving) as pauses:
                await asyncio.gather(*leaving)
                await asyncio.wait(fetches, timeout=watch.END)
            pauses.assert_few("a fetch")
            await _ended(fetches, "disconnect")
            _assert_errors(fetches, "disconnect")
            await _assert_nothing_runs(subject, "disconnect")

    async def test_cancelling_ends_fetches_under_way(
        self, subject: Subject, heavy: str, tmp_path: Path
    ) -> None:
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            async with _started(subject, heavy, _through(registry, heavy), tmp_path) as fetches:
                for task in fetches:
                    task.cancel()
                await _ended(fetches, "being cancelled")
                for task in fetches:
                    assert task.cancelled(), (
                        f"a fetch was cancelled, but ended with {task.exception()!r}: "
                        "let asyncio.CancelledError pass"
                    )
                await _assert_nothing_runs(subject, "being cancelled")
            identifier, content = subject.largest()
            receipt = await registry.fetch("subject", identifier, tmp_path / "after")
            assert Path(receipt.path).read_bytes() == content

    async def test_unregistering_ends_fetches_under_way(
        self, subject: Subject, heavy: str, tmp_path: Path
    ) -> None:
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            async with _started(subject, heavy, _through(registry, heavy), tmp_path) as fetches:
                with suppress(DataSourceError):
                    await registry.unregister_data_source("subject", timeout=0.1)
                await _ended(fetches, "unregistering the source")
                _assert_errors(fetches, "unregistering the source")
                await _assert_nothing_runs(subject, "unregistering the source")

    async def test_the_time_limit_ends_fetches_under_way(
        self, subject: Subject, heavy: str, workspace: Path
    ) -> None:
        timeout = _UNSEEN if heavy == subject.slow else _SHORT
        limits = Limits(max_bytes=None, max_rows=None, timeout=timeout)
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            with pytest.raises(LimitExceededError):
                async with asyncio.timeout(_UNSEEN + watch.END):
                    await registry.fetch("subject", heavy, workspace, limits=limits)
            assert_unchanged(workspace, {}, "a fetch out of time")
            await _assert_nothing_runs(subject, "the end of its time")


def _through(registry: Any, heavy: str) -> Callable[[int, Workspace], Coroutine[Any, Any, Any]]:
    """Return a function that fetches through a registry, as `_started` takes it."""

    def fetch(_: int, workspace: Workspace) -> Coroutine[Any, Any, Any]:
        call: Coroutine[Any, Any, Any] = registry.fetch(
            "subject", heavy, workspace, limits=workspace.limits, progress=workspace.progress
        )
        return call

    return fetch


@asynccontextmanager
async def _started(
    subject: Subject,
    heavy: str,
    fetch: Callable[[int, Workspace], Coroutine[Any, Any, Any]],
    folder: Path,
) -> AsyncIterator[Fetches]:
    """Start several fetches, and yield them when the system works at all of them."""
    arrived: set[int] = set()
    limits = Limits(max_bytes=None, max_rows=None, timeout=None)
    fetches: Fetches = {}
    for number in range(_LOAD):
        place = Workspace(
            folder / str(number), limits=limits, progress=partial(_note, arrived, number)
        )
        fetches[asyncio.create_task(fetch(number, place))] = Path(place)
    try:
        deadline = time.monotonic() + _START
        while not await _under_way(subject, heavy, arrived):
            ended = next((task for task in fetches if task.done()), None)
            assert ended is None, f"the fetch of {heavy!r} ended by itself: {_outcome(ended)}"
            assert time.monotonic() < deadline, f"{heavy!r} was not under way after {_START:g} s"
            await asyncio.sleep(0.02)
        yield fetches
    finally:
        for task in fetches:
            task.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)


def _note(arrived: set[int], number: int, size: int, _: int | None) -> None:
    if size:
        arrived.add(number)


async def _under_way(subject: Subject, heavy: str, arrived: set[int]) -> bool:
    if heavy == subject.large:
        return len(arrived) == _LOAD
    if subject.running is None:
        await asyncio.sleep(_UNSEEN)
        return True
    return await asyncio.to_thread(subject.running) >= _LOAD


async def _ended(fetches: Fetches, after: str) -> None:
    """Wait until fetches have ended and see that they left nothing; else cancel and fail."""
    _, going_on = await asyncio.wait(fetches, timeout=watch.END)
    assert not going_on, f"{len(going_on)} fetches went on for {watch.END:g} s after {after}"
    for place in fetches.values():
        assert_unchanged(place, {}, f"a fetch ended by {after}")


def _assert_errors(fetches: Iterable[asyncio.Task[Any]], after: str) -> None:
    for task in fetches:
        assert not task.cancelled(), f"{after} must end a fetch with a DataSourceError"
        assert isinstance(task.exception(), DataSourceError), (
            f"{after} must end a fetch with a DataSourceError, not {_outcome(task)}"
        )


def _outcome(task: asyncio.Task[Any] | None) -> str:
    if task is None or task.cancelled():
        return "it was cancelled"
    return repr(task.exception() or task.result())


async def _assert_nothing_runs(subject: Subject, after: str) -> None:
    """Fail if the system works on at what was ended here."""
    if subject.running is None:
        return
    deadline = time.monotonic() + watch.SETTLE
    while running := await asyncio.to_thread(subject.running):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.02)
    assert not running, f"the system works on at {running} fetches after {after}"
