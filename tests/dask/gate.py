"""A TCP gate in front of a server, which sees what clients ask and can hold back the answers."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_HOST = "127.0.0.1"
_BLOCK = 1 << 16  # bytes


class Gate:
    """Passes on what both sides send, in threads of its own.

    Args:
        port: Where the server listens.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((_HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._sockets: list[socket.socket] = []
        self._is_open = threading.Event()
        self._is_open.set()
        self._limit = 0
        self.asked = bytearray()
        """Everything that clients have sent."""
        self.held = 0
        """Connections whose answers are held back, or were until the gate opened."""

    def close_after(self, size: int) -> None:
        """Hold back what the server sends on each connection after `size` bytes."""
        self._limit, self.held = size, 0
        self._is_open.clear()

    def open(self) -> None:
        """Pass everything on again."""
        self._is_open.set()

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.open()
        self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`, which closing does not
        self._accepting.join()
        self._listener.close()
        for one in self._sockets:
            with suppress(OSError):  # the other side has hung up
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((_HOST, self._target))
                except OSError:  # the server is down
                    client.close()
                    continue
                self._sockets += [client, server]
                for run in (self._ask, self._answer):
                    threading.Thread(target=run, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(_BLOCK):
                self.asked += data
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        size = 0
        with suppress(OSError):
            while data := server.recv(_BLOCK):
                size += len(data)
                if size > self._limit and not self._is_open.is_set():
                    self.held += 1
                    self._is_open.wait()
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
