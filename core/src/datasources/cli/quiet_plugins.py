"""Plugins whose code cannot write into the results of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasources.cli import output
from datasources.plugins import Plugins

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector
    from datasources.index import PluginEntry


class QuietPlugins(Plugins):
    """Sends to stderr what plugins print when they are imported or a hook of theirs is called."""

    def load_observers(self) -> None:
        with output.stdout_to_stderr():
            super().load_observers()

    def connector_class(self, type_name: str) -> type[DataSourceConnector]:
        with output.stdout_to_stderr():
            return super().connector_class(type_name)

    def check(self) -> list[PluginEntry]:
        with output.stdout_to_stderr():
            return super().check()

    def notify(self, hook_name: str, /, **arguments: object) -> None:
        with output.stdout_to_stderr():
            super().notify(hook_name, **arguments)

    def first(self, hook_name: str, /, **arguments: object) -> Any:
        with output.stdout_to_stderr():
            return super().first(hook_name, **arguments)
