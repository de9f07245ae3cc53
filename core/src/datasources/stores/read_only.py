"""SQLite files that can be read and not written: another user's, on a full or a read-only disk."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

FileState = tuple[tuple[int, int, int] | None, ...]
"""What of a store's files is another value once they were written."""


def connect_read_only(path: str) -> tuple[sqlite3.Connection, FileState | None]:
    """Return a connection that makes no files, and of what state they are if it takes no locks.

    Without a write-ahead log nobody is writing, and the file is read as if nobody ever did: whoever
    uses the connection has to see to that.

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
    """Return inode, size and time of change of the file and of its log."""
    return tuple(_stated(path + suffix) for suffix in ("", "-wal"))


def _stated(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
