"""The thread in which a store receives the changes that other hosts make.

The listener is in one of these states:

- *connecting*: `follow` connects and executes LISTEN;
- *reading*: `follow` reads what was changed since the store's version, or everything if
  `missed_changes` is set, because notifications were lost with the connection. It holds the
  store's write lock: a write of this host waits for the reading, and the reading for a write;
- *waiting*: `wait_for_notice` sleeps on the connection's socket and on `_wake_reader`;
- *backing off*: `follow` has raised StoreError; `_run` logs the first failure since
  everything was read, waits and calls `follow` again;
- *stopped*: `stop` has been called, from any thread. It sets the event, which ends a back-off, and
  closes `_wake_writer`, which makes `_wake_reader` readable and ends a wait.
  `PostgreSQLStore.close` sets `_closed` before it calls `stop`; that is what ends `follow`.

LISTEN is executed before the first read, and `pending` is
cleared before each read, so a change that is committed during a read is read by the next one.
Only this thread uses the listening connection; it calls `mark_pending` itself, through the
handler of notifications, which psycopg calls while it executes a query.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from datasources import StoreError, backoff

# Seconds between two reads without a notification: a server that vanished does not send one.
_CHECK_INTERVAL = 5.0
# Seconds between attempts to connect again. They are short, since other hosts' changes are not seen
# meanwhile, and one host makes only one attempt at a time.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.8

_log = logging.getLogger(__name__)


class NotificationListener:
    """A thread that calls `follow` again each time it returns or raises, until it is stopped.

    Args:
        follow: Called with this listener; connects, reads, waits, and raises StoreError when the
            connection is lost.
    """

    def __init__(self, follow: Callable[[NotificationListener], None]) -> None:
        self.pending = False
        """True if a change was announced that has not been read."""
        self.missed_changes = False
        """True if the connection was lost since everything was read."""
        self._follow = follow
        self._stopped = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="datasources-store", daemon=True)
        self._thread.start()

    def mark_pending(self) -> None:
        """Note that another host has announced a change."""
        self.pending = True

    def stop(self, timeout: float) -> None:
        """End the thread, and wait for its end for at most `timeout` seconds.

        A thread that waits for a server which does not answer ends later, by the timeouts of its
        connection.
        """
        if not self._stopped.is_set():
            self._stopped.set()
            self._wake_writer.close()
        self._thread.join(timeout)

    def wait_for_notice(self, connection: psycopg.Connection[Any]) -> None:
        """Return when a change is announced, after `_CHECK_INTERVAL`, or when stopped."""
        pgconn = connection.pgconn
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(connection.fileno(), selectors.EVENT_READ)
            # A notification that came with the last answer is in libpq, not on the socket.
            while not (self.pending or pgconn.notifies()):
                if not selector.select(_CHECK_INTERVAL) or self._stopped.is_set():
                    return
                pgconn.consume_input()

    def _run(self) -> None:
        pauses = backoff(first=_FIRST_PAUSE, maximum=_LONGEST_PAUSE)
        with self._wake_reader:
            while not self._stopped.is_set():
                try:
                    self._follow(self)
                except StoreError as exc:
                    if not self.missed_changes and not self._stopped.is_set():
                        pauses = backoff(first=_FIRST_PAUSE, maximum=_LONGEST_PAUSE)
                        # Reads go on from memory, so nobody else would learn of it.
                        _log.warning("%s; sources are as last read until it is back", exc)
                self.missed_changes = True
                self._stopped.wait(next(pauses))
