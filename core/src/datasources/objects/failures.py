"""Name objects in errors, and repeat requests that failed in passing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import ClassVar, TypeVar

from datasources.errors import ConnectorError
from datasources.redaction import redact_text
from datasources.retrying import backoff

T = TypeVar("T")

_FIRST_BACKOFF = 0.1  # seconds before the second attempt; doubled for each further one
_MAX_BACKOFF = 10.0  # seconds


class TransientError(Exception):
    """Raised for a failure after which the request may be sent again.

    Attributes:
        error: The error to raise when no attempt is left.
        retry_after: Seconds that the service asks to wait before the next attempt; 0 if none.
    """

    def __init__(self, error: ConnectorError, retry_after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ObjectSubject:
    """The container or object of a request, as error messages name it."""

    container_noun: ClassVar[str] = "bucket"
    object_noun: ClassVar[str] = "object"

    container: str
    name: str | None = None
    """The name of the object; None for the container."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that are masked in every reason."""

    def __str__(self) -> str:
        container = f"{self.container_noun} {self.container!r}"
        return (
            container if self.name is None else f"{self.object_noun} {self.name!r} of {container}"
        )

    def error(
        self, error_class: Callable[..., ConnectorError], reason: str, *, code: str | None = None
    ) -> ConnectorError:
        """Return an error whose message is the subject and the reason, secrets masked."""
        return error_class(f"{self}: {redact_text(reason, self.secrets)}", code=code)


class Retries:
    """Exponential backoff with jitter for one request, limited in number and in time.

    Args:
        attempts: Attempts after the first one.
        timeout: Seconds from the first attempt, after which none is begun.
    """

    def __init__(self, attempts: int, timeout: float) -> None:
        self._attempts = attempts
        self._timeout = timeout
        self.reset()

    def reset(self) -> None:
        """Start counting anew, as after an attempt that brought data."""
        self._delays = backoff(
            first=_FIRST_BACKOFF, maximum=_MAX_BACKOFF, attempts=self._attempts + 1
        )
        self._deadline = monotonic() + self._timeout

    async def pause(self, failure: TransientError) -> None:
        """Wait before the next attempt, for `retry_after` seconds at least.

        Raises:
            ConnectorError: No attempt is left; it is `failure.error`.
        """
        delay = next(self._delays, None)
        if delay is None or monotonic() + max(failure.retry_after, delay) > self._deadline:
            raise failure.error from failure.__cause__
        await asyncio.sleep(max(failure.retry_after, delay))

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it ends without `TransientError`, or no retry is left.

        Raises:
            ConnectorError: The error of the last attempt.
        """
        while True:
            try:
                return await attempt()
            except TransientError as failure:
                await self.pause(failure)
