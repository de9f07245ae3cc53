"""A bound on the size of all files of one workspace together."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from datasources.errors import LimitExceededError


class Quota:
    """Counts the bytes of a workspace; safe under threads.

    Bytes are reserved before a fetch writes them. Files that other programs write or delete are
    seen by `recount`. While a file is being replaced, both the old and the new one count.

    Args:
        path: The workspace.
        max_bytes: Bytes that all files of the workspace may have together.
    """

    def __init__(self, path: str, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        """Bytes reserved now."""
        self._path = path
        self._lock = threading.Lock()
        self.recount()

    def recount(self) -> None:
        """Add up the sizes of all files of the workspace anew.

        Bytes that a fetch reserves while this runs may count twice until the next call: they are
        added to the sum, and the file may have been seen with them.
        """
        used_before, used = self.used, 0
        folders = [self._path]  # not by `os.walk`, which fails where hundreds are nested
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    with suppress(OSError):  # deleted meanwhile
                        used += entry.stat(follow_symlinks=False).st_size
        with self._lock:
            self.used = used + max(0, self.used - used_before)

    def reserve(self, size: int, name: str, *, written: int = 0) -> None:
        """Count bytes of an item that are about to be written.

        Args:
            size: How many.
            name: The item, for the error.
            written: Bytes of the item that were reserved before, for the error.

        Raises:
            LimitExceededError: The workspace would exceed its quota; nothing is counted.
        """
        with self._lock:
            if self.used + size > self.max_bytes:
                raise LimitExceededError(
                    f"{name!r} does not fit: the other files of the workspace have "
                    f"{self.used - written} bytes, and may have {self.max_bytes} together with it; "
                    "delete files, or raise the quota"
                )
            self.used += size

    def release(self, size: int) -> None:
        """Subtract the bytes of a file that was deleted or replaced."""
        with self._lock:
            self.used -= size
