"""The processes of this machine: which of them belong to a sandbox, and what they hold."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from datasources_agents.sandbox.workspace import size_of

_AGE = 0.03  # seconds for which one look at all processes serves every sandbox
_STATUS = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)
_ROLLUP = re.compile(rb"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB$", re.MULTILINE)
_THREADS = re.compile(rb"^Threads:\s+(\d+)$", re.MULTILINE)


class _Table:
    """The children of each process, looked up at most every `_AGE` seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._time = 0.0
        self._children: dict[int, list[int]] = {}

    def children(self, *, is_fresh: bool) -> dict[int, list[int]]:
        with self._lock:
            if is_fresh or time.monotonic() > self._time + _AGE:
                self._children = _scan()
                self._time = time.monotonic()
            return self._children


def _scan() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError, IndexError):  # gone meanwhile
                # After the name of the program, which may hold anything, come state and parent.
                parent = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(name))
    return children


_table = _Table()


def processes_of(first: int, *, is_fresh: bool = False) -> list[int]:
    """Return the ids of a process and of all below it.

    Args:
        first: The process.
        is_fresh: True to leave out none that has started before this call.
    """
    children, found = _table.children(is_fresh=is_fresh), [first]
    for process in found:  # which grows meanwhile
        found += children.get(process, ())
    return found


def count_threads(processes: Iterable[int]) -> int:
    """Return the number of threads of processes together."""
    return sum(_sum(f"/proc/{process}/status", _THREADS) for process in processes)


def memory_of(processes: Iterable[int], bound: int) -> int:
    """Return the bytes of memory that processes hold together, files that they map left out.

    Pages that processes share are counted once for each, unless the sum is over the bound: then
    each process is charged its part, which takes longer to find out.
    """
    ids = list(processes)
    total = 1024 * sum(_sum(f"/proc/{process}/status", _STATUS) for process in ids)
    if total <= bound:
        return total
    exact = 1024 * sum(_sum(f"/proc/{process}/smaps_rollup", _ROLLUP) for process in ids)
    return exact or total


def temporary_bytes(process: int, folders: Iterable[str]) -> int:
    """Return the bytes of file systems in memory that a process sees at some folders."""
    total = 0
    for folder in folders:
        with suppress(OSError):
            status = os.statvfs(f"/proc/{process}/root{folder}")
            total += (status.f_blocks - status.f_bfree) * status.f_frsize
    return total


def deleted_bytes(processes: Iterable[int], device: int) -> int:
    """Return the bytes of the files of a file system that are deleted, and that processes have open."""
    sizes: dict[int, int] = {}
    for process in processes:
        with suppress(OSError), os.scandir(f"/proc/{process}/fd") as descriptors:
            for descriptor in descriptors:
                with suppress(OSError):  # closed meanwhile
                    status = os.stat(descriptor.path)
                    is_deleted = stat.S_ISREG(status.st_mode) and not status.st_nlink
                    if is_deleted and status.st_dev == device:
                        sizes[status.st_ino] = size_of(status)
    return sum(sizes.values())


def _sum(path: str, pattern: re.Pattern[bytes]) -> int:
    try:
        return sum(map(int, pattern.findall(_read(path))))
    except OSError:  # gone meanwhile
        return 0


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(1 << 16)
