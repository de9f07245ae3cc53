"""The guard on every version of PostgreSQL that the connector works with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from datasources import DataSourceError, PolicyError
from tests.conftest import _served
from tests.postgresql.conftest import PASSWORD, Report, configured, readable
from tests.postgresql.guard import (
    conftest as harmful,
    test_families as families,
    test_hostile as hostile,
)
from tests.postgresql.guard.analytical import LANGUAGE, TOOLS
from tests.postgresql.guard.legitimate import AWKWARD, GENERATED
from tests.postgresql.guard.test_fuzz import fuzz, plant
from tests.postgresql.guard.test_holes import REACHING
from tests.postgresql.statements import LEGITIMATE, OWN_FUNCTIONS, SERVER_FUNCTIONS, SETUP
from tests.servers import Database, PostgresServer
from tests.servers.versions import VERSIONS, OlderPostgresServer


@pytest.fixture(scope="module", params=sorted(VERSIONS))
def older(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """PostgreSQL of an older version, with the roles of the tests."""
    for server in _served(OlderPostgresServer(request.param)):
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for role in ("reader", "owner"):
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        yield server


@pytest.fixture(scope="module")
def filled(older: PostgresServer) -> Database:
    """A database with everything that the version knows of the statements' objects."""
    database = older.at("postgres")
    with psycopg.connect(database.dsn(), autocommit=True) as admin:
        readable(admin)
        awkward = AWKWARD.replace("attrs hstore", "attrs text")  # without contrib
        for statement in re.split(r";\n", SETUP + harmful.SETUP + awkward):
            with suppress(psycopg.Error):  # of a newer version
                admin.execute(statement)
    return database


async def test_nothing_harmful_is_reached_and_no_legitimate_statement_refused(
    filled: Database,
) -> None:
    connector = configured(filled)
    await connector.connect()
    for statement in (*SERVER_FUNCTIONS, *OWN_FUNCTIONS, *REACHING):
        text = statement.replace("{pid}", "1").replace("{busy}", "1").replace("{dsn}", "x")
        with pytest.raises(DataSourceError) as caught:
            await connector.preview(text)
        assert "HARM" not in str(caught.value), text
    for statement in (*LEGITIMATE, *GENERATED, *TOOLS, *LANGUAGE):
        try:
            await connector.preview(statement)
        except PolicyError as exc:
            pytest.fail(f"{statement}: {exc}")
        except DataSourceError as exc:
            if not re.search(r"\[(42601|42883|42P01|42704|42703)\]", str(exc)):
                pytest.fail(f"{statement}: {exc}")
    await connector.disconnect()


@pytest.mark.parametrize("role", ["reader", "owner", "postgres"])
async def test_hostile_statement_is_refused(older: PostgresServer, role: str) -> None:
    for planted in hostile.plant(older, "hostile"):
        await hostile.check(planted, role, "server")


async def test_statements_of_the_grammar_reach_nothing_harmful(
    older: PostgresServer, report: Report
) -> None:
    for planted in plant(older, "planted"):
        report(await fuzz(planted, 300, seed=3))


@pytest.mark.parametrize("case", families.CASES)
async def test_support_functions_of_operator_families_are_not_reached(
    older: PostgresServer, case: str
) -> None:
    await families.check(older, case)
