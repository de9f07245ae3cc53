"""Digests of a file that is being written, in order or as ranges in any order."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

# Bytes read back and hashed at once. Hashing releases the interpreter's lock, and each call costs
# a few switches between threads: with pieces this large, these switches take no noticeable time.
_READ_SIZE = 1024 * 1024


class Checksums:
    """Compute the SHA-256 of a file, and any other digest that its source announced.

    A digest can only be fed in order. Bytes that are written in order go straight to `update`.
    Ranges that are written out of order are only noted, by `mark_written`; `catch_up` then reads
    back from the file what has become contiguous from the start on, and hashes it.

    Three positions, each at most as large as the next: bytes hashed, bytes contiguous from the
    start, the end of the last range written.

    Threads: `update` and `mark_written` are called by the one thread that writes. `catch_up` may
    run at the same time in any number of worker threads: a lock lets one of them hash, so that
    `_hashed` and the digests have one owner at any time. It reads `_contiguous`, an integer that
    only grows, and reads a range only after `mark_written` has noted it, which is after the bytes
    are in the file.
    """

    def __init__(self) -> None:
        self._hashes = {"sha256": hashlib.sha256()}
        self._expected: dict[str, bytes] = {}
        self._hashed = 0
        self._contiguous = 0
        # The ranges behind the first gap, adjacent ones joined: the end of each by its start, and
        # the start of each by its end.
        self._ends: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self._hashing = Lock()
        self._cancelled = False

    @property
    def sha256(self) -> str:
        """The digest of the bytes hashed so far, in hexadecimal."""
        return self._hashes["sha256"].hexdigest()

    @property
    def contiguous(self) -> int:
        """The number of bytes that are in the file from its start on without a gap."""
        return self._contiguous

    def expect(self, algorithm: str, digest: bytes) -> None:
        """Compute another digest as well; call it before the first byte."""
        self._hashes.setdefault(algorithm, hashlib.new(algorithm, usedforsecurity=False))
        self._expected[algorithm] = digest

    def mismatched(self) -> list[str]:
        """Return the algorithms whose digest is not the expected one."""
        return [
            algorithm
            for algorithm, digest in self._expected.items()
            if self._hashes[algorithm].digest() != digest
        ]

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash bytes that follow those hashed so far."""
        for digest in self._hashes.values():
            digest.update(data)
        self._hashed += len(data)
        self._contiguous = self._hashed

    def mark_written(self, start: int, end: int) -> None:
        """Note that the bytes from `start` to before `end` are in the file."""
        start = self._starts.pop(start, start)
        self._ends[start], self._starts[end] = end, start
        while self._contiguous in self._ends:
            end = self._ends.pop(self._contiguous)
            del self._starts[end]
            self._contiguous = end

    def catch_up(self, descriptor: int, *, wait: bool = True) -> None:
        """Read back and hash the bytes that have become contiguous.

        Args:
            descriptor: The file, open for reading.
            wait: If another thread is hashing: True waits for it, False returns at once.

        Raises:
            OSError: The file cannot be read, or is shorter than what was written to it.
        """
        if self._hashed == self._contiguous:  # always, for what was written in order
            return
        if not self._hashing.acquire(blocking=wait):
            return
        try:
            buffer = memoryview(b"")
            with ThreadPoolExecutor() as threads:
                while self._hashed < self._contiguous and not self._cancelled:
                    buffer = buffer or memoryview(bytearray(_READ_SIZE))
                    piece = buffer[: self._contiguous - self._hashed]
                    read = os.preadv(descriptor, [piece], self._hashed)
                    if read == 0:
                        raise OSError("the file was cut short by someone else")
                    self._hash(piece[:read], threads)
                    self._hashed += read
        finally:
            self._hashing.release()

    def _hash(self, piece: memoryview, threads: ThreadPoolExecutor) -> None:
        first, *others = self._hashes.values()
        # Side by side, each in a thread: an MD5 takes twice the time of a SHA-256.
        pending = [threads.submit(digest.update, piece) for digest in others]
        first.update(piece)
        for future in pending:
            future.result()

    def cancel(self) -> None:
        """End a `catch_up` in another thread; afterwards the descriptor may be closed."""
        self._cancelled = True
        with self._hashing:
            pass
