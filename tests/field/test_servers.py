"""The servers that are installed from Debian's packages: nothing of them stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.field.conftest import ROLES
from tests.servers import PostgresServer, Server
from tests.servers.debian import GERMAN, DebianPostgresServer, StandbyServer, require
from tests.servers.pgbouncer import PgBouncerServer
from tests.servers.process import ServerError
from tests.test_servers import (
    test_killed_server_leaves_no_process_and_comes_back_on_its_port,
    test_starting_a_running_server_and_stopping_a_stopped_one_change_nothing,
    test_stopped_server_leaves_no_process_no_listener_and_no_file,
)

__all__ = [
    "test_killed_server_leaves_no_process_and_comes_back_on_its_port",
    "test_starting_a_running_server_and_stopping_a_stopped_one_change_nothing",
    "test_stopped_server_leaves_no_process_no_listener_and_no_file",
]


@pytest.fixture(params=["german", "standby", "pgbouncer"])
def own_server(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[Server]:
    """A server of the test's own."""
    server: Server = {
        "german": lambda: DebianPostgresServer(GERMAN),
        "standby": lambda: StandbyServer(postgres),
        "pgbouncer": lambda: PgBouncerServer(postgres, ROLES),
    }[request.param]()
    yield server
    server.stop()


def test_server_is_as_debian_delivers_it(field_postgres: DebianPostgresServer) -> None:
    with psycopg.connect(field_postgres.dsn()) as connection:
        row = connection.execute(
            "SELECT version(), current_setting('jit'), pg_jit_available(),"
            " current_setting('jit_above_cost')"
        ).fetchone()
    assert row is not None
    version, *jit = row
    assert "(Debian 15." in version
    assert jit == ["on", True, "100000"]


def test_missing_file_is_an_error_that_names_its_package_and_the_install_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "postgres"
    monkeypatch.setattr("tests.servers.debian.NEEDED", {missing: "postgresql-15"})
    with pytest.raises(ServerError, match=r"postgresql-15 is missing.*tests\.servers\.debian"):
        require(missing)
