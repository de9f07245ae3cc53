"""A mapping on disk, for what grows with the number of files."""

from __future__ import annotations

import threading


class TextTable:
    """A mapping from text to text in a temporary file, of which a few MB are in memory.

    The file has no name, and ends with the object. Safe under threads.
    """

    def __init__(self) -> None:
        import sqlite3  # most workspaces do without

        # SQLite deletes the file of a database without a name as soon as it is open.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        for statement in (
            "PRAGMA journal_mode = OFF",
            "CREATE TABLE texts (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
            "BEGIN",  # never committed: nobody reads the file after this process
        ):
            self._database.execute(statement)

    def get(self, key: str) -> str | None:
        """Return the value of a key, None if there is none."""
        with self._lock:
            row = self._database.execute(
                "SELECT value FROM texts WHERE key = ?", [_encode(key)]
            ).fetchone()
        return None if row is None else row[0].decode("utf-8", "surrogatepass")

    def __setitem__(self, key: str, value: str) -> None:
        with self._lock:
            self._database.execute(
                "INSERT OR REPLACE INTO texts VALUES (?, ?)", [_encode(key), _encode(value)]
            )

    def setdefault(self, key: str, value: str) -> str:
        """Return the value of a key, which is set to `value` if there is none."""
        with self._lock:
            inserted = self._database.execute(
                "INSERT OR IGNORE INTO texts VALUES (?, ?)", [_encode(key), _encode(value)]
            ).rowcount
        return value if inserted else self.get(key) or value

    def close(self) -> None:
        """Delete the file."""
        with self._lock:
            self._database.close()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
