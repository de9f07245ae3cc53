"""Pages of the list of tables, which the server begins after the last one."""

from __future__ import annotations

import pytest

from datasources import ItemNotFoundError, OptionError
from tests.postgresql.conftest import Admin, Source

NAMES = ["a", "B", "a.b", "_", "ä", "z\u00fc", 'q"', "a b", "Z", "10"]


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_pages_are_the_listing_in_its_order(admin: Admin, source: Source, limit: int) -> None:
    for schema in ("one", '"Two"', '"über"'):
        admin.execute(f"CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO reader")
        for name in NAMES:
            quoted = '"' + name.replace('"', '""') + '"'
            admin.execute(f"CREATE TABLE {schema}.{quoted} ()")
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
    for options, path in (({}, None), ({"schemas": "one, Two"}, None), ({}, '"Two"')):
        connector = await source(**options)
        paths: list[str] = []
        cursor = None
        while True:
            page = await connector.list_page(path, cursor=cursor, limit=limit)
            assert len(page.items) <= limit
            paths += [item.path for item in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert paths == [item.path for item in await connector.list_items(path)]
        assert paths


async def test_a_page_of_a_missing_schema_is_item_not_found(admin: Admin, source: Source) -> None:
    connector = await source(schemas="public")
    for path in ("missing", "pg_catalog", "/", "a.b"):
        with pytest.raises(ItemNotFoundError):
            await connector.list_page(path, limit=1)
    assert await connector.list_page("public", limit=1) == ([], None)


@pytest.mark.parametrize("cursor", ["", "x", "[]", "[1, 2]", '["a"]', '{"a": 1, "b": 2}', "null"])
async def test_a_cursor_of_nothing_is_an_option_error(
    admin: Admin, source: Source, cursor: str
) -> None:
    connector = await source()
    with pytest.raises(OptionError):
        await connector.list_page(cursor=cursor, limit=1)
