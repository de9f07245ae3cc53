"""Control groups that count the memory and the processes of one sandbox, of version 1 or 2.

Groups are made where the manager of the system allows it: in a group of this process that it has
delegated, or that stands above all others, as in many containers; and in folders that a host names.
A group of its own is made in each of them for a run, and removed at its end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

_REMOVE_SECONDS = 5.0
_EXTRA_PROCESSES = 3  # those of bubblewrap, and the one that starts the code
_PREFIX = "datasources-"
_ABANDONED_SECONDS = 60.0  # after which a group without processes is removed
_ROOT = "/sys/fs/cgroup"
_DELEGATED = ("user.delegate", "trusted.delegate")  # attributes that systemd sets


def find_own_groups() -> list[str]:
    """Return the folders of groups of this process in which it may make others."""
    folders = []
    with suppress(OSError), open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers and not {"memory", "pids"} & set(controllers.split(",")):
                continue
            folder = f"{_mount_of(controllers)}{path}".rstrip("/")
            if path == "/" or os.geteuid() != 0 or _is_delegated(folder):
                folders.append(folder)
            elif not controllers and _is_delegated(os.path.dirname(folder)):
                folders.append(
                    os.path.dirname(folder)
                )  # of version 2, where processes are in leaves
    return [folder for folder in folders if os.access(folder, os.W_OK)]


def _mount_of(controllers: str) -> str:
    """Return the folder of a hierarchy; version 2 has no controllers in its name."""
    if controllers:
        return f"{_ROOT}/{controllers}"
    unified = f"{_ROOT}/unified"
    return unified if os.path.isdir(unified) else _ROOT


def _is_delegated(folder: str) -> bool:
    for name in _DELEGATED:
        with suppress(OSError):
            return os.getxattr(folder, name) == b"1"
    return False


class ControlGroups:
    """The groups of one run.

    Args:
        parents: Folders that the host may manage, None for those that are found.
        memory: Bytes.
        processes: Processes and threads.
    """

    def __init__(self, parents: Sequence[str] | None, memory: int, processes: int) -> None:
        self._groups: dict[str, set[str]] = {}  # folders, and what each counts
        name = f"{_PREFIX}{os.urandom(8).hex()}"
        for parent in find_own_groups() if parents is None else parents:
            with suppress(OSError):  # not ours to manage: other limits hold
                _remove_abandoned(parent)
                self._make(os.path.join(parent, name), memory, processes + _EXTRA_PROCESSES)

    @property
    def controllers(self) -> set[str]:
        """Of `memory` and `processes`, those that a group counts."""
        return set().union(*self._groups.values())

    def _make(self, folder: str, memory: int, processes: int) -> None:
        with suppress(OSError):  # of version 2: enabled already, or version 1
            _write(os.path.dirname(folder), "cgroup.subtree_control", "+memory +pids")
        os.mkdir(folder)
        try:
            counted = _set_limits(folder, memory, processes)
        except BaseException:
            os.rmdir(folder)
            raise
        if counted:
            self._groups[folder] = counted
        else:
            os.rmdir(folder)

    def add(self, processes: Iterable[int]) -> None:
        """Move processes into the groups, before they start others.

        A group that does not take them counts nothing.
        """
        ids = list(processes)
        for folder, counted in self._groups.items():
            try:
                for process in ids:
                    _write(folder, "cgroup.procs", str(process))
            except OSError:
                counted.clear()

    def has_run_out_of_memory(self) -> bool:
        """Return True if the kernel has ended a process for the limit of memory."""
        for folder in self._groups:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError), open(os.path.join(folder, name)) as file:
                    lines = (line.split() for line in file)
                    if any(line[0] == "oom_kill" and line[1] != "0" for line in lines):
                        return True
        return False

    def remove(self) -> None:
        """Remove the groups, whose processes have ended; the kernel may take a moment."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        for folder in self._groups:
            while time.monotonic() < deadline:
                with suppress(OSError):
                    os.rmdir(folder)
                    break
                time.sleep(0.01)


def _remove_abandoned(parent: str) -> None:
    """Remove the groups of hosts that were killed, which are empty."""
    with os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with suppress(OSError):  # it has processes
                    if entry.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                        os.rmdir(entry.path)


def _set_limits(folder: str, memory: int, processes: int) -> set[str]:
    """Set the limits that a group has; return what it counts."""
    counted = set()
    for name, value, controller in (
        ("memory.swap.max", 0, None),
        ("memory.max", memory, "memory"),
        ("memory.limit_in_bytes", memory, "memory"),
        ("memory.memsw.limit_in_bytes", memory, None),  # after the limit that it includes
        ("pids.max", processes, "processes"),
    ):
        if os.path.exists(os.path.join(folder, name)):
            _write(folder, name, str(value))
            if controller is not None:
                counted.add(controller)
    return counted


def _write(folder: str, name: str, value: str) -> None:
    with open(os.path.join(folder, name), "w") as file:
        file.write(value)
