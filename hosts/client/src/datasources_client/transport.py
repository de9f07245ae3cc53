"""Requests and responses over one connection that is kept open.

A connection is owned by one exchange at a time: from `_connect`, which takes the kept one or makes
another, to `release`, which keeps it if none is kept, or closes it. So threads never share a
connection, and never wait for one another.

- A response releases its connection when its last byte has been read. Left earlier, it closes it.
- A connection that failed, or that has anything to be read between two responses (the end of the
  stream, or bytes that belong to no request), is closed and not used again.
- A child process does not use the connection of its parent.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO

from datasources_client.addresses import Target, new_connection, new_context
from datasources_client.errors import (
    ResponseError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from datasources_client.responses import Response

Body = bytes | BinaryIO | Iterable[bytes] | None

_CHUNK = 256 * 1024  # bytes read of a file at once
_FIRST_PAUSE = 0.25  # seconds before the first retry; each next pause is four times as long
_LONGEST_PAUSE = 10.0  # seconds of `Retry-After` that are waited


class Transport:
    """Sends requests to one server.

    Args:
        target: The server.
        timeout: Seconds that the server may be silent.
        retries: Attempts after the first one, where repeating is safe.
    """

    def __init__(self, target: Target, *, timeout: float, retries: int) -> None:
        self._target = target
        self._timeout = timeout
        self.retries = retries
        self._context: ssl.SSLContext | None = new_context(target)
        # At most one, with the process that made it. No lock: a fork could leave one held.
        self._kept: deque[tuple[int, http.client.HTTPConnection]] = deque()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and return its response, of a status from 200 to 299.

        A connection that is refused is tried again for each method, as nothing has been sent. GET is
        also sent again after a 503 with `Retry-After`, and if a kept connection turns out to be
        closed.

        Args:
            method: Of HTTP.
            path: From `/v1` on, with its query, percent-encoded.
            body: Bytes; or a binary file or an iterable, which is sent in chunks.
            headers: More headers.
            timeout: Seconds until the response begins; by default that of the transport.

        Raises:
            DataSourceError: The error that the server describes.
            ServerError: The server cannot be reached, is silent, or answers something else.
        """
        for attempt in range(self.retries + 1):
            is_last = attempt == self.retries
            try:
                connection, is_kept = self._connect()
            except _ConnectionRefused as refused:
                if is_last:
                    raise refused.to_error() from None
                time.sleep(min(_FIRST_PAUSE * 4**attempt, _LONGEST_PAUSE))
                continue
            response = self._exchange(connection, method, path, body, headers or {}, timeout)
            if response is None:
                if is_kept and method == "GET" and not is_last:
                    continue
                raise ResponseError(
                    f"{self._name} closed the connection before its response, "
                    "or answered with something that is not HTTP",
                    retryable=True,
                )
            if 200 <= response.status < 300:
                return response
            error = response.to_error(self._target.token)
            pause = error.retry_after
            if is_last or method != "GET" or error.status != 503 or pause is None:
                raise error
            if pause > _LONGEST_PAUSE:
                raise error
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def release(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next request, unless one is kept or the server closes it."""
        if self._kept or connection.sock is None:
            connection.close()
        else:
            self._kept.append((os.getpid(), connection))

    def close(self) -> None:
        """Close the connection that is kept."""
        while self._kept:
            with suppress(IndexError):  # taken by another thread
                _, connection = self._kept.pop()
                connection.close()

    @property
    def _name(self) -> str:
        return f"the server at {self._target.address}"

    def _timeout_error(self) -> ServerTimeoutError:
        return ServerTimeoutError(f"{self._name} did not answer in time", retryable=True)

    def _connect(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return a connection, and True if it is the one that was kept."""
        with suppress(IndexError):  # none is kept
            owner, connection = self._kept.pop()
            if owner == os.getpid() and _is_usable(connection):
                return connection, True
            connection.close()
        connection = new_connection(self._target.address, self._timeout, self._context)
        error: Exception
        try:
            connection.connect()
            return connection, False
        except (ConnectionRefusedError, BlockingIOError):  # the latter: a full queue of a socket
            error = _ConnectionRefused(f"{self._name} refuses connections")
        except TimeoutError:
            error = self._timeout_error()
        except ssl.SSLCertVerificationError as exc:
            error = ServerUnreachableError(
                f"the certificate of {self._name} is not trusted: {exc.verify_message}"
            )
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            error = ServerUnreachableError(
                f"{self._name} cannot be reached: {reason}", retryable=True
            )
        connection.close()
        raise error

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> Response | None:
        """Send a request; return the response, None if the connection ends without one.

        Errors are raised outside of `except`, without a chain: frames of `http.client` hold the
        token, and tools that show local variables of a traceback would show it.
        """
        sock = connection.sock
        is_timeout = False
        failures: list[Exception] = []
        if not (body is None or isinstance(body, bytes)):
            body = _read_body(body, failures, sock)
        try:
            sock.settimeout(self._timeout)
            is_sent = False
            # A server that refuses a body answers, and may close, before all of it was sent.
            with suppress(BrokenPipeError, ConnectionResetError, _Answered):
                self._send(connection, method, path, body, headers)
                is_sent = True
            sock.settimeout(self._timeout if timeout is None else timeout)
            raw = connection.getresponse()
            with suppress(OSError):  # closed by the library if the server closes it
                sock.settimeout(self._timeout)
            release = self.release if is_sent else http.client.HTTPConnection.close
            return Response(raw, connection, release, self._timeout_error())
        except TimeoutError:
            is_timeout = True
        except BaseException as exc:
            connection.close()
            if not failures and not isinstance(
                exc, (OSError, http.client.HTTPException, ValueError)
            ):
                raise
        connection.close()
        if failures:
            raise failures[0].with_traceback(None)
        if is_timeout:
            raise self._timeout_error()
        return None

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str],
    ) -> None:
        connection.putrequest(method, self._target.address.prefix + path)
        connection.putheader("User-Agent", "datasources-client")
        for name, value in headers.items():
            connection.putheader(name, value)
        if self._target.token is not None:
            connection.putheader("Authorization", f"Bearer {self._target.token}")
        if body is None or isinstance(body, bytes):
            if method != "GET":
                connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
        else:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(body, encode_chunked=True)


