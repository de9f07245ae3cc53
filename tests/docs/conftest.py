"""An environment of a reader's own, in which pages are followed."""

from __future__ import annotations

import os
import site
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.docs.blocks import Shell, environment
from tests.servers import AzuriteServer, Database

_PASSWORD = "correct horse"
_SHOP = """
CREATE TABLE orders (id integer PRIMARY KEY, country text NOT NULL, amount numeric(10, 2));
INSERT INTO orders SELECT n, (ARRAY['FR', 'JP', 'US'])[1 + n % 3], n * 1.5
    FROM generate_series(1, 12) AS n;
GRANT SELECT ON orders TO analyst;
"""
_TOOLS = {
    "datasources": "datasources.cli",
    **{name: name for name in ("mypy", "pip", "pytest")},
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The commands of a new virtual environment, which sees what is installed in this one."""
    folder = tmp_path / "venv"
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    installed = sysconfig.get_path("purelib")
    assert installed in site.getsitepackages()
    (packages / "installed.pth").write_text(f"import site; site.addsitedir({installed!r})\n")
    for name, module in _TOOLS.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {module} "$@"\n')
        script.chmod(0o755)
    (folder / "bin" / "ruff").symlink_to(Path(sysconfig.get_path("scripts"), "ruff"))
    return folder / "bin"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory in which the reader is; so is this process.

    The variables of the process that a page sets are gone afterwards: other tests must not find its
    store.
    """
    home = tmp_path / "home"
    home.mkdir()
    with mock.patch.dict(os.environ):
        monkeypatch.chdir(home)
        monkeypatch.setenv("HOME", str(home))
        yield home


@pytest.fixture
def shell(home: Path, tools: Path) -> Iterator[Shell]:
    """The reader's shell."""
    names = [name for name in os.environ if name.startswith(("SHOP_", "LAKE_"))]
    variables = {name: os.environ[name] for name in names}
    with Shell(home, environment(home, tools) | variables) as shell:
        yield shell


@pytest.fixture
def shop(pg_database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database of a shop, and the variables by which pages speak of it; yields its owner's way in."""
    import psycopg

    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        # Roles belong to the whole server, and a page makes one called `reader` as other tests do.
        others = connection.execute("SELECT FROM pg_roles WHERE rolname = 'reader'").rowcount
        if others:
            connection.execute("ALTER ROLE reader RENAME TO reader_of_other_tests")
        connection.execute(f"CREATE ROLE analyst LOGIN PASSWORD '{_PASSWORD}'")
        connection.execute(_SHOP)
        told = {"HOST": pg_database.host, "PORT": str(pg_database.port), "PASSWORD": _PASSWORD}
        for name, value in {**told, "DATABASE": pg_database.name}.items():
            monkeypatch.setenv(f"SHOP_{name}", value)
        yield pg_database
        for role in ("analyst", "reader"):
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
        if others:
            connection.execute("ALTER ROLE reader_of_other_tests RENAME TO reader")


@pytest.fixture
def blobs(azurite: AzuriteServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A container `lake` with one blob, and the variable by which pages speak of its account."""
    from azure.storage.blob import BlobServiceClient

    monkeypatch.setenv("LAKE_CONNECTION_STRING", azurite.connection_string)
    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        container = client.create_container("lake")
        container.upload_blob(
            "countries.csv", b"country,name\nFR,France\nJP,Japan\nUS,United States\n"
        )
        yield
        container.delete_container()


@pytest.fixture
def api(shop: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server with the sources `lake` and `shop`, which the environment names."""
    from datasources_client import default_client
    from tests.server.conftest import ApiServer

    options = {"host": shop.host, "port": shop.port, "database": shop.name, "user": "analyst"}
    with ApiServer() as server:
        (server.data / "public").mkdir()
        (server.data / "public/orders.csv").write_text("id,total\n1,9.5\n2,20\n3,7\n")
        server.admin.create("lake", path=str(server.data))
        server.admin.create("shop", "postgresql", **options, password=_PASSWORD)
        monkeypatch.setenv("DATASOURCES_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("DATASOURCES_TOKEN", "root")
        yield
        default_client().close()
