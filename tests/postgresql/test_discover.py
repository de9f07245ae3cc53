"""Databases and schemas that can be chosen before a source exists."""

from __future__ import annotations

from typing import Any

import pytest

from datasources import AuthenticationError, DataSourceRegistry, OptionError
from tests.postgresql.conftest import PASSWORD, Admin
from tests.servers import Database


def options_of(server: Database, /, **more: Any) -> dict[str, Any]:
    login = {"host": server.host, "port": server.port, "user": "reader"}
    return {**login, "password": PASSWORD, **more}


async def test_databases_and_schemas_are_found(admin: Admin, pg_database: Database) -> None:
    admin.execute("CREATE SCHEMA visible")
    admin.execute("GRANT USAGE ON SCHEMA visible TO reader")
    admin.execute("CREATE SCHEMA hidden")
    registry = DataSourceRegistry()
    found = await registry.discover("postgresql", options_of(pg_database))
    assert pg_database.name in found["database"]
    assert "template1" not in found["database"]
    assert "schemas" not in found
    found = await registry.discover(
        "postgresql", options_of(pg_database, database=pg_database.name)
    )
    assert found["schemas"] == ["public", "visible"]


async def test_a_wrong_login_is_an_error(admin: Admin, pg_database: Database) -> None:
    registry = DataSourceRegistry()
    with pytest.raises(AuthenticationError) as caught:
        await registry.discover("postgresql", options_of(pg_database, password="wrong-pw"))
    assert "wrong-pw" not in str(caught.value)
    with pytest.raises(OptionError, match="option 'host' is missing"):
        await registry.discover("postgresql", {"user": "reader"})
