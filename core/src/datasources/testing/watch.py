"""Observe calls from outside: stalls of the event loop, cancellation, and what is left open."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Call = Callable[[], Coroutine[Any, Any, Any]]

STALL = 0.1
"""Seconds for which a call may block the event loop; one that does not block takes about 1 ms."""
SETTLE = 5.0
"""Seconds to wait until what was closed is gone."""
END = 10.0
"""Seconds within which a cancelled call has to end."""
_TICK = 0.005
_EARLY = 12  # cancellations after each of the first steps of the event loop
_LATE = 12  # cancellations at random moments of the call


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run calls at once; when all have ended, return their results or raise the first error."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def longest_stall(call: Call) -> float:
    """Return the longest time in seconds for which the event loop was blocked by `call`."""
    last, longest = time.monotonic(), 0.0

    async def beat() -> None:
        nonlocal last, longest
        while True:
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(_TICK)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(_TICK)
    try:
        await call()
        await asyncio.sleep(2 * _TICK)
    finally:
        beating.cancel()
    return longest


async def assert_never_stalls(call: Call, what: str, *, attempts: int = 4) -> None:
    """Fail if every attempt blocks the loop; a single one may do so for other reasons."""
    stalls = []
    for _ in range(attempts):
        stalls.append(await longest_stall(call))
        if stalls[-1] < STALL:
            return
    raise AssertionError(
        f"{what} blocked the event loop for {min(stalls):.2f} s: await it, or use "
        "datasources.run_in_thread"
    )


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
                deadline = time.monotonic() + SETTLE
                # No event announces the end of tasks, threads and descriptors alike.
                while left() and time.monotonic() < deadline:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                gc.collect()
        finally:
            gc.unfreeze()
        unclosed = [w for w in recorded if issubclass(w.category, ResourceWarning)]
        remains = [*left(), *(str(warning.message) for warning in unclosed)]
        assert not remains, f"{what} left behind: {', '.join(remains)}"


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


def assert_unchanged(folder: Path, before: Mapping[str, bytes], what: str) -> None:
    """Fail if a file of a directory was added, changed or removed since `before`."""
    now = files(folder) if folder.is_dir() else {}
    new = sorted(set(now) - set(before))
    assert not new, f"{what} left {', '.join(map(repr, new))}"
    changed = sorted(name for name in before if now.get(name) != before[name])
    assert not changed, f"{what} changed or removed {', '.join(map(repr, changed))}"
