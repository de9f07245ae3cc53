"""Who asks, and what is told about each operation: to observers always, to the log on failure."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from datasources.models import Operation
from datasources.plugins import Plugins
from datasources.redaction import redact_text

_log = logging.getLogger("datasources.operations")
# Without it, what a host that configured no logging has caught would still be on its stderr.
logging.getLogger("datasources").addHandler(logging.NullHandler())
_caller: ContextVar[tuple[str | None, str | None]] = ContextVar("caller", default=(None, None))


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


@contextmanager
def observed(plugins: Plugins, name: str, source_id: str, **details: Any) -> Iterator[Operation]:
    """Tell observers of an operation's start and end; log its failure once, without secrets."""
    user, request_id = _caller.get()
    operation = Operation(
        name, source_id, request_id or secrets.token_hex(8), user, datetime.now(UTC), details
    )
    plugins.notify("datasources_operation_started", operation=operation)
    started = time.monotonic()
    error: BaseException | None = None
    try:
        yield operation
    except BaseException as exc:
        error = exc
        raise
    finally:
        duration = time.monotonic() - started
        if isinstance(error, Exception):
            _log.warning(
                "%s of source %r failed (request %s, user %s): %s: %s",
                *(name, source_id, operation.request_id, user or "unknown"),
                *(type(error).__name__, redact_text(str(error))),
            )
        plugins.notify(
            "datasources_operation_finished", operation=operation, duration=duration, error=error
        )
