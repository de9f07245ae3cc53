"""An HTTP server whose every answer a test writes itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Received:
    method: str
    target: str
    """As the request line has it: a path, the URL for a proxy, or host and port for CONNECT."""
    headers: dict[str, str]
    body: bytes


@asynccontextmanager
async def scripted(
    answer: Callable[[Received], Answer],
) -> AsyncIterator[tuple[int, list[Received]]]:
    """Serve `answer(request)`, a status, headers and a body; yield port and requests."""
    requests: list[Received] = []
    connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[writer] = asyncio.current_task()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                method, target, _ = first.split(" ", 2)
                pairs = (line.partition(":") for line in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Received(method, target, headers, body)
                requests.append(request)
                status, out, data = answer(request)
                out = {"Content-Length": str(len(data)), **out}
                fields = "".join(f"{name}: {value}\r\n" for name, value in out.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode("latin-1"))
                writer.write(b"" if method == "HEAD" else data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()
        for writer, task in connections.items():
            writer.transport.abort()
            if task is not None:
                await asyncio.wait([task])


def refusal(status: int, code: str, message: str = "", detail: str = "") -> Answer:
    """Return an answer of the service that refuses a request."""
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>"
        f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>"
    )
    return status, {"x-ms-error-code": code}, body.encode()


EMPTY_LISTING = b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"
