"""A server process for tests, and clients of it."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from datasources import CredentialManager
from tests.server.client import Client
from tests.servers import Server

ROOT = Path(__file__).parents[2]
ALL = ["read", "query", "write"]
# In seconds: what ends by itself has enough time on a busy machine.
PATIENT = {"job_wait": 20.0, "preview_timeout": 60.0, "test_timeout": 60.0}


class ApiServer(Server):
    """The application of `hosted.py` in a uvicorn process, on a store that outlives it."""

    name = "api"

    def __init__(
        self,
        *,
        store: str | None = None,
        die_at: int | None = None,
        connections: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._store = store
        self._more = {} if die_at is None else {"DIE_AT": str(die_at)}
        self._more["CONNECTIONS"] = json.dumps(connections or {})
        self._settings = settings
        self._shared: ApiServer = self  # whose files the process uses
        self.principals: dict[str, Any] = {
            "root": {"id": "root", "roles": ["admin"]},
        }
        self.key = CredentialManager.generate_key()

    @property
    def data(self) -> Path:
        """The directory that sources may read below."""
        return self.directory / "data"

    @property
    def temporary(self) -> Path:
        """The directory of the server's temporary files."""
        return self.directory / "tmp"

    @property
    def workspaces(self) -> Path:
        """The directory of the workspaces of all workers."""
        return self._shared.directory / "workspaces"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text("utf-8")

    @property
    def admin(self) -> Client:
        return Client(self.port, "root")

    def another_worker(self) -> ApiServer:
        """Return another process, not started yet, on the same store, key and principals."""
        worker = ApiServer(store=self._store or str(self.directory / "sources.db"))
        worker._settings = self._settings
        worker.key = self.key
        worker._shared = self
        return worker

    def client(self, name: str, *grants: Sequence[Any]) -> Client:
        """Return the client of a user with grants, each of a source, rights, and items."""
        self.principals[name] = {"id": name, "grants": grants}
        self.write_principals()
        return Client(self.port, name)

    def write_principals(self) -> None:
        path = self.directory / "principals.json"
        path.with_suffix(".new").write_text(json.dumps(self.principals), "utf-8")
        path.with_suffix(".new").replace(path)

    def _prepare(self) -> None:
        self.data.mkdir()
        self.temporary.mkdir()
        self.write_principals()

    def _command(self) -> Sequence[str | Path]:
        application = ["--factory", "tests.server.hosted:make_app"]
        return [sys.executable, "-m", "uvicorn", *application, "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(ROOT),
            "STORE": self._store or str(self.directory / "sources.db"),
            "TMPDIR": str(self.temporary),
            "ROOTS": str(self._shared.data),
            "PRINCIPALS": str(self._shared.directory / "principals.json"),
            "SETTINGS": json.dumps(
                {"workspace_root": str(self.workspaces), **PATIENT, **self._settings}
            ),
            "DATASOURCE_ENCRYPTION_KEY": self.key,
            **self._more,
        }


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """One server for all tests, which take source ids of their own."""
    with ApiServer() as server:
        yield server


@pytest.fixture
def admin(server: ApiServer) -> Client:
    return server.admin


_numbers = itertools.count(1)


@pytest.fixture
def new_id() -> str:
    """An id that no other test has."""
    return f"source-{next(_numbers)}"


@pytest.fixture
def lake(server: ApiServer, new_id: str) -> str:
    """The id of a source with a few files."""
    folder = server.data / new_id
    (folder / "public").mkdir(parents=True)
    (folder / "public/orders.csv").write_text("id,total\n1,9.5\n2,20\n3,7\n")
    (folder / "private").mkdir()
    (folder / "private/salaries.csv").write_text("name,salary\nann,1\n")
    server.admin.create(new_id, path=str(folder))
    return new_id
