"""A server that answers each request with given bytes, and remembers what it was sent."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Answer:
    content: bytes | Iterable[bytes]
    close: bool = False
    """True to close the connection after it."""


def answer(
    status: int = 200,
    body: Any = b"",
    *,
    media_type: str = "application/json",
    headers: Iterable[str] = (),
    close: bool = False,
) -> Answer:
    """Return a well-formed answer; a body that is not bytes becomes JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} -", f"Content-Type: {media_type}", *headers]
    lines.append(f"Content-Length: {len(body)}")
    return Answer("\r\n".join([*lines, "", ""]).encode() + body, close)


def problem(slug: str, status: int, *, headers: Iterable[str] = (), **members: Any) -> Answer:
    """Return the answer of a problem document."""
    document = {"type": f"urn:datasources:error:{slug}", "status": status, **members}
    return answer(status, document, media_type="application/problem+json", headers=headers)


class ScriptedServer:
    """Serves connections, one thread each; answers are used up in their order."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.connections = 0
        self._listener = socket.create_server((HOST, 0))
        self.closed = 0
        """Connections that this server has closed."""
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    @property
    def lines(self) -> list[str]:
        return [request.line for request in self.requests]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=[connection])
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file, suppress(OSError, ValueError):
            while (request := read_request(file)) is not None:
                self.requests.append(request)
                if not self.answers:
                    return
                script = self.answers.pop(0)
                content = script.content
                for part in [content] if isinstance(content, bytes) else content:
                    connection.sendall(part)
                if script.close:
                    connection.shutdown(socket.SHUT_RDWR)
                    self.closed += 1
                    return


def read_request(file: BinaryIO) -> Request | None:
    """Read a request; None at the end of the connection."""
    line = file.readline().decode().strip()
    if not line:
        return None
    headers = {}
    while text := file.readline().decode().strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        return Request(line, headers, b"".join(read_chunks(file)))
    return Request(line, headers, file.read(int(headers.get("content-length", 0))))


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    while size := int(file.readline(), 16):
        yield file.read(size)
        file.readline()
    file.readline()
