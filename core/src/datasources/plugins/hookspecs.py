"""The hooks a plugin may implement.

A connector's distribution names a module in the entry-point group `datasources.connectors`; it
is imported when its type is asked for.  A plugin that serves the host in other ways names one in
the group `datasources.plugins`; it is imported when a registry is created.  In either, functions
marked with `datasources.hookimpl` and named as below are called; arguments may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector
    from datasources.models import DataSourceConfig, Operation, Outcome
    from datasources.stores import Store

PROJECT = "datasources"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of that name."""


@hookspec
def datasources_connectors() -> Sequence[type[DataSourceConnector]]:  # type: ignore[empty-body]  # pluggy calls the implementations
    """Return the connector classes of this plugin, one for each of its entry points.

    Import the class inside the function, so that the module itself stays light.
    """


@hookspec(firstresult=True)
def datasources_resolve_secret(scheme: str, name: str) -> str | None:
    """Return the secret that `${scheme:name}` refers to, or None if the scheme is not yours.

    Called in a worker thread when a source connects.
    """


@hookspec(firstresult=True)
def datasources_open_store(url: str) -> Store | None:
    """Return the store at `url`, or None if its scheme is not yours."""


@hookspec
def datasources_source_registered(config: DataSourceConfig) -> None:
    """Observe a source that has been stored; `config` is sanitised."""


@hookspec
def datasources_source_unregistered(source_id: str) -> None:
    """Observe a source that has been removed."""


@hookspec
def datasources_operation_started(operation: Operation) -> None:
    """Observe the start of a registry operation."""


@hookspec
def datasources_operation_finished(
    operation: Operation, duration: float, error: BaseException | None, outcome: Outcome
) -> None:
    """Observe the end of a registry operation.

    Args:
        operation: The one that `datasources_operation_started` saw.
        duration: Seconds since then.
        error: What it raised, `asyncio.CancelledError` included, and `GeneratorExit` where the
            reader of `iter_items` had enough; None if it went well.
        outcome: What came of it: bytes, rows, items, a fetch's receipt.
    """


@hookspec
def datasources_commands(group: Any) -> None:
    """Add commands to the command line's `click.Group`."""
