"""What libraries log: all of it on `-v`, else only what plugins did wrong."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from datasources.cli import output


class _Masked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        lines = output.mask(super().format(record), shapes=True).splitlines()
        return "\n".join(map(output.clean, lines))


class _Stderr(logging.Handler):
    """Writes to what stderr is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO = sys.stderr
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001  (as every handler does: shown on stderr)
            self.handleError(record)


_handler = _Stderr()


def start() -> None:
    """Attach the one handler of the command line to the root logger."""
    root = logging.getLogger()
    root.removeHandler(_handler)
    _handler.filters.clear()
    if output.verbose():
        _handler.setFormatter(_Masked("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.setLevel(logging.DEBUG)
    else:
        # A failed operation is logged too; the command tells it as its own error.
        _handler.addFilter(logging.Filter("datasources.plugins"))
        _handler.setFormatter(_Masked("Warning: %(message)s"))
        root.setLevel(logging.WARNING)
    root.addHandler(_handler)
