"""Pauses between the attempts of an operation that failed."""

from __future__ import annotations

import random
from collections.abc import Iterator


def backoff(*, first: float, maximum: float, attempts: int | None = None) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt: doubling, with jitter.

    The nominal pauses are `first`, twice that, and so on up to `maximum`; each is shortened at
    random by up to half, so that clients that failed together do not return together. An attempt
    that got further starts again with a new iterator.

        pauses = backoff(first=0.1, maximum=5.0, attempts=3)
        while True:
            try:
                return await connect()
            except ConnectError:
                if (pause := next(pauses, None)) is None:
                    raise
            await asyncio.sleep(pause)

    Args:
        first: Seconds.
        maximum: Seconds.
        attempts: How many attempts there are in all: the iterator ends after one pause less. None
            is without end.
    """
    pause = min(first, maximum)
    made = 1
    while attempts is None or made < attempts:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311  (spreads load; guards no secret)
        pause = min(2 * pause, maximum)
        made += 1
