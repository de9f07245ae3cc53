"""What the files of one workspace may take together."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from datasources.errors import LimitExceededError


class Quota:
    """Counts the bytes of a workspace; safe under threads.

    What fetches write is counted as they write it; what others write or delete, at `measure`.  A
    file that replaces another counts beside it until it is whole.

    Args:
        path: The workspace.
        max_bytes: What its files may have together.
    """

    def __init__(self, path: str, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        """Bytes."""
        self._path = path
        self._lock = threading.Lock()
        self.measure()

    def measure(self) -> None:
        """Count what is there; what is written meanwhile may count twice, until the next time."""
        before, used = self.used, 0
        folders = [self._path]  # not by `os.walk`, which fails where hundreds are nested
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    with suppress(OSError):  # gone meanwhile
                        used += entry.stat(follow_symlinks=False).st_size
        with self._lock:
            self.used = used + max(0, self.used - before)

    def take(self, size: int, name: str) -> None:
        """Count bytes that are about to be written.

        Raises:
            LimitExceededError: The workspace would have more than it may; nothing is counted.
        """
        with self._lock:
            if self.used + size > self.max_bytes:
                raise LimitExceededError(
                    f"{name!r} does not fit: the workspace has {self.used} bytes, and may have "
                    f"{self.max_bytes}; delete files, or raise its quota"
                )
            self.used += size

    def give(self, size: int) -> None:
        """Count bytes no longer, as they are deleted."""
        with self._lock:
            self.used -= size
