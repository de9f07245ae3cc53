"""New connections of a source in use log in with the secret of the moment."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from datasources import DataSourceConfig, DataSourceRegistry, DataSourceType
from tests.postgresql.conftest import Admin, number
from tests.servers import Database

TOKENS = 12  # three hours of tokens that are valid for 15 minutes


@pytest.mark.parametrize("option", ["password", "dsn"])
async def test_a_source_outlives_every_token_without_a_refusal(
    admin: Admin, pg_database: Database, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    role = f"late_{option}"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        login = {"host": pg_database.host, "port": pg_database.port, "user": role}
        options = {**login, "database": pg_database.name, "password": "${env:LATE_TOKEN}"}
        if option == "dsn":
            del options["password"]
            options["dsn"] = "postgresql://nobody:${env:LATE_TOKEN}@nowhere.invalid/none"
        refused = 0
        async with DataSourceRegistry() as registry:
            for index in range(TOKENS):
                token = f"token-{index}"
                monkeypatch.setenv("LATE_TOKEN", token)
                admin.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), token)
                )
                if index == 0:
                    config = DataSourceConfig("s", DataSourceType.POSTGRESQL, "S", options)
                    await registry.register_data_source(config)
                else:  # the server ends the sessions of the old token
                    assert number(
                        admin,
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE usename = %s",
                        role,
                    )
                    with pytest.raises(psycopg.OperationalError):
                        psycopg.connect(
                            host=pg_database.host,
                            port=pg_database.port,
                            user=role,
                            password="token-0",
                            dbname=pg_database.name,
                        )
                await registry.list_items("s")
                refused += registry.get_pool_stats("s")["connect_failures"]
            statistics = registry.get_pool_stats("s")
        assert (statistics["connects"], refused) == (1, 0)
    finally:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
