"""Operations of the registry as others see them: observers always, the log when one fails."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from datasources.models import Operation, Outcome
from datasources.plugins import Plugins
from datasources.redaction import redact_text

_log = logging.getLogger("datasources.operations")
# Without a handler, Python's logging of last resort would print what a host has caught.
logging.getLogger("datasources").addHandler(logging.NullHandler())
_caller: ContextVar[tuple[str | None, str | None]] = ContextVar("caller", default=(None, None))

_READ_LIMIT = 4_000  # characters of a text that are searched for secrets: a query may be megabytes
_EXCERPT_LIMIT = 1_000  # characters of a text that are logged

SOURCES_PER_TURN = 20
"""Sources of one call that are worked on before the event loop has a turn.

Each takes some 50 microseconds. A turn takes 5 more, so a turn for each would cost a fifth.
"""


@contextmanager
def caller(*, user: str | None = None, request_id: str | None = None) -> Iterator[None]:
    """Name the caller for the log and for observers, in this task and in tasks that it starts.

    Without a request id each operation gets one of its own.
    """
    token = _caller.set((user, request_id))
    try:
        yield
    finally:
        _caller.reset(token)


def current_caller() -> tuple[str | None, str | None]:
    """Return the user and the request id that `caller` has named."""
    return _caller.get()


@contextmanager
def observe(plugins: Plugins, name: str, source_id: str, **details: Any) -> Iterator[Outcome]:
    """Tell observers of an operation's start and end, and log its failure once, without secrets.

    Yields an `Outcome`; the body records the operation's result on it.
    """
    observation = _Observation(plugins, name, source_id, details)
    error: BaseException | None = None
    try:
        yield observation.outcome
    except BaseException as exc:
        error = exc
        raise
    finally:
        observation.finish(error)


@asynccontextmanager
async def observe_each(
    plugins: Plugins, name: str, source_ids: Iterable[str]
) -> AsyncIterator[None]:
    """Observe an operation that is done on each of many sources, or on none."""
    observations = []
    for index, source_id in enumerate(source_ids):
        if index % SOURCES_PER_TURN == 0:
            await asyncio.sleep(0)
        observations.append(_Observation(plugins, name, source_id, {}))
    error: BaseException | None = None
    try:
        yield
    except BaseException as exc:
        error = exc
        raise
    finally:
        for index, observation in enumerate(observations):
            if index % SOURCES_PER_TURN == 0:
                await asyncio.sleep(0)
            observation.finish(error)


class _Observation:
    """One operation, from its start to its end."""

    def __init__(
        self, plugins: Plugins, name: str, source_id: str, details: dict[str, Any]
    ) -> None:
        user, request_id = _caller.get()
        self.outcome = Outcome()
        self._plugins = plugins
        self._operation = Operation(
            name, source_id, request_id or os.urandom(8).hex(), user, datetime.now(UTC), details
        )
        plugins.notify("datasources_operation_started", operation=self._operation)
        self._started = time.monotonic()

    def finish(self, error: BaseException | None) -> None:
        duration = time.monotonic() - self._started
        operation = self._operation
        if isinstance(error, Exception):
            _log.warning(
                "%s of source %r failed (request %s, user %s): %s",
                operation.name,
                redacted_excerpt(operation.source_id),
                _one_line(operation.request_id),
                _one_line(operation.user or "unknown"),
                describe_error(error),
            )
        self._plugins.notify(
            "datasources_operation_finished",
            operation=operation,
            duration=duration,
            error=error,
            outcome=self.outcome,
        )


def status(error: BaseException | None) -> str:
    """Return how an operation ended, in a word: `ok`, `cancelled`, `stopped`, or its error's class.

    `stopped` is an iteration whose reader had enough.
    """
    if error is None:
        return "ok"
    words = {"CancelledError": "cancelled", "GeneratorExit": "stopped"}
    return words.get(type(error).__name__, type(error).__name__)


def operation_target(operation: Operation) -> str | None:
    """Return the identifier, path or pattern of an operation, as `redacted_excerpt` shows it."""
    target = next((value for value in operation.details.values() if value is not None), None)
    return None if target is None else redacted_excerpt(target)


def describe_error(error: BaseException) -> str:
    """Return an error's class and text on one line, as `redacted_excerpt` shows it."""
    name = type(error).__name__
    try:
        text = _one_line(error)
    except Exception:  # noqa: BLE001  (a driver's exception may be broken itself)
        text = ""
    return f"{name}: {text}" if text else name


def redacted_excerpt(value: object) -> str:
    """Return the beginning of a text, 1,000 characters at most, with secrets masked."""
    text = str(value)  # a host may pass a number for a user
    if len(text) <= _READ_LIMIT:
        return redact_text(text)[:_EXCERPT_LIMIT]
    # Without its last word: a secret that was cut in two may not be recognised.
    complete_words = text[:_READ_LIMIT].rsplit(None, 1)[:-1]
    return redact_text("".join(complete_words))[:_EXCERPT_LIMIT]


def _one_line(value: object) -> str:
    return " ".join(redacted_excerpt(value).split())