class _ConnectionRefused(Exception):  # noqa: N818  (never leaves this module)
    def to_error(self) -> ServerUnreachableError:
        return ServerUnreachableError(str(self), retryable=True)


class _Answered(Exception):  # noqa: N818  (never leaves this module)
    """The server has answered before it has the whole body."""


def read_pieces(content: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a binary file, or those of an iterable."""
    read = getattr(content, "read", None)
    yield from iter(lambda: read(_CHUNK), b"") if callable(read) else content


def _read_body(
    body: BinaryIO | Iterable[bytes], failures: list[Exception], sock: socket.socket
) -> Iterator[bytes]:
    """Yield the bytes of a body; append what reading them raises to `failures`.

    Raises:
        _Answered: The server has answered; over TLS, where other messages arrive, this is not seen.
    """
    pieces = read_pieces(body)
    while True:
        try:
            piece = next(pieces, None)
        except Exception as exc:
            failures.append(exc)
            raise
        if piece is None:
            return
        yield piece
        if not isinstance(sock, ssl.SSLSocket) and _has_input(sock):
            raise _Answered


def _is_usable(connection: http.client.HTTPConnection) -> bool:
    """Return True if a kept connection is open and has nothing to be read."""
    try:
        return not _has_input(connection.sock)
    except (OSError, ValueError):
        return False


def _has_input(sock: socket.socket) -> bool:
    """Return True if a socket has bytes to be read, or is at its end."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
