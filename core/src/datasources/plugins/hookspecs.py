"""The hooks that a plugin may implement.

The distribution of a connector names a module in the entry-point group `datasources.connectors`,
which is imported when its type is first needed. A plugin that serves the host in other ways names
one in the group `datasources.plugins`, which is imported when a registry is created. In both, the
functions marked with `datasources.hookimpl` and named as below are called.

An implementation may leave out arguments. It is a plain function, not a coroutine function. Several
implementations of one hook are called one after the other, the last registered plugin first, unless
`hookimpl(tryfirst=True)` or `hookimpl(trylast=True)` says otherwise.
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


# The signature says what an implementation returns; a specification itself is never called.
@hookspec
def datasources_connectors() -> Sequence[type[DataSourceConnector]]:  # type: ignore[empty-body]
    """Return the connector classes of this plugin, one for each of its entry points.

    Import the class inside the function, so that the module itself stays light.

    Called once for each entry point, when its type is first needed: in a thread of its
    own for a registry, in the caller's thread for `Plugins.connector_class`. If it raises, the
    plugin is `failed`, and each use of the type raises `PluginLoadError`.
    """


@hookspec(firstresult=True)
def datasources_resolve_secret(scheme: str, name: str) -> str | None:
    """Return the secret that `${scheme:name}` refers to, or None if another plugin has the scheme.

    A plain function, no coroutine function. Called whenever a connection of a source is opened, and
    by `DataSourceConnector.secret`, in a worker thread, several at the same time; it may block,
    while the time limit of connecting runs. The command line calls it in its main thread as well,
    to know which texts to mask. If it raises, the other plugins are asked.
    If none of them has the secret, connecting raises `SecretNotFoundError`, which names the
    reference and this plugin, or what it raised, if that is a `DataSourceError`.
    """


@hookspec(firstresult=True)
def datasources_open_store(url: str) -> Store | None:
    """Return the store at `url`, or None if another plugin has its scheme.

    Called in the thread that creates the registry, or in a thread of its own by
    `DataSourceRegistry.open`. If it raises, the other plugins are asked. If none of them has the
    scheme, creating the registry raises `PluginError`, which names this plugin, or what it raised,
    if that is a `DataSourceError`, such as `StoreError`.
    """


@hookspec
def datasources_source_registered(config: DataSourceConfig) -> None:
    """Observe a source that has been stored, or replaced.

    Called on the event loop that registered it, after the operation has finished, and so must not
    block. What it raises is logged, the first time.

    Args:
        config: The configuration, secrets masked.
    """


@hookspec
def datasources_source_unregistered(source_id: str) -> None:
    """Observe a source that has been removed.

    Called on the event loop that removed it, after the operation has finished, and so must not
    block. What it raises is logged, the first time.
    """


@hookspec
def datasources_operation_started(operation: Operation) -> None:
    """Observe the start of a registry operation.

    Called on the event loop, in the task and context of the operation, and so must not block. For
    the blocking registry, this is the loop in its own thread, in a copy of the caller's context.
    What it raises is logged, the first time; the operation goes on.
    """


@hookspec
def datasources_operation_finished(
    operation: Operation, duration: float, error: BaseException | None, outcome: Outcome
) -> None:
    """Observe the end of a registry operation.

    Called as `datasources_operation_started`; only an iteration that was not read to its end may
    finish in another task and context. What it raises is logged, the first time; the result or
    error of the operation stays as it is.

    Args:
        operation: The object that `datasources_operation_started` was called with.
        duration: Seconds since then.
        error: The exception that ended the operation: `asyncio.CancelledError` if it was
            cancelled, `GeneratorExit` if the reader of `iter_items` stopped; None if there is none.
        outcome: The result in figures: bytes, rows, items, the receipt of a fetch.
    """


@hookspec
def datasources_commands(group: Any) -> None:
    """Add commands to the command line's `click.Group`.

    Called once in a run of the command line, in the main thread, when the help lists the commands,
    or one is used that is not built in. A command of the same name is a ValueError. What the hook
    raises is logged; the other commands work.
    """
