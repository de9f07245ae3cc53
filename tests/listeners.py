"""Listeners that keep what arrives, for tests that a secret is sent to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress


class Listeners:
    """Three addresses of this machine: two that share the port of the first or its host.

    Args:
        answer: Sent back for what arrives first; what the client replies is kept, too.
    """

    def __init__(self, answer: bytes = b"") -> None:
        self.content = b""
        """The bytes that arrived at any of the addresses."""
        self.connections = 0
        """Connections to any of the addresses."""
        self.host, self.other_host = "127.0.0.1", "127.0.0.2"
        self.port = self.other_port = 0
        self._answer = answer

    @property
    def received(self) -> int:
        """The number of bytes that arrived."""
        return len(self.content)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError):  # the client may end it, which is no matter here
            self.content += await reader.read(65536)
            if self._answer:
                writer.write(self._answer)
                self.content += await reader.read(65536)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def listening(answer: bytes = b"") -> AsyncIterator[Listeners]:
    """Listen at all of the addresses for the block."""
    listeners = Listeners(answer)
    async with AsyncExitStack() as stack:

        async def listen(host: str, port: int) -> int:
            server = await asyncio.start_server(listeners.accept, host, port)
            await stack.enter_async_context(server)
            listened: int = server.sockets[0].getsockname()[1]
            return listened

        listeners.port = await listen(listeners.host, 0)
        listeners.other_port = await listen(listeners.host, 0)
        await listen(listeners.other_host, listeners.port)
        yield listeners
