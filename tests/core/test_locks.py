"""The child of a fork uses what the parent's threads held locked at that moment."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable

import pytest

from datasources import MemoryStore
from datasources.locks import ForkSafeLock
from datasources.registry.cache import MetadataCache


def use_store() -> tuple[ForkSafeLock, Callable[[], object]]:
    store = MemoryStore()
    return store._lock, store.list


def use_cache() -> tuple[ForkSafeLock, Callable[[], object]]:
    cache = MetadataCache(300)
    return cache._lock, lambda: cache.put("s", {})


@pytest.mark.parametrize("make", [use_store, use_cache])
def test_a_lock_that_a_thread_holds_is_free_in_the_child_of_a_fork(
    make: Callable[[], tuple[ForkSafeLock, Callable[[], object]]],
) -> None:
    lock, use = make()
    with lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a child that waits for the lock
            status = 1
            try:
                use()
                status = 0
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    use()


def test_it_locks() -> None:
    lock = ForkSafeLock()
    entered = threading.Event()

    def enter() -> None:
        with lock:
            entered.set()

    thread = threading.Thread(target=enter)
    with lock:
        thread.start()
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()
