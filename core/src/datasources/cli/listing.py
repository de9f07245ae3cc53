"""List the installed plugins, for `datasources plugins` without options.

It needs the plugin index alone. Importing click and the rest of the command line would take longer
than the answer, so nothing here imports them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from datasources.cli import output, tables
from datasources.errors import DataSourceError
from datasources.plugins import PluginEntry, resolve_conflicts, scan

NO_PLUGINS = "No plugin is installed."


def print_plain() -> bool:
    """Print the list where stdout is no terminal; return False if the command line has to do it.

    The command line draws the list at a terminal and reports wrong settings and outputs that
    cannot be written.
    """
    if sys.stdout is None or sys.stderr is None or output.is_terminal(sys.stdout):
        return False
    try:
        entries = resolve_conflicts(scan(), {}, ())
        stream = sys.stdout if entries else sys.stderr
        lines = tables.format_table(*plugin_table(entries)) if entries else [NO_PLUGINS]
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
    except (DataSourceError, OSError, ValueError):
        return False
    return True


def plugin_table(entries: Iterable[PluginEntry]) -> tuple[list[str], list[list[object]]]:
    """Return column names and a row for each plugin; errors have a column if there are any."""
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
