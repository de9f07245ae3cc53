"""`datasources serve` with a store, a token and data of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.core.plugin_fixtures import Site
from tests.server.client import Client
from tests.servers import Server

# The connector of the type `many`, which has as many items as its option says.
_MANY = """
from datasources import ConnectorOptions, DataItem, Page, hookimpl
from tests.core.fakes import SeedConnector


class ManyOptions(ConnectorOptions):
    count: int


class ManyConnector(SeedConnector):
    type = "many"
    options_class = ManyOptions

    async def list_page(self, path=None, *, cursor=None, limit):
        first, count = int(cursor or 0), self.options.count
        end = min(first + limit, count)
        names = (f"item-{number:07}.txt" for number in range(first, end))
        return Page([DataItem(name, name) for name in names], str(end) if end < count else None)


@hookimpl
def datasources_connectors():
    return [ManyConnector]
"""


class ConsoleServer(Server):
    """The command, which may use the loopback network and the directory `data`.

    It has a connector of its own, of the type `many`.
    """

    name = "console"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def data(self) -> Path:
        """The directory that sources may read below."""
        return self.directory / "data"

    @property
    def token(self) -> str:
        """The token of the administrator."""
        return (self.directory / "home/datasources/admin-token").read_text("utf-8").strip()

    @property
    def admin(self) -> Client:
        return Client(self.port, self.token)

    def add_token(self, name: str, *grants: Mapping[str, object]) -> str:
        """Make a token of a user and return it."""
        answer = self.admin("POST", "/tokens", {"name": name, "grants": list(grants)})
        assert answer.status == 201, answer.body
        token: str = answer.json["token"]
        return token

    def _prepare(self) -> None:
        self.data.mkdir()
        site = Site(self.directory / "site")
        site.path.mkdir()
        site.connector("many", "many", _MANY)

    def _command(self) -> Sequence[str | Path]:
        command = [sys.executable, "-m", "datasources.cli", "serve", "--port", str(self.port)]
        return [*command, "--allow-network", "127.0.0.0/8", "--allow-root", str(self.data)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "XDG_DATA_HOME": str(self.directory / "home"),
            "PYTHONPATH": f"{self.directory / 'site'}:{Path(__file__).parents[2]}",
        }
