"""Limits of a run, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from datasources import OptionError

Reason = Literal["ok", "timeout", "memory", "processes", "disk", "output", "killed"]
"""The end of a run: `ok` is the code's own end, whatever its exit code. `disk` is too many bytes or
files in the workspace. `killed` is a signal that is not the runner's, such as that of a system that
has no memory left."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The limits of all processes of one sandbox together.

    Raises:
        OptionError: A limit is not a positive number, or another one than `timeout` is no integer.
    """

    timeout: float = 60.0
    """Seconds."""
    memory: int = 1 << 30
    """Bytes of memory, those of files in `/tmp` and `/dev/shm` included."""
    processes: int = 64
    """Processes and threads at once."""
    disk: int = 1 << 30
    """Bytes of all files in the workspace, sparse ones at their full size, and of deleted ones that a
    process has open."""
    files: int = 10_000
    """Files and folders in the workspace."""
    output: int = 1 << 20
    """Bytes of output."""
    open_files: int = 256
    """Files that one process may have open."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not value > 0:
                raise OptionError(f"{field.name!r} must be a number of more than 0")
            if isinstance(value, float) and field.name != "timeout":
                raise OptionError(f"{field.name!r} must be a whole number")


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A regular file of the workspace that is new or has changed."""

    path: str
    """Relative to the workspace."""
    size: int
    sha256: str | None
    """In hexadecimal; None for files beyond the limit of bytes, which are not read."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run."""

    exit_code: int | None
    """Of the code; None if it was ended."""
    reason: Reason
    output: bytes
    """The beginning of what the code has written to its output and error output, in order."""
    files: tuple[ChangedFile, ...]
    """By path."""
    duration: float
    """Seconds."""
    sandbox: str
    """`bubblewrap` or `sandlock`."""
    held_by: Mapping[str, str]
    """For `memory` and `processes`, what has counted them: `cgroup`, or `supervisor` for the limits
    of each process together with sums that are made while the code runs."""
