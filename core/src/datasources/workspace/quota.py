"""A bound on the size of all files of one workspace together."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from datasources.errors import LimitExceededError
from datasources.workspace.paths import IS_TEMPORARY


class Quota:
    """Counts the bytes of a workspace; safe under threads.

    The bytes used are those of the files that are in place, and those reserved for files that are
    still being written. Bytes are reserved before they are written; `settle` moves the bytes of a
    file from the second sum to the first. Files that other programs write or delete are seen by
    `recount`, which adds up the first sum anew. While a file is being replaced, both the old and
    the new one count.

    Args:
        path: The workspace.
        max_bytes: Bytes that all files of the workspace may have together.
    """

    def __init__(self, path: str, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        """Bytes of the files in place, and bytes reserved, now."""
        self._path = path
        self._lock = threading.Lock()  # held while the sums change
        self._reserved = 0  # bytes of files that are being written, on disk or not yet
        self._settled = 0  # bytes of all files ever put in place
        self.recount()

    def recount(self) -> None:
        """Add up the sizes of all files of the workspace anew.

        Part files are left out: their bytes are reserved. A file that is put in place while this
        runs may count twice until the next call, and never counts too little.
        """
        settled_before, in_place = self._settled, 0
        folders = [self._path]  # not by `os.walk`, which fails where hundreds are nested
        while folders:
            with suppress(OSError), os.scandir(folder := folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    if folder == self._path and IS_TEMPORARY.fullmatch(entry.name):
                        continue
                    with suppress(OSError):  # deleted meanwhile
                        in_place += entry.stat(follow_symlinks=False).st_size
        with self._lock:
            # The scan may have passed a folder before a file was renamed into it.
            self.used = in_place + self._reserved + self._settled - settled_before

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
            self._reserved += size

    def settle(self, size: int, *, replaced: int = 0) -> None:
        """Note that a file of as many reserved bytes is in place, where one of `replaced` was."""
        with self._lock:
            self.used -= replaced
            self._reserved -= size
            self._settled += size

    def release(self, size: int) -> None:
        """Give back the reserved bytes of a file that will not be put in place."""
        with self._lock:
            self.used -= size
            self._reserved -= size
