"""The SQL of a right-sized role, run as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from datasources import OptionError, PermissionDeniedError, Workspace
from datasources.templates import extra_template
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.role import ROLE
from tests.postgresql.conftest import Admin, Source, rows_of
from tests.servers import Database


@pytest.fixture
def sized(admin: Admin, pg_database: Database) -> Iterator[str]:
    """A role made by the template, and its name."""
    admin.execute("CREATE TABLE before AS SELECT 1 AS id")
    admin.execute("CREATE SCHEMA other; CREATE TABLE other.hidden AS SELECT 1 AS id")
    names = {"reader": "sized", "sales": f'"{pg_database.name}"'}
    admin.execute(re.sub(r"\b(reader|sales)\b", lambda match: names[match[0]], ROLE))
    yield "sized"
    admin.execute("DROP OWNED BY sized; DROP ROLE sized")


async def test_role_of_the_template_reads_what_it_should(
    admin: Admin, sized: str, source: Source, workspace: Workspace
) -> None:
    admin.execute("CREATE TABLE later AS SELECT 2 AS id")
    reading = await source(user=sized, password="change this")
    assert [item.path for item in await reading.list_items()] == ["public.before", "public.later"]
    assert rows_of(await reading.fetch_data("later", workspace)) == [["id"], ["2"]]
    with pytest.raises(PermissionDeniedError):
        await reading.fetch_data("other.hidden", workspace)


async def test_role_of_the_template_writes_nothing_although_the_source_may(
    admin: Admin, sized: str, source: Source, workspace: Workspace, pg_database: Database
) -> None:
    writing = await source(user=sized, password="change this", read_only=False)
    for statement in (
        "INSERT INTO before VALUES (3) RETURNING id",
        "UPDATE before SET id = 3 RETURNING id",
        "DELETE FROM before RETURNING id",
    ):
        with pytest.raises(PermissionDeniedError, match="42501"):
            await writing.fetch_data(statement, workspace)
    with psycopg.connect(
        host=pg_database.host,
        port=pg_database.port,
        dbname=pg_database.name,
        user=sized,
        password="change this",
        autocommit=True,
    ) as session:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            session.execute("CREATE TEMPORARY TABLE t (id int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT pg_read_file('PG_VERSION')")
        assert session.execute("SHOW statement_timeout").fetchone() == ("5min",)


def test_role_of_the_template_has_no_attribute_and_no_membership(admin: Admin, sized: str) -> None:
    assert admin.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit,"
        " (SELECT count(*) FROM pg_auth_members WHERE member = r.oid)"
        " FROM pg_roles r WHERE rolname = %s",
        [sized],
    ).fetchone() == (False, False, False, False, False, 20, 0)


def test_command_prints_the_template() -> None:
    command = [sys.executable, "-m", "datasources.cli", "template", "postgresql", "--role"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ROLE


def test_template_that_there_is_not_is_an_error_that_says_so() -> None:
    with pytest.raises(OptionError, match=r"'postgresql' has no template 'x'.*it offers: role"):
        extra_template("x", "postgresql", PostgreSQLConnector)
