"""Rights on columns, rows of inheritance children, and names of letters beyond ASCII."""

from __future__ import annotations

import subprocess
import sys

import pytest

from datasources import ItemNotFoundError, PermissionDeniedError, Workspace
from datasources_postgresql.identifiers import TableName, table_name
from tests.postgresql.conftest import PASSWORD, Admin, Source
from tests.servers import Database


@pytest.fixture
def people(admin: Admin) -> None:
    admin.execute('CREATE TABLE people (id int, "Name" text, salary int)')
    admin.execute("REVOKE ALL ON people FROM reader")


async def test_table_of_which_some_columns_may_be_read_names_them(
    people: None, admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute('GRANT SELECT (id, "Name") ON people TO reader')
    connector = await source()
    for read in (
        connector.preview("people"),
        connector.fetch_data("people", workspace),
        connector.statistics("people"),
        connector.get_metadata("people", exact_rows=True),
    ):
        with pytest.raises(PermissionDeniedError) as raised:
            await read
        assert 'SELECT id, "Name" FROM public.people' in str(raised.value)
        assert raised.value.code == "42501"
    assert (await connector.preview('SELECT id, "Name" FROM public.people')).rows == []


async def test_table_is_listed_if_one_of_its_columns_may_be_read(
    people: None, admin: Admin, source: Source
) -> None:
    connector = await source()
    assert "public.people" not in [item.path for item in await connector.list_items()]
    admin.execute("GRANT SELECT (id) ON people TO reader")
    assert "public.people" in [item.path for item in await connector.list_items()]


async def test_metadata_marks_the_columns_that_may_not_be_read(
    people: None, admin: Admin, source: Source
) -> None:
    admin.execute('GRANT SELECT (id, "Name") ON people TO reader')
    columns = (await (await source()).get_metadata("people"))["columns"]
    assert [column.get("readable") for column in columns] == [None, None, False]


async def test_table_of_which_nothing_may_be_read_is_refused_by_the_server(
    people: None, source: Source
) -> None:
    with pytest.raises(PermissionDeniedError, match="permission denied for table people"):
        await (await source()).preview("people")


async def test_rows_of_inheritance_children_are_in_the_estimate(
    admin: Admin, source: Source
) -> None:
    admin.execute(
        "CREATE TABLE parent (n int); CREATE TABLE child () INHERITS (parent);"
        "CREATE TABLE grandchild () INHERITS (child);"
        "INSERT INTO child SELECT generate_series(1, 30);"
        "INSERT INTO grandchild SELECT generate_series(1, 12)"
    )
    connector = await source()
    assert (await connector.get_metadata("parent"))["estimated_rows"] is None
    admin.execute("ANALYZE child, grandchild")
    assert (await connector.get_metadata("parent"))["estimated_rows"] == 42
    estimates = {
        item.name: item.metadata["estimated_rows"] for item in await connector.list_items()
    }
    assert estimates == {"parent": 42, "child": 42, "grandchild": 12}
    admin.execute("INSERT INTO parent VALUES (1)")
    assert (await connector.get_metadata("parent"))["estimated_rows"] is None


@pytest.mark.parametrize("identifier", ["größe", "GRößE", '"größe"', "public.Größe", "  größe "])
async def test_names_beyond_ascii_are_folded_by_the_server(
    admin: Admin, source: Source, identifier: str
) -> None:
    admin.execute('CREATE TABLE "größe" (n int)')
    assert (await (await source()).get_metadata(identifier))["identifier"] == 'public."größe"'


async def test_name_beyond_ascii_that_no_table_has_is_not_found(
    source: Source, admin: Admin
) -> None:
    with pytest.raises(ItemNotFoundError, match="'größe'"):
        await (await source()).preview("GRößE")


def test_name_keeps_its_text() -> None:
    assert table_name('a."B"') == TableName("a", "B")
    name = table_name(" É ")
    assert name is not None
    assert name.text == " É "


def test_nothing_is_printed_where_no_logging_is_set_up(admin: Admin, pg_database: Database) -> None:
    code = f"""
import asyncio
from datasources import DataSourceConfig
from datasources_postgresql import PostgreSQLConnector

async def main():
    options = {{"host": "{pg_database.host}", "port": {pg_database.port}, "database": "{pg_database.name}",
               "user": "reader", "password": "{PASSWORD}"}}
    connector = PostgreSQLConnector(DataSourceConfig("pg", "postgresql", "pg", options))
    await connector.connect()
    async with connector._connections.lease() as connection:
        await connection.close()
    print((await connector.preview("SELECT 1")).rows)
    await connector.disconnect()

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("[(1,)]\n", "")
