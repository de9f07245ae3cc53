"""A read that waits while a table is replaced sees every row, directly and through PgBouncer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgresql import test_reload
from tests.postgresql.conftest import Admin, Source
from tests.postgresql.test_reload import Read
from tests.servers import Database
from tests.servers.debian import DebianPostgresServer
from tests.servers.pgbouncer import PgBouncerServer

CASES = [
    ("truncate", "plain"),
    ("rename swap", "plain_view"),
    ("rewrite", "plain"),
    ("swap partition", "parted"),
    ("truncate child", "parent_view"),
]
READS = [test_reload._csv, test_reload._parquet, test_reload._preview, test_reload._statistics]


@pytest.fixture(params=["directly", "through PgBouncer"])
def port(
    request: pytest.FixtureRequest,
    field_postgres: DebianPostgresServer,
    field_pgbouncer: PgBouncerServer,
) -> int:
    return field_postgres.port if request.param == "directly" else field_pgbouncer.port


@pytest.mark.parametrize("read", READS, ids=lambda read: read.__name__.strip("_"))
@pytest.mark.parametrize("query", [False, True], ids=["item", "query"])
@pytest.mark.parametrize(("replacement", "item"), CASES, ids=lambda value: value.replace(" ", "-"))
async def test_waiting_read_sees_every_row_of_what_replaces_the_table(
    admin: Admin,
    pg_database: Database,
    source: Source,
    port: int,
    tmp_path: Path,
    replacement: str,
    item: str,
    query: bool,
    read: Read,
) -> None:
    reader = await source(port=port)
    await test_reload.test_waiting_read_sees_every_row_of_what_replaces_the_table(
        admin, pg_database, reader, tmp_path, replacement, item, query, read
    )


async def test_table_dropped_while_a_read_waits_is_not_found(
    admin: Admin, pg_database: Database, source: Source, port: int
) -> None:
    await test_reload.test_table_dropped_while_a_read_waits_is_not_found(
        admin, pg_database, await source(port=port)
    )
