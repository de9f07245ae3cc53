"""A lock that a fork does not leave held."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class ForkSafeLock:
    """A `threading.Lock` for `with` blocks that is free in the child of a fork.

    A fork copies the lock as it is, but not the thread that holds it: in the child nobody would
    ever release it. What the lock guards is as that thread left it, so each step of a guarded
    change must leave it usable.
    """

    def __init__(self) -> None:
        self.renew()
        _all_locks.add(self)

    def renew(self) -> None:
        """Replace the lock by one that is free."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


_all_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in _all_locks:
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)
