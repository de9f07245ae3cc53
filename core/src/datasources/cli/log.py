"""Show what libraries log: everything with `-v`, else only the warnings about plugins."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from datasources.cli import output


class _MaskingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        lines = output.mask(super().format(record), shapes=True).splitlines()
        return "\n".join(map(output.printable, lines))

    def formatTime(  # noqa: N802  (the name is that of the base class)
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        del datefmt
        return output.printable(output.to_iso_time(record.created, timespec="milliseconds"))


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which tests and prompts replace."""

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO = sys.stderr
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001  (logging's own rule: an error of a handler is shown there)
            self.handleError(record)


_handler = _StderrHandler()


def start() -> None:
    """Attach the command line's handler to the root logger."""
    root = logging.getLogger()
    root.removeHandler(_handler)
    _handler.filters.clear()
    if output.is_verbose():
        _handler.setFormatter(_MaskingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.setLevel(logging.DEBUG)
    else:
        # The registry logs failed operations too, which the command reports as its own error.
        _handler.addFilter(logging.Filter("datasources.plugins"))
        _handler.setFormatter(_MaskingFormatter("Warning: %(message)s"))
        root.setLevel(logging.WARNING)
    root.addHandler(_handler)
