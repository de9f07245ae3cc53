"""A TCP proxy on loopback that can go silent, and that counts round trips."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Self

from tests.servers.postgres import Database
from tests.servers.process import HOST

_BLOCK = 1 << 16  # bytes


class SilentProxy:
    """Stands between clients and a server, in a thread of its own.

    After `silence` the proxy still accepts connections and still reads what both sides send, so
    the kernel acknowledges every byte; but nothing is passed on, as behind a tunnel or a firewall
    that has forgotten its connections. After `restore` new connections work; those that were
    silenced stay silent, for their bytes are lost.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._silent = False
        self._streams: set[_Stream] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0

    def in_front_of(self, database: Database) -> Database:
        """Return the way into a database of the server through the proxy."""
        return replace(database, port=self.port)

    def silence(self) -> None:
        """Pass nothing on any more."""
        self._silent = True
        for stream in list(self._streams):
            stream.silent = True

    def restore(self) -> None:
        """Serve new connections again."""
        self._silent = False

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._streams)

    @property
    def round_trips(self) -> int:
        """How often a client has sent something after an answer, on all open connections."""
        return sum(stream.round_trips for stream in list(self._streams))

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, HOST, 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
            stream = _Stream(self._silent)
            self._streams.add(stream)
            try:
                forth = stream.forward(reader, server_writer, from_client=True)
                back = stream.forward(server_reader, writer, from_client=False)
                await asyncio.gather(forth, back)
            finally:
                self._streams.discard(stream)
                writer.transport.abort()
                server_writer.transport.abort()


class _Stream:
    """One connection through the proxy."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.round_trips = 0
        self._answered = True

    async def forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        """Pass on what `source` sends, until it ends."""
        while data := await source.read(_BLOCK):
            if from_client and self._answered:
                self.round_trips += 1
            self._answered = not from_client
            if not self.silent:
                target.write(data)
                await target.drain()
        # An end is news too, which a silent path does not bring.
        if not self.silent and target.can_write_eof():
            target.write_eof()
