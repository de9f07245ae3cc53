"""An audit log: a line of JSON for each operation, and for each source registered or removed.

```python
registry.plugins.register_plugin(AuditLog("audit.jsonl"))
```

A line has no keys for unknown values. Texts have 1,000 characters at most, with secrets masked.

| key | |
|---|---|
| `time` | start of the operation, in UTC, ISO 8601 |
| `operation` | the registry method, such as `fetch`; or `registered`, `unregistered` |
| `source`, `type` | id of the source; for `registered`, its type too |
| `request_id`, `user` | as `datasources.caller` named them |
| `identifier` | the identifier, path or pattern of the call |
| `outcome` | `ok`, `cancelled`, `stopped` (the reader left an iteration), or the error's class |
| `error` | class and text of the error |
| `duration` | seconds |
| `bytes`, `rows`, `items` | how many were fetched, uploaded, shown or listed |
| `sha256`, `truncated`, `unchanged` | of a fetch, as in its receipt |
"""

from __future__ import annotations

import errno
import json
import os
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any

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


class AuditObserver(ABC):
    """Makes an entry of each operation, and of each source registered or removed.

    A subclass says where the entries go. Its `write` is called on the thread of the operation, which
    may be that of an event loop.
    """

    @abstractmethod
    def write(self, entry: dict[str, Any]) -> None:
        """Write an entry, whose keys are those of a line of the audit log."""
        ...

    @hookimpl
    def datasources_operation_finished(
        self, operation: Operation, duration: float, error: BaseException | None, outcome: Outcome
    ) -> None:
        receipt = outcome.receipt
        self._make(
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
        self._make(datetime.now(UTC), "registered", config.id, current_caller(), type=config.type)

    @hookimpl
    def datasources_source_unregistered(self, source_id: str) -> None:
        self._make(datetime.now(UTC), "unregistered", source_id, current_caller())

    def _make(
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
        self.write({key: value for key, value in fields.items() if value is not None})


class AuditLog(AuditObserver):
    """Appends lines to a file that threads and processes may share.

    The file is made with mode 600. It is opened for each line, so that a rotation by renaming needs
    nothing else. A line that cannot be written is lost: the operation goes on, and the log
    `datasources.plugins` has a warning, the first time.

    Args:
        path: The file; a pipe or a device, such as `/dev/stderr`, is possible.

    Raises:
        OptionError: The file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._torn = False
        try:
            os.close(self._open())
        except (OSError, ValueError) as exc:  # ValueError: a path with a NUL
            reason = exc.strerror if isinstance(exc, OSError) else exc
            raise OptionError(f"the audit log {self.path!r} cannot be written: {reason}") from exc

    def write(self, entry: dict[str, Any]) -> None:
        # `default`, as figures of a connector may have any type.
        self._write(json.dumps(entry, default=str).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        """Append a line in one call, so that lines of other writers are not mixed into it."""
        if self._torn:  # the last line is incomplete, and must not be continued by this one
            line = b"\n" + line
        descriptor = self._open()
        try:
            written = os.write(descriptor, line)
        finally:
            os.close(descriptor)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    def _open(self) -> int:
        # Without waiting: a pipe that nobody reads is an error. Not `open_regular`, as a host may
        # log to a pipe or a device.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self.path, flags, 0o600)
