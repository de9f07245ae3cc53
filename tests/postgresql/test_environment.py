"""Settings of a session that libpq takes from the host's environment do not reach the server."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from datasources import ConnectError
from datasources_postgresql.store import PostgreSQLStore
from tests.postgresql.conftest import Admin, Source, configured
from tests.servers import Database

SESSION = (
    "SELECT current_setting('TimeZone'), current_setting('DateStyle'), current_setting('geqo'),"
    " '2020-01-01 00:00+00'::timestamptz::text, '1/2/2020'::date::text"
)
VALUES = {
    "PGTZ": ["Asia/Tokyo", "Mars", "", "default"],
    "PGDATESTYLE": ["German", "SQL, DMY", "nonsense"],
    "PGGEQO": ["off", "nonsense"],
}
CASES = [(name, value) for name, values in VALUES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES)
async def test_session_is_the_same_with_a_variable_and_without(
    admin: Admin, source: Source, name: str, value: str
) -> None:
    without = (await (await source()).preview(SESSION)).rows
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(name, value)
        assert (await (await source()).preview(SESSION)).rows == without


async def test_service_that_does_not_exist_is_an_error_that_names_the_variable(
    pg_database: Database,
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PGSERVICE", "nowhere")
        with pytest.raises(ConnectError, match=r'"nowhere" not found.*; PGSERVICE in the env'):
            await configured(pg_database).connect()


async def test_values_of_a_service_are_all_overridden(
    admin: Admin, source: Source, tmp_path: Path
) -> None:
    services = tmp_path / "services"
    services.write_text(
        "[elsewhere]\nhost=203.0.113.1\nport=1\nuser=nobody\ndbname=none\nsslmode=verify-full\n"
        "options=-c statement_timeout=1\nclient_encoding=LATIN1\napplication_name=service\n"
    )
    query = "SELECT current_user::text, current_setting('application_name')"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PGSERVICEFILE", str(services))
        environment.setenv("PGSERVICE", "elsewhere")
        assert (await (await source()).preview(query)).rows == [("reader", "datasources")]


async def test_environment_of_the_host_does_not_change(admin: Admin, source: Source) -> None:
    with pytest.MonkeyPatch.context() as environment:
        for name, values in VALUES.items():
            environment.setenv(name, values[0])
        before = dict(os.environ)
        connectors = await asyncio.gather(*(source() for _ in range(5)))
        await asyncio.gather(*(connector.preview(SESSION) for connector in connectors))
        assert dict(os.environ) == before
        child = (await asyncio.to_thread(subprocess.check_output, ["env"], text=True)).split("\n")
    assert {f"{name}={values[0]}" for name, values in VALUES.items()} <= set(child)


@pytest.mark.parametrize(("name", "value"), [("PGTZ", "Mars"), ("PGGEQO", "nonsense")])
def test_store_opens_whatever_the_variables_hold(
    pg_database: Database, name: str, value: str
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(name, value)
        store = PostgreSQLStore(pg_database.dsn())
        assert store.list() == []
        store.close()
