"""Responses whose bodies are read as they arrive."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from io import BufferedReader

from datasources_client.errors import (
    DataSourceError,
    ResponseError,
    ServerTimeoutError,
    error_from_problem,
)

_CHUNK = 256 * 1024  # bytes read of a response at once
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r\n")
_LONGEST_LINE = 8 * 1024  # bytes of a chunk's size with its extensions, or of a trailer
_MOST_TRAILERS = 100
_LARGEST_PROBLEM = 1 << 20  # bytes of a problem document that are read


class Response:
    """A response whose body is read as it arrives."""

    def __init__(
        self,
        raw: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        release: Callable[[http.client.HTTPConnection], None],
        timeout_error: ServerTimeoutError,
    ) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self._raw = raw
        self._connection: http.client.HTTPConnection | None = connection
        self._release_connection = release
        self._timeout_error = timeout_error

    @property
    def length(self) -> int | None:
        """Bytes of the body that are still to come; None for a body in chunks."""
        return None if self._raw.chunked else self._raw.length

    def header(self, name: str) -> str | None:
        """Return the value of a header; None if there is none."""
        value: str | None = self.headers.get(name)
        return value

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes as they arrive, and release the connection after the last.

        Raises:
            ResponseError: The body ended before its end, or nothing says where its end is.
            ServerTimeoutError: The server is silent.
        """
        try:
            yield from self._chunks()
        except BaseException:  # also if the iterator is left early
            self.close()
            raise
        self._release()

    def read(self, limit: int) -> bytes:
        """Return the body; raises as `chunks`, and ResponseError for more than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                self.close()
                raise self._error("the server's response is too large")
        return b"".join(parts)

    def to_error(self, token: str | None) -> DataSourceError:
        """Read a response that is no success and return its error."""
        retry_after = _seconds(self.header("Retry-After"))
        if 300 <= self.status < 400:
            self.close()
            return ResponseError(
                f"the server answered with the redirect {self.status}, which is not followed",
                status=self.status,
            )
        try:
            content = self.read(_LARGEST_PROBLEM)
            if token is not None:  # a server that repeats the request does not get it shown
                content = content.replace(token.encode(), b"***")
            document = json.loads(content)
        except (DataSourceError, ValueError, RecursionError):
            document = None
        if self.headers.get_content_type() == "application/problem+json" and isinstance(
            document, dict
        ):
            return error_from_problem(document, self.status, retry_after)
        return ResponseError(
            f"the server answered with the status {self.status} and no problem document",
            status=self.status,
            retryable=self.status in (429, 502, 503, 504),
            retry_after=retry_after,
        )

    def _chunks(self) -> Iterator[bytes]:
        if self.length is None and not self._raw.chunked:
            raise self._error("the server's response does not say where it ends")
        file, length = self._raw.fp, self.length
        pieces = _read_chunked(file) if length is None else _read_exactly(file, length)
        while True:
            problem: DataSourceError
            try:
                piece = next(pieces, None)
            except TimeoutError:
                problem = self._timeout_error
            except (EOFError, OSError, ValueError):
                problem = self._error(
                    "the server's response ended before it was complete", retryable=True
                )
            else:
                if piece is None:
                    return
                yield piece
                continue
            raise problem  # here, without the exception of the socket

    def close(self) -> None:
        """Close the connection if the body was not read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._raw.close()
            connection.close()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._raw.close()
            self._release_connection(connection)

    def _error(self, detail: str, *, retryable: bool = False) -> ResponseError:
        return ResponseError(
            detail,
            status=self.status,
            retryable=retryable,
            request_id=self.header("X-Request-Id"),
        )


def _read_exactly(file: BufferedReader, size: int) -> Iterator[bytes]:
    """Yield `size` bytes as they arrive; raises EOFError if there are fewer."""
    while size:
        piece = file.read1(min(size, _CHUNK))
        if not piece:
            raise EOFError
        size -= len(piece)
        yield piece


def _read_chunked(file: BufferedReader) -> Iterator[bytes]:
    """Yield the bytes of a body in chunks (RFC 9112, 7.1).

    `http.client` takes the end of the stream for the end of a line, and so a chunk of the size
    `0…` that was cut off for the last one.

    Raises:
        EOFError: The stream ends before the line after the last chunk, or is malformed.
    """
    while size := _read_chunk_size(file):
        yield from _read_exactly(file, size)
        if file.readline(3) != b"\r\n":
            raise EOFError
    for _ in range(_MOST_TRAILERS):
        line = file.readline(_LONGEST_LINE)
        if line == b"\r\n":
            return
        if not line.endswith(b"\n"):
            raise EOFError
    raise EOFError


def _read_chunk_size(file: BufferedReader) -> int:
    match = _CHUNK_SIZE.fullmatch(file.readline(_LONGEST_LINE))
    if match is None:
        raise EOFError
    return int(match[1], 16)


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of the header `Retry-After`; None if it is missing or malformed."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10:
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
