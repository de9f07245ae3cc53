"""What only shows from outside: stalls of the event loop, and what is left behind."""

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
"""Seconds that a call may keep the event loop; a sound one needs a hundredth of it."""
SETTLE = 5.0
"""Seconds for what was closed to be gone."""
END = 10.0
"""Seconds that a cancelled call may take to end."""
_TICK = 0.005
_EARLY, _LATE = 12, 12  # cancellations within the first steps, and spread over the whole call


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run calls at once; raise the first error when all have ended, so that none goes on."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def longest_stall(call: Call) -> float:
    """Return the seconds for which the event loop was not free at most while `call` ran."""
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
    """Fail if every attempt stalls: one alone may be an import, or another process's doing."""
    stalls = []
    for _ in range(attempts):
        stalls.append(await longest_stall(call))
        if stalls[-1] < STALL:
            return
    raise AssertionError(
        f"{what} kept the event loop for {min(stalls):.2f} s: await it, or use "
        "datasources.run_in_thread"
    )


def descriptors() -> dict[int, str]:
    """Return the open file descriptors of this process and what they are."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = {}
    for name in os.listdir(folder):
        with suppress(OSError):  # that of the listing itself
            os.fstat(int(name))
            link = os.path.join(folder, name)
            found[int(name)] = os.readlink(link) if os.path.islink(link) else "open"
    return found


def _threads() -> set[threading.Thread]:
    # Those of the loop's own executor stay, for the next call.
    return {each for each in threading.enumerate() if not each.name.startswith("asyncio_")}


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

        gc.freeze()  # what others forgot is not the block's doing
        try:
            with warnings.catch_warnings(record=True) as noted:
                warnings.simplefilter("always", ResourceWarning)
                yield
                deadline = time.monotonic() + SETTLE
                while left() and time.monotonic() < deadline:  # noqa: ASYNC110  (of many kinds)
                    await asyncio.sleep(0.01)
                gc.collect()
        finally:
            gc.unfreeze()
        forgotten = [note for note in noted if issubclass(note.category, ResourceWarning)]
        found = [*left(), *(str(note.message) for note in forgotten)]
        assert not found, f"{what} left behind: {', '.join(found)}"


@contextmanager
def _temporary_directory() -> Iterator[str]:
    """Have temporary files made in a directory of their own."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def files(workspace: Path) -> dict[str, bytes]:
    """Return what lies in a directory, by relative path, links not followed."""
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def cancel_everywhere(call: Call, what: str) -> AsyncIterator[str]:
    """Run `call` again and again, cancelled ever later; yield how each run ended.

    Fails if a run turns its cancellation into something else, or does not end.
    """
    started = time.monotonic()
    await call()
    duration = time.monotonic() - started
    yield "done"
    chosen = random.Random(what)  # the same moments in every run
    for steps in range(_EARLY):
        yield await _cancelled(call, what, steps=steps)
    for _ in range(_LATE):
        yield await _cancelled(call, what, delay=chosen.uniform(0, duration))


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
    """Fail if the files of a directory are others than they were."""
    now = files(folder) if folder.is_dir() else {}
    new = sorted(set(now) - set(before))
    assert not new, f"{what} left {', '.join(map(repr, new))}"
    changed = sorted(name for name in before if now.get(name) != before[name])
    assert not changed, f"{what} changed or removed {', '.join(map(repr, changed))}"
