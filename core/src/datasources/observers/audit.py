"""An audit trail: a line of JSON for each operation, each source registered and each removed.

```python
registry.plugins.register_plugin(AuditLog("audit.jsonl"))
```

What is unknown is left out of a line; texts are cut to 1,000 characters, their secrets masked.

| key | |
|---|---|
| `time` | UTC, ISO 8601; the operation's start |
| `operation` | the registry method, such as `fetch`; or `registered`, `unregistered` |
| `source`, `type` | the source's id; of a registered one the type too |
| `request_id`, `user` | as `datasources.caller` named them |
| `identifier` | the identifier, path or pattern |
| `outcome` | `ok`, `cancelled`, `stopped` (an iteration's reader had enough), or the error's class |
| `error` | its class and text |
| `duration` | seconds |
| `bytes`, `rows`, `items` | fetched, uploaded, shown or listed |
| `sha256`, `truncated`, `unchanged` | as in a fetch's receipt |
"""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime

from datasources.errors import OptionError
from datasources.models import DataSourceConfig, Operation, Outcome
from datasources.plugins import hookimpl
from datasources.registry import (
    current_caller,
    describe_error,
    operation_target,
    redacted_excerpt,
    status,
)


class AuditLog:
    """Appends to a file that any number of threads and processes may share.

    The file is made with mode 600, and opened for each line: renaming it starts a new one.  A line
    that cannot be written is lost without harm to the operation; the log says so, the first time.

    Raises:
        OptionError: The file cannot be opened now.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._torn = False
        try:
            os.close(self._open())
        except (OSError, ValueError) as exc:  # the latter of a path with a NUL
            text = exc.strerror if isinstance(exc, OSError) else exc
            raise OptionError(f"the audit log {self.path!r} cannot be written: {text}") from exc

    @hookimpl
    def datasources_operation_finished(
        self, operation: Operation, duration: float, error: BaseException | None, outcome: Outcome
    ) -> None:
        receipt = outcome.receipt
        self._append(
            operation.started_at,
            operation.name,
            operation.source_id,
            (operation.user, operation.request_id),
            identifier=operation_target(operation),
            outcome=status(error),
            error=describe_error(error) if isinstance(error, Exception) else None,
            duration=round(duration, 6),
            bytes=outcome.size,
            rows=outcome.rows,
            items=outcome.items,
            sha256=receipt and receipt.sha256,
            truncated=receipt and receipt.truncated,
            unchanged=receipt and receipt.unchanged,
        )

    @hookimpl
    def datasources_source_registered(self, config: DataSourceConfig) -> None:
        now = datetime.now(UTC)
        self._append(now, "registered", config.id, current_caller(), type=config.type)

    @hookimpl
    def datasources_source_unregistered(self, source_id: str) -> None:
        self._append(datetime.now(UTC), "unregistered", source_id, current_caller())

    def _append(
        self,
        time: datetime,
        operation: str,
        source_id: str,
        caller: tuple[str | None, str | None],
        **more: object,
    ) -> None:
        user, request_id = (text and redacted_excerpt(text) for text in caller)
        fields = {
            "time": time.isoformat(timespec="microseconds"),
            "operation": operation,
            "source": redacted_excerpt(source_id),
            "request_id": request_id,
            "user": user,
            **more,
        }
        known = {key: value for key, value in fields.items() if value is not None}
        # A connector's figures may be anything; all that is not ASCII is escaped.
        self._write(json.dumps(known, default=str).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        """Append in one call, which the system keeps whole among those of other writers."""
        line = b"\n" * self._torn + line
        descriptor = self._open()
        try:
            written = os.write(descriptor, line)
        finally:
            os.close(descriptor)
        self._torn = written < len(line)
        if self._torn:  # as on a full disk; the next line is not to continue this one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    def _open(self) -> int:
        # A pipe that nobody reads is an error then, and no wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self.path, flags, 0o600)
