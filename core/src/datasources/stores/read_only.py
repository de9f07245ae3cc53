"""Read SQLite files that cannot be written, such as another user's or those on a full disk."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

FileState = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change in nanoseconds, of the database file and of its `-wal`; `None` for
a file that is missing. A write changes it."""


def connect_read_only(path: str) -> tuple[sqlite3.Connection, FileState | None]:
    """Return a connection that creates no files, and the state of the files if it takes no locks.

    Without a write-ahead log nobody writes at present. SQLite then reads the file as immutable,
    without locks, and would not notice a later write: before each use, compare the returned state
    with `file_state`, and connect again if they differ. With a log, SQLite's locks work and the
    state is None.

    Raises:
        sqlite3.OperationalError: The file cannot be read, or its log cannot be.
    """
    state = file_state(path)
    _, log = state
    logged = log is not None and log[1] > 0
    uri = f"{Path(path).as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    return connection, None if logged else state


def file_state(path: str) -> FileState:
    """Return the state of a database file and of its log."""
    return tuple(_state(path + suffix) for suffix in ("", "-wal"))


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
