"""Who asks, and what is told about each operation: to observers always, to the log on failure."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from datasources.models import Operation, Outcome
from datasources.plugins import Plugins
from datasources.redaction import redact_text

_log = logging.getLogger("datasources.operations")
# Without it, what a host that configured no logging has caught would still be on its stderr.
logging.getLogger("datasources").addHandler(logging.NullHandler())
_caller: ContextVar[tuple[str | None, str | None]] = ContextVar("caller", default=(None, None))

_READ = 4_000  # characters of a text that are looked at: a query may be megabytes
_SHOWN = 1_000


@contextmanager
def caller(*, user: str | None = None, request_id: str | None = None) -> Iterator[None]:
    """Name who asks, for the log and for observers, in this task and those it starts.

    Without a request id each operation gets one of its own.
    """
    token = _caller.set((user, request_id))
    try:
        yield
    finally:
        _caller.reset(token)


def current_caller() -> tuple[str | None, str | None]:
    """Return user and request id as `caller` named them."""
    return _caller.get()


@contextmanager
def observed(plugins: Plugins, name: str, source_id: str, **details: Any) -> Iterator[Outcome]:
    """Tell observers of an operation's start and end; log its failure once, without secrets.

    The code inside says in what it is given what came of it.
    """
    user, request_id = _caller.get()
    operation = Operation(
        name, source_id, request_id or os.urandom(8).hex(), user, datetime.now(UTC), details
    )
    outcome = Outcome()
    plugins.notify("datasources_operation_started", operation=operation)
    started = time.monotonic()
    error: BaseException | None = None
    try:
        yield outcome
    except BaseException as exc:
        error = exc
        raise
    finally:
        duration = time.monotonic() - started
        if isinstance(error, Exception):
            _log.warning(
                "%s of source %r failed (request %s, user %s): %s",
                *(name, excerpt(source_id), _line(operation.request_id)),
                *(_line(user or "unknown"), told(error)),
            )
        plugins.notify(
            "datasources_operation_finished",
            operation=operation,
            duration=duration,
            error=error,
            outcome=outcome,
        )


def verdict(error: BaseException | None) -> str:
    """Return how an operation ended, in a word: `ok`, `cancelled`, `stopped`, or its error's class.

    `stopped` is an iteration whose reader had enough.
    """
    if error is None:
        return "ok"
    words = {"CancelledError": "cancelled", "GeneratorExit": "stopped"}
    return words.get(type(error).__name__, type(error).__name__)


def asked_for(operation: Operation) -> str | None:
    """Return the identifier, path or pattern of an operation, as `excerpt` shows it."""
    asked = next((value for value in operation.details.values() if value is not None), None)
    return None if asked is None else excerpt(asked)


def told(error: BaseException) -> str:
    """Return an error's class and text on one line, as `excerpt` shows it."""
    name = type(error).__name__
    try:
        text = _line(error)
    except Exception:  # noqa: BLE001  (a driver's exception may be broken itself)
        text = ""
    return f"{name}: {text}" if text else name


def excerpt(value: object) -> str:
    """Return the beginning of a text, 1,000 characters at most, secrets masked."""
    text = str(value)  # of what a host passes for a text, such as a number for a user
    if len(text) <= _READ:
        return redact_text(text)[:_SHOWN]
    # Without its last word, which may be one half of a secret that only the whole betrays.
    return redact_text("".join(text[:_READ].rsplit(None, 1)[:-1]))[:_SHOWN]


def _line(value: object) -> str:
    return " ".join(excerpt(value).split())
