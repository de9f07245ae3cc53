"""Sums of what a sandbox uses, made by a thread while the code runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from datasources_agents.sandbox.cgroups import ControlGroups
from datasources_agents.sandbox.models import Reason, RunLimits
from datasources_agents.sandbox.processes import (
    count_threads,
    deleted_bytes,
    memory_of,
    processes_of,
    temporary_bytes,
)
from datasources_agents.sandbox.workspace import free_bytes, measure

_PAUSE = 0.04  # seconds between two looks
_LOOKS_FOR_DELETED = 25  # of which one at least looks for deleted files, however much space is free


class Supervisor:
    """Watches one sandbox until it ends, and tells the limit that it exceeds.

    Args:
        first: The first process of the sandbox, which is not the code's; all others descend from it.
        in_memory: Folders that the sandbox has in memory.
        workspace: The directory.
        limits: Those of the run.
        groups: Control groups; what they count, the supervisor does not.
        report: Called once, on the thread of the supervisor.
    """

    def __init__(
        self,
        first: int,
        in_memory: Sequence[str],
        workspace: str,
        limits: RunLimits,
        groups: ControlGroups,
        report: Callable[[Reason], None],
    ) -> None:
        self._first = first
        self._in_memory = in_memory
        self._workspace = workspace
        self._limits = limits
        self._groups = groups
        self._report = report
        self._free = free_bytes(workspace)
        self._device = os.stat(workspace).st_dev
        self._looks = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, which may still be making its last sums."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE):
            try:
                reason = self._exceeded()
            except BaseException:
                self._report("killed")  # code that nobody watches does not go on
                raise
            if reason is not None and not self._ended.is_set():
                self._report(reason)
                return

    def _exceeded(self) -> Reason | None:
        limits = self._limits
        if self._groups.has_run_out_of_memory():  # the kernel has ended one process, not all
            return "memory"
        if {"memory", "processes"} - self._groups.controllers:
            processes = processes_of(self._first)[1:]
            if count_threads(processes) > limits.processes:
                return "processes"
            stored = temporary_bytes(self._first, self._in_memory)
            if stored + memory_of(processes, limits.memory - stored) > limits.memory:
                return "memory"
        usage = measure(self._workspace, limits.files)
        if usage.size > limits.disk or usage.count > limits.files or usage.is_too_deep:
            return "disk"
        # It takes long to find deleted files, and so they are looked for where they may be many, and
        # now and then: other programs may free the space that these files take.
        self._looks += 1
        is_due = self._looks % _LOOKS_FOR_DELETED == 0
        if is_due or self._free - free_bytes(self._workspace) > limits.disk:
            deleted = deleted_bytes(processes_of(self._first), self._device)
            if usage.size + deleted > limits.disk:
                return "disk"
        return None
