"""The thread in which a store follows what other hosts change."""

from __future__ import annotations

import logging
import random
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from datasources import StoreError

_BEAT = 5.0  # seconds between two looks at a quiet server, which may be gone unnoticed
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8  # seconds between attempts to reach the server again

_log = logging.getLogger(__name__)


class Follower:
    """The thread that follows a store, again and again until it is stopped.

    Args:
        follow: Called with this; ends with an error where the connection is lost.
    """

    def __init__(self, follow: Callable[[Follower], None]) -> None:
        self.noticed = False
        """Something was announced that is not read yet."""
        self.was_lost = False
        """The connection was, since all was read."""
        self._follow = follow
        self._stopped = threading.Event()
        self._bell, self._rope = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="datasources-store", daemon=True)
        self._thread.start()

    def notice(self) -> None:
        self.noticed = True

    def stop(self, timeout: float) -> None:
        """End the thread; one that waits for a server which does not answer ends soon after."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._rope.close()
        self._thread.join(timeout)

    def wait_for_notice(self, connection: psycopg.Connection[Any]) -> None:
        """Return when something is announced, when it is time to look, or when stopped."""
        pgconn = connection.pgconn
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            selector.register(connection.fileno(), selectors.EVENT_READ)
            # What the last answer brought along is not on the socket any more.
            while not (self.noticed or pgconn.notifies()):
                if not selector.select(_BEAT) or self._stopped.is_set():
                    return
                pgconn.consume_input()

    def _run(self) -> None:
        wait = _FIRST_WAIT
        with self._bell:
            while not self._stopped.is_set():
                try:
                    self._follow(self)
                except StoreError as exc:
                    if not self.was_lost and not self._stopped.is_set():
                        wait = _FIRST_WAIT
                        # Nobody else sees it, for reads go on.
                        _log.warning("%s; sources are as last read until it is back", exc)
                self.was_lost = True
                self._stopped.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(wait * 2, _LONGEST_WAIT)
