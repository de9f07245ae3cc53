"""Blocking calls off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call a blocking function in a worker thread.

    Unlike with `asyncio.to_thread`, a caller that is cancelled ends only when the function has:
    nothing that it uses, such as a file, is closed under it.  Keep the pieces short.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            # Cancelled again while waiting: the first time is enough.
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:
                continue
        if not call.cancelled():
            call.exception()  # retrieved: nobody else will
        raise
