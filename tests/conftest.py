"""Fixtures for all tests: real servers, a database of one's own, an environment of one's own."""

from __future__ import annotations

import ast
import gc
import itertools
import os
import secrets
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import AzuriteServer, Database, PostgresServer, Server, ServerError
from tests.servers.azurite import cache_directory

# Read before any test changes the environment.
SERVER_CACHE = cache_directory()
IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}

AnyServer = TypeVar("AnyServer", bound=Server)

# Hypothesis must not fail a test because the machine is busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

if sys.version_info < (3, 11, 8):
    # A collection that parses, such as by logging an exception, breaks the parsing that it
    # interrupts: https://github.com/python/cpython/issues/106905
    _parse = ast.parse

    @wraps(_parse)
    def _parse_without_collection(*args: Any, **options: Any) -> ast.AST:
        is_enabled = gc.isenabled()
        gc.disable()
        try:
            return _parse(*args, **options)
        finally:
            if is_enabled:
                gc.enable()

    ast.parse = _parse_without_collection  # type: ignore[assignment]  # is overloaded

FOREIGN_PREFIXES = ("DATASOURCE", "XDG_", "PG", "AZURE_", "AZURITE_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def pytest_configure() -> None:
    """Let tests interrupt the processes they start, even where this one ignores interrupts.

    A shell without job control has its background jobs ignore SIGINT, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the seed of the random order, which the header does not show under `-q`."""
    seed = config.getoption("randomly_seed", None)
    if seed is not None:
        terminalreporter.write_line(f"The same order again: --randomly-seed={seed}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is no UTF-8 in a report: processes that share the tests send them as UTF-8."""
    report = yield
    report.sections = [(name, _escaped(text)) for name, text in report.sections]
    if report.failed and _escaped(text := str(report.longrepr)) != text:
        report.longrepr = _escaped(text)
    return report


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session."""
    yield from _served(PostgresServer())


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzuriteServer]:
    """An Azure Blob service for the whole session."""
    yield from _served(AzuriteServer(cache=SERVER_CACHE))


@pytest.fixture
def pg_database(postgres: PostgresServer) -> Iterator[Database]:
    """A new, empty database, reached as superuser; dropped with its connections afterwards."""
    with new_database(postgres) as database:
        yield database


@contextmanager
def new_database(postgres: PostgresServer) -> Iterator[Database]:
    """Make an empty database; drop it with its connections at the end."""
    import psycopg  # tests of the core run without it

    database = postgres.at(f"test_{secrets.token_hex(6)}")
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database.name}"')
    yield database
    postgres.start()  # a test may have left it down
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("homes")
    return (base / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, _homes: Iterator[Path]) -> None:
    """Give each test an empty home and none of the variables that steer the code under test."""
    home = next(_homes)
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES) or name.upper() in PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / f"xdg-{kind.lower()}"))


def _served(server: AnyServer) -> Iterator[AnyServer]:
    """Yield the started server; one that cannot be had fails in CI and skips elsewhere."""
    try:
        server.start()
    except ServerError as exc:
        if IN_CI:
            pytest.fail(str(exc), pytrace=False)
        pytest.skip(str(exc))
    with server:
        yield server
