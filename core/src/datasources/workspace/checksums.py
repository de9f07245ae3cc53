"""Digests of a file that is being written, in order or in pieces from everywhere."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

_PIECE = 1024 * 1024  # read back at once: enough that threads seldom change turns


class Checksums:
    """The SHA-256 of a file, and whatever other digest its source gave.

    Bytes written in order go to `update`.  Bytes written elsewhere are noted by `arrived`, and
    `follow` reads back what has no gap before it; it may run in a thread meanwhile.
    """

    def __init__(self) -> None:
        self._hashes = {"sha256": hashlib.sha256()}
        self._expected: dict[str, bytes] = {}
        self._hashed = 0
        self._whole = 0  # bytes from the start on without a gap
        self._ends: dict[int, int] = {}  # of the pieces after a gap, by start
        self._starts: dict[int, int] = {}  # and the other way round
        self._following = Lock()
        self._stopped = False

    @property
    def sha256(self) -> str:
        """The digest of what was hashed so far, in hexadecimal."""
        return self._hashes["sha256"].hexdigest()

    @property
    def whole(self) -> int:
        """Bytes from the start on without a gap."""
        return self._whole

    def expect(self, algorithm: str, digest: bytes) -> None:
        """Compute another digest as well; call it before the first byte."""
        self._hashes.setdefault(algorithm, hashlib.new(algorithm, usedforsecurity=False))
        self._expected[algorithm] = digest

    def wrong(self) -> list[str]:
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
        self._whole = self._hashed

    def arrived(self, start: int, end: int) -> None:
        """Note that the bytes from `start` to before `end` are in the file."""
        start = self._starts.pop(start, start)
        self._ends[start], self._starts[end] = end, start
        while self._whole in self._ends:
            reached = self._ends.pop(self._whole)
            del self._starts[reached]
            self._whole = reached

    def follow(self, descriptor: int, *, wait: bool = True) -> None:
        """Hash from the file what has arrived without a gap.

        Args:
            descriptor: Of the file, open for reading.
            wait: False to return at once where another thread does this already.
        """
        if not self._following.acquire(blocking=wait):
            return
        try:
            buffer = memoryview(b"")
            with ThreadPoolExecutor() as threads:
                while self._hashed < self._whole and not self._stopped:
                    buffer = buffer or memoryview(bytearray(_PIECE))
                    piece = buffer[: self._whole - self._hashed]
                    read = os.preadv(descriptor, [piece], self._hashed)
                    if read == 0:
                        raise OSError("the file was cut short by someone else")
                    self._hash(piece[:read], threads)
                    self._hashed += read
        finally:
            self._following.release()

    def _hash(self, piece: memoryview, threads: ThreadPoolExecutor) -> None:
        first, *others = self._hashes.values()
        # At once, each in a thread: an MD5 takes twice the time of a SHA-256.
        under_way = [threads.submit(digest.update, piece) for digest in others]
        first.update(piece)
        for each in under_way:
            each.result()

    def stop(self) -> None:
        """End a `follow` in another thread; the descriptor may be closed afterwards."""
        self._stopped = True
        with self._following:
            pass
