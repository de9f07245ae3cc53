"""A TCP proxy on loopback that can go silent, and that counts round trips."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Self

from tests.servers.postgres import Database
from tests.servers.process import HOST

_BLOCK = 1 << 16  # bytes


class SilentProxy:
    """Stands between clients and a server on loopback, in threads of its own.

    After `silence` the proxy still accepts connections and still reads what both sides send, so
    the kernel acknowledges every byte; but nothing is passed on, as behind a tunnel or a firewall
    that has forgotten its connections. After `restore` new connections work; those that were
    silenced stay silent, for their bytes are lost.

    Args:
        port: Where the server listens.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._silent = False
        self._links: list[_Link] = []
        self._lock = threading.Lock()  # a link is made as silent as the proxy is
        self._listener = socket.create_server((HOST, 0))
        self._accepting = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self.port: int = self._listener.getsockname()[1]

    def in_front_of(self, database: Database) -> Database:
        """Return the way into a database of the server through the proxy."""
        return replace(database, port=self.port)

    def silence(self) -> None:
        """Pass nothing on any more."""
        with self._lock:
            self._silent = True
            for link in self._links:
                link.silent = True

    def restore(self) -> None:
        """Serve new connections again."""
        self._silent = False

    @property
    def round_trips(self) -> int:
        """How often a client has sent something after an answer, over all connections."""
        return sum(link.round_trips for link in self._links)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`, which closing does not
        self._accepting.join()
        self._listener.close()
        for link in self._links:
            link.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((HOST, self._target))
                except OSError:  # the server is down
                    client.close()
                    continue
                with self._lock:
                    self._links.append(_Link(client, server, silent=self._silent))


class _Link:
    """One connection through the proxy: two sockets, and a thread for each direction."""

    def __init__(self, client: socket.socket, server: socket.socket, *, silent: bool) -> None:
        self.silent = silent
        self.round_trips = 0
        self._answered = True
        self._sockets = client, server
        for one in self._sockets:  # passed on at once, as without a proxy
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._threads = [
            threading.Thread(target=self._forward, args=ends, daemon=True)
            for ends in ((client, server, True), (server, client, False))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Hang up on both sides and wait for the threads."""
        for one in self._sockets:
            with suppress(OSError):  # the other side has hung up
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _forward(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        """Pass on what `source` sends, until it ends; its end is passed on too."""
        with suppress(OSError):
            while data := source.recv(_BLOCK):
                if from_client and self._answered:
                    self.round_trips += 1
                self._answered = not from_client
                if not self.silent:
                    target.sendall(data)
        if not self.silent:
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)
