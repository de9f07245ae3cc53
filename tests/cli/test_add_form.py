"""What `add` shows of a connector's form: choices that it can list, and deprecated options."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import SECRET
from tests.core.plugin_fixtures import Site

SHELF = r"""
from pydantic import SecretStr
from datasources import ConnectError, ConnectorOptions, DataSourceConnector, Option, hookimpl

class ShelfOptions(ConnectorOptions):
    alternatives = (("dsn",), ("host", "shelf"))
    requires = {("credentials", "keys"): ("key_id", "key")}
    discover_defaults = {"shelf": "any"}

    dsn: SecretStr | None = Option(None, help="All at once.")
    shelf: str | None = Option(None, help="Which shelf.", discovered=True)
    host: str | None = Option(None, help="Where it is.")
    password: SecretStr | None = Option(None, help="Lets you in.")
    credentials: str = Option("none", help="How to log in.")
    key_id: str | None = Option(None, help="The name of the key.")
    key: SecretStr | None = Option(None, help="The key.")
    server: str | None = Option(None, help="Old.", deprecated="use 'host'")

class Shelf(DataSourceConnector):
    type = "shelf"
    api_version = 1
    options_class = ShelfOptions

    @classmethod
    async def discover(cls, options, *, check_address):
        if "password" not in options:
            raise ConnectError("a password is needed")
        return {"shelf": [f"shelf-{n}" for n in range(60)]}

    async def connect(self): return True
    async def disconnect(self): pass
    async def test_connection(self): return True
    async def list_items(self, path=None): return []
    async def fetch_data(self, identifier, workspace): raise NotImplementedError
    async def get_metadata(self, identifier): return {}

@hookimpl
def datasources_connectors():
    return [Shelf]
"""


@pytest.fixture
def shelf(site: Site) -> Site:
    site.connector("shelf-one", "shelf", SHELF)
    return site


def test_choices_are_shown_once_the_login_is_known(ok, shelf: Site) -> None:
    done = ok("add", "shelf", answers=["", "", "2", "h", SECRET, "shelf-7", ""])
    assert "There are: shelf-0, shelf-1, " in done.err
    assert "shelf-49 and 10 more\n" in done.err
    assert "server" not in done.err
    assert SECRET not in done.err
    assert ok("show", "shelf", "--json").json["options"] == {
        "host": "h",
        "password": "***REDACTED***",
        "shelf": "shelf-7",
    }


def test_without_choices_the_option_is_asked_for_all_the_same(ok, shelf: Site) -> None:
    done = ok("add", "shelf", answers=["", "", "2", "h", "", "mine", ""])
    assert "What there is cannot be listed: a password is needed." in done.err
    assert ok("show", "shelf", "--json").json["options"] == {"host": "h", "shelf": "mine"}


@pytest.mark.filterwarnings("ignore:option 'server' is deprecated:DeprecationWarning")
def test_a_deprecated_option_is_told(ok, shelf: Site) -> None:
    done = ok("add", "shelf", "-o", "host=h", "-o", "shelf=a", "-o", "server=s")
    assert "Warning: option 'server' is deprecated: use 'host'.\n" in done.err
    done = ok("edit", "shelf", "-o", "shelf=b")
    assert "Warning: option 'server' is deprecated: use 'host'.\n" in done.err


def test_a_filled_in_template_that_cannot_work_is_not_stored(
    ok, fails, shelf: Site, tmp_path: Path
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(ok("template", "shelf").out)
    ok("add", "--from", str(file), "--no-test")
    lines = ['credentials = "keys"', 'key = "${env:SHELF_KEY}"']
    file.write_text(file.read_text().replace("my_shelf", "other") + "\n".join(lines))
    error = fails("add", "--from", str(file), "--no-test")
    assert "option 'key_id' is missing, which goes with 'credentials' of 'keys'" in error
    assert [source["id"] for source in ok("list", "--json").json] == ["my_shelf"]
