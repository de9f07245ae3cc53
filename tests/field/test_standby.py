"""On a hot standby every operation works, and a read that the primary's changes end is an error.

A standby cannot apply some changes while a read needs what they remove. It waits for
`max_standby_streaming_delay`, then cancels the read with SQLSTATE 40001:
https://www.postgresql.org/docs/15/hot-standby.html#HOT-STANDBY-CONFLICT
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from datasources import DataSourceError, Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.field.operations import OPERATIONS, SMALL_TABLE
from tests.postgresql.conftest import Admin, configured, number
from tests.servers import Database
from tests.servers.debian import StandbyServer
from tests.waiting import wait_until

CONFLICTS = {
    "VACUUM": ["DELETE FROM orders WHERE id < 50", "VACUUM orders"],
    "ALTER": ["ALTER TABLE orders ADD COLUMN more int"],
    "TRUNCATE": ["TRUNCATE orders"],
}
# A statement keeps its snapshot while it sleeps, and holds its lock on the table.
SLOW = "SELECT id, pg_sleep(CASE WHEN id = 1 THEN 5 END) FROM orders"


@pytest.fixture
def standby_admin(
    admin: Admin, pg_database: Database, field_standby: StandbyServer
) -> Iterator[Admin]:
    """The superuser's connection to the standby's copy of the test's database, with tables."""
    admin.execute(SMALL_TABLE)
    field_standby.catch_up()
    dsn = field_standby.at(pg_database.name).dsn()
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def standby_reader(
    standby_admin: Admin, pg_database: Database, field_standby: StandbyServer
) -> AsyncIterator[PostgreSQLConnector]:
    database = field_standby.at(pg_database.name)
    connector = configured(database, allowed_functions="pg_sleep")
    await connector.connect()
    yield connector
    await connector.disconnect()


def test_the_server_is_a_standby(standby_admin: Admin) -> None:
    assert standby_admin.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_works_on_a_standby(
    standby_reader: PostgreSQLConnector, workspace: Workspace, name: str
) -> None:
    assert await OPERATIONS[name](standby_reader, workspace)


@pytest.mark.parametrize("fetch", [True, False], ids=["fetch", "preview"])
@pytest.mark.parametrize("change", CONFLICTS)
async def test_read_that_conflicts_with_recovery_is_tried_again_and_works(
    admin: Admin,
    standby_admin: Admin,
    standby_reader: PostgreSQLConnector,
    field_standby: StandbyServer,
    workspace: Workspace,
    change: str,
    fetch: bool,
) -> None:
    reading = asyncio.ensure_future(
        standby_reader.fetch_data(SLOW, workspace) if fetch else standby_reader.preview(SLOW)
    )
    # Not the statement's text, which is that of its preparation too: the snapshot must be taken.
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    await wait_until(lambda: number(standby_admin, asleep))
    for statement in CONFLICTS[change]:
        admin.execute(statement)
    assert await reading
    await asyncio.to_thread(field_standby.catch_up)
    left = {"VACUUM": 51, "ALTER": 100, "TRUNCATE": 0}[change]
    assert (await standby_reader.preview("SELECT count(*) FROM orders")).rows == [(left,)]


async def test_source_that_may_write_is_told_that_a_standby_cannot(
    standby_admin: Admin, pg_database: Database, field_standby: StandbyServer, workspace: Workspace
) -> None:
    connector = configured(field_standby.at(pg_database.name), read_only=False)
    with pytest.raises(DataSourceError, match="during recovery"):
        await connector.connect()


async def test_target_session_attributes_choose_the_standby(
    standby_admin: Admin, pg_database: Database, field_standby: StandbyServer
) -> None:
    hosts = f"{pg_database.host},{field_standby.host}"
    ports = f"{pg_database.port},{field_standby.port}"
    dsn = f"host={hosts} port={ports} target_session_attrs=standby"
    connector = configured(pg_database, host=None, port=None, dsn=dsn)
    await connector.connect()
    try:
        assert (await connector.preview("SELECT pg_is_in_recovery()")).rows == [(True,)]
    finally:
        await connector.disconnect()
