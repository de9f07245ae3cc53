"""Observe calls from outside: cancellation, retrying, and what is left open."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tempfile
import threading
import time
import warnings
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from datasources import DataSourceConnector, DataSourceError

T = TypeVar("T")
Call = Callable[[], Coroutine[Any, Any, Any]]

SETTLE = 5.0
"""Seconds to wait until what was closed is gone."""
END = 10.0
"""Seconds within which a cancelled call has to end."""
PAUSE = 0.25
"""Seconds that a call may ask to sleep, in all, after it lost its connection."""
_EARLY = 12  # cancellations after each of the first steps of the event loop
_LATE = 12  # cancellations at random moments of the call


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run calls at once; when all have ended, return their results or raise the first error."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def descriptors() -> dict[int, str]:
    """Return the open file descriptors of this process, and the files they are open on."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    targets = {}
    for name in os.listdir(folder):
        with suppress(OSError):  # the descriptor of this listing is closed by now
            os.fstat(int(name))
            link = os.path.join(folder, name)
            targets[int(name)] = os.readlink(link) if os.path.islink(link) else "open"
    return targets


def _threads() -> set[threading.Thread]:
    # Without those of the loop's executor, which stay for later calls.
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


@asynccontextmanager
async def nothing_left(what: str) -> AsyncIterator[None]:
    """Fail if the block leaves a task, a thread, a descriptor or a temporary file behind."""
    with _temporary_directory() as temporary:
        tasks, threads, before = asyncio.all_tasks(), _threads(), descriptors()

        def left() -> list[str]:
            return [
                *(f"task {task.get_name()}" for task in asyncio.all_tasks() - tasks),
                *(f"thread {thread.name}" for thread in _threads() - threads),
                *(
                    f"descriptor {number} ({target})"
                    for number, target in descriptors().items()
                    if before.get(number) != target
                ),
                *(f"temporary file {name}" for name in os.listdir(temporary)),
            ]

        gc.freeze()  # leaves out objects that were lost before the block
        try:
            with warnings.catch_warnings(record=True) as recorded:
                warnings.simplefilter("always", ResourceWarning)
                yield
                await _remains(left)
                gc.collect()
                # A server in a thread of this process may accept a connection only now.
                remains = await _remains(left)
        finally:
            gc.unfreeze()
        unclosed = [w for w in recorded if issubclass(w.category, ResourceWarning)]
        remains += [str(warning.message) for warning in unclosed]
        assert not remains, f"{what} left behind: {', '.join(remains)}"


async def _remains(left: Callable[[], list[str]]) -> list[str]:
    """Return what is left after `SETTLE` seconds; nothing as soon as nothing is left."""
    deadline = time.monotonic() + SETTLE
    # No event announces the end of tasks, threads and descriptors alike.
    while (remains := left()) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return remains


@contextmanager
def _temporary_directory() -> Iterator[str]:
    """Make temporary files in a directory of their own, and yield its path."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def files(workspace: Path) -> dict[str, bytes]:
    """Return the contents of the files in a directory by relative path, without links."""
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def cancel_everywhere(call: Call, what: str) -> AsyncIterator[str]:
    """Run `call` and cancel it, again and again at other moments; yield how each run ended.

    That is "cancelled" or, if the call ended before, "done". Fails if a cancelled call ends in
    another way, or not within `END` seconds.
    """
    started = time.monotonic()
    await call()
    duration = time.monotonic() - started
    yield "done"
    moments = random.Random(what)  # the same in every run
    for steps in range(_EARLY):
        yield await _cancelled(call, what, steps=steps)
    for _ in range(_LATE):
        yield await _cancelled(call, what, delay=moments.uniform(0, duration))


async def _cancelled(call: Call, what: str, *, steps: int = 0, delay: float = 0.0) -> str:
    task = asyncio.create_task(call())
    for _ in range(steps):
        await asyncio.sleep(0)
    if delay:
        await asyncio.sleep(delay)
    if not task.cancel():
        task.result()
        return "done"
    await asyncio.wait({task}, timeout=END)
    assert task.done(), f"{what} did not end within {END:g} s of being cancelled"
    assert task.cancelled(), (
        f"{what} was cancelled, but ended with {task.exception() or 'a result'!r}: "
        "let asyncio.CancelledError pass"
    )
    return "cancelled"


class Pauses:
    """The pauses that calls asked for: those between attempts, if calls try again."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def assert_few(self, what: str) -> None:
        """Fail if the pauses are more than `PAUSE` seconds together."""
        asked = sum(self.seconds)
        assert asked <= PAUSE, (
            f"{what} went on for {len(self.seconds)} more attempts, with pauses of {asked:.2f} s "
            "in all: do not try again after disconnect"
        )


@contextmanager
def counted_pauses(besides: Collection[asyncio.Task[Any] | None]) -> Iterator[Pauses]:
    """Count the sleeps of tasks and threads during the block, besides those of the tasks given.

    They are counted as they are asked for, not measured, so that a busy machine changes nothing.
    """
    loop = asyncio.get_running_loop()
    pauses, call_later, sleep = Pauses(), loop.call_later, time.sleep

    def later(delay: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # `asyncio.sleep` alone sets the result of a future; timeouts do other things.
        sleeping = getattr(callback, "__name__", "") == "_set_result_unless_cancelled"
        if sleeping and asyncio.current_task() not in besides:
            pauses.seconds.append(delay)
        return call_later(delay, callback, *args, **kwargs)

    def slept(seconds: float) -> None:
        pauses.seconds.append(seconds)
        sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        with suppress(AttributeError):  # a loop not of Python's own allows no other method
            patch.setattr(loop, "call_later", later)
        patch.setattr(time, "sleep", slept)
        yield pauses


async def disconnect_at_each_step(
    new: Callable[[], DataSourceConnector], identifier: str, content: bytes, folder: Path
) -> None:
    """Fetch and disconnect meanwhile, each time a step of the event loop later.

    Fails if a fetch ends neither with the content nor soon with a `DataSourceError`.
    """
    for steps in range(8):
        connector = new()
        await connector.connect()
        fetching = asyncio.create_task(connector.fetch_data(identifier, str(folder / str(steps))))
        for _ in range(steps):
            await asyncio.sleep(0)
        with counted_pauses(besides=[asyncio.current_task()]) as pauses:
            await connector.disconnect()
            done, _ = await asyncio.wait({fetching}, timeout=END)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        pauses.assert_few("a fetch")
        assert done, f"a fetch went on for {END:g} s after disconnect"
        error = fetching.exception()
        if error is None:
            assert Path(fetching.result()).read_bytes() == content
        else:
            assert isinstance(error, DataSourceError), (
                f"a fetch that lost its connection must be a DataSourceError, not {error!r}"
            )


def assert_unchanged(folder: Path, before: Mapping[str, bytes], what: str) -> None:
    """Fail if a file of a directory was added, changed or removed since `before`."""
    now = files(folder) if folder.is_dir() else {}
    new = sorted(set(now) - set(before))
    assert not new, f"{what} left {', '.join(map(repr, new))}"
    changed = sorted(name for name in before if now.get(name) != before[name])
    assert not changed, f"{what} changed or removed {', '.join(map(repr, changed))}"
