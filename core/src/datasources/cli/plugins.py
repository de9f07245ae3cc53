"""Plugins as the command line uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasources.cli import output
from datasources.cli.suggestions import did_you_mean
from datasources.errors import UnknownConnectorError
from datasources.plugins import Plugins

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector
    from datasources.plugins import PluginEntry


class CliPlugins(Plugins):
    """Sends to stderr what plugins print when they are imported or a hook of theirs is called.

    The error for an unknown type names those that are close.
    """

    def load_observers(self) -> None:
        with output.stdout_to_stderr():
            super().load_observers()

    def connector_class(self, type_name: str) -> type[DataSourceConnector]:
        try:
            with output.stdout_to_stderr():
                return super().connector_class(type_name)
        except UnknownConnectorError as exc:
            question = did_you_mean(type_name, self.types())
            raise UnknownConnectorError(f"{exc}; {question}".rstrip("; ")) from None

    def check(self) -> list[PluginEntry]:
        with output.stdout_to_stderr():
            return super().check()

    def notify(self, hook_name: str, /, **arguments: object) -> None:
        with output.stdout_to_stderr():
            super().notify(hook_name, **arguments)

    def first(self, hook_name: str, /, **arguments: object) -> Any:
        with output.stdout_to_stderr():
            return super().first(hook_name, **arguments)
