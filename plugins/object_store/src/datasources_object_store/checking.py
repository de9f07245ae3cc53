"""Check within a time that a store can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from datasources import ConnectError
from datasources.objects import ObjectSubject, Retries, TransientError

# Further attempts after an answer such as 503. A service that gives no answer is not tried again:
# the pool does that.
_RETRIES = 2


async def check_within(
    seconds: float, request: Callable[[], Awaitable[object]], subject: ObjectSubject
) -> None:
    """Send a request that shows that the store can be used.

    Raises:
        ConnectError: There was no answer within the time.
        ConnectorError: As the request raises it.
    """
    retries = Retries(_RETRIES, seconds)
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await request()
                    return
                except TransientError as failure:
                    if failure.error.code is None:  # no answer of the service
                        raise failure.error from failure.__cause__
                    await retries.pause(failure)
    except TimeoutError as exc:
        raise subject.error(ConnectError, f"no answer within {seconds:g} s") from exc
