"""The list of installed plugins, for `datasources plugins` as nearly everybody types it."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from datasources.cli import output
from datasources.errors import DataSourceError
from datasources.index import PluginEntry, choose, scan

NONE = "No plugin is installed."


def print_plain() -> bool:
    """Print the list where there is no terminal; return False if the command line has to.

    It needs the index alone: the command line would take as long to import as to answer.
    """
    if sys.stdout is None or sys.stderr is None or output.is_terminal(sys.stdout):
        return False
    try:
        entries = choose(scan(), {}, ())
        stream = sys.stdout if entries else sys.stderr
        lines = output.lines(*table(entries)) if entries else [NONE]
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
    except (DataSourceError, OSError, ValueError):
        return False  # wrong settings, or an output that takes no text: told as always
    return True


def table(entries: Iterable[PluginEntry]) -> tuple[list[str], list[list[object]]]:
    """Return columns and rows."""
    columns = ["name", "kind", "distribution", "version", "status"]
    rows: list[list[object]] = [
        [
            entry.name or "?",
            "connector" if entry.is_connector else "plugin",
            entry.distribution or "the host",
            entry.version,
            entry.status,
        ]
        for entry in entries
    ]
    errors = [entry.error for entry in entries]
    if not any(errors):
        return columns, rows
    return [*columns, "error"], [[*row, error] for row, error in zip(rows, errors, strict=True)]
