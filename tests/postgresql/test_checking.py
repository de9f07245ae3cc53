"""A check of a source that connects but cannot read says why."""

from __future__ import annotations

import pytest

from datasources import DataSourceRegistry, PermissionDeniedError
from tests.postgresql.conftest import Admin, configured, sessions
from tests.servers import Database
from tests.waiting import wait_until

NEEDED = "pg_catalog.set_config(text, text, boolean)"


async def test_check_of_a_source_that_cannot_read_keeps_the_reason(
    admin: Admin, pg_database: Database
) -> None:
    admin.execute(f"REVOKE EXECUTE ON FUNCTION {NEEDED} FROM PUBLIC")
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(configured(pg_database).config)
        check = await registry.check_connection("pg")
    assert not check.ok
    assert isinstance(check.error, PermissionDeniedError)
    assert "permission denied for function set_config [42501]" in str(check.error)


async def test_connector_that_cannot_read_leaves_no_session(
    admin: Admin, pg_database: Database
) -> None:
    admin.execute(f"REVOKE EXECUTE ON FUNCTION {NEEDED} FROM PUBLIC")
    connector = configured(pg_database)
    with pytest.raises(PermissionDeniedError):
        await connector.connect()
    assert not await connector.test_connection()
    await wait_until(lambda: sessions(admin) == 0)
