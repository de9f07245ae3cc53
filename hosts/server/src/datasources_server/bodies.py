"""The body of a request as its route receives it, and the leaving of its client.

ASGI tells both through one function: first the parts of the body, then, once the client has left,
`http.disconnect`. So one place at a time may wait for it: the reader of the body until its last
part, and from then on the guard of the request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from datasources_server.problems import Problem
from datasources_server.settings import ServerSettings

_DRAIN_SECONDS = 5.0  # in which a client has to see that its body is refused


class RequestBody:
    """The body of one request.

    Args:
        receive: The function of ASGI.
        settings: The limits.
    """

    def __init__(self, receive: Receive, settings: ServerSettings) -> None:
        self._receive = receive
        self._settings = settings
        self._parts: deque[Message] = deque()  # that were read before the route asked
        self._read = asyncio.Event()  # the last part has arrived, or the client has left
        self._left = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """True once the last part has arrived."""
        return self._read.is_set() and not self._left.is_set()

    async def read_whole(self, headers: Headers) -> bool:
        """Read all parts before the route runs; return False if the client has left.

        Raises:
            Problem: The body is too large, or too slow.
        """
        largest = self._settings.max_body
        if (announced_size(headers) or 0) > largest:
            raise _too_large(largest)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                while not self._read.is_set():
                    message = await self._next()
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > largest:
                        raise _too_large(largest)
        except TimeoutError:
            raise _too_slow(self._settings.body_timeout) from None
        self._parts.append({"type": "http.request", "body": b"".join(parts), "more_body": False})
        return self.is_complete

    async def receive(self) -> Message:
        """Return the next part for the route.

        After the last part, and when the client has left, this waits: the guard cancels the route.

        Raises:
            Problem: The next part is too slow.
        """
        if self._parts:
            return self._parts.popleft()
        if not self._read.is_set():
            try:
                async with asyncio.timeout(self._settings.body_timeout):
                    message = await self._next()
            except TimeoutError:
                raise _too_slow(self._settings.body_timeout) from None
            if not self._left.is_set():
                return message
        forever: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await forever

    async def drain(self) -> None:
        """Read and drop the rest of the body, for some seconds.

        A connection that is closed while its client sends is reset, and the client may not get
        the response.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._read.is_set():
                    await self._next()

    async def wait_until_left(self) -> None:
        """Wait until the client has left; until the whole body was read, its reader finds out."""
        await self._read.wait()
        while not self._left.is_set():
            await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._left.set()
        if not message.get("more_body", False):
            self._read.set()
        return message


def announced_size(headers: Headers) -> int | None:
    """Return the bytes that the header `Content-Length` announces; None if it says nothing."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else None


def _too_slow(seconds: float) -> Problem:
    return Problem(
        408,
        "body-too-slow",
        f"the request's body did not arrive within {seconds:g} seconds",
        headers={"Connection": "close"},
    )


def _too_large(size: int) -> Problem:
    return Problem(413, "body-too-large", f"a request's body may have {size} bytes")
