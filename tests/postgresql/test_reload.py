"""A read that waits while a table is replaced gives the old rows or the new ones, never fewer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from datasources import ItemNotFoundError, Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.postgresql.conftest import Admin, number
from tests.servers import Database
from tests.waiting import wait_until

ROWS = 300

TABLES = f"""
CREATE TABLE plain(id int);
INSERT INTO plain SELECT generate_series(1, {ROWS});
CREATE VIEW plain_view AS SELECT * FROM plain;

CREATE TABLE parted(id int) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (1000);
CREATE TABLE other_part PARTITION OF parted FOR VALUES FROM (1000) TO (2000);
INSERT INTO parted SELECT generate_series(1, {ROWS - 10});
INSERT INTO parted SELECT generate_series(1001, 1010);
CREATE VIEW parted_view AS SELECT * FROM parted;

CREATE TABLE parent(id int);
CREATE TABLE child() INHERITS (parent);
INSERT INTO child SELECT generate_series(1, {ROWS});
CREATE VIEW parent_view AS SELECT * FROM parent;
"""

REPLACE_PLAIN = {
    "truncate": f"TRUNCATE plain; INSERT INTO plain SELECT generate_series(1, {ROWS})",
    "rename swap": f"""CREATE TABLE fresh AS SELECT generate_series(1, {ROWS}) AS id;
        ALTER TABLE plain RENAME TO stale; ALTER TABLE fresh RENAME TO plain""",
    "drop and create": f"""DROP TABLE plain CASCADE;
        CREATE TABLE plain AS SELECT generate_series(1, {ROWS}) AS id;
        CREATE VIEW plain_view AS SELECT * FROM plain""",
    "rewrite": """DROP VIEW plain_view; ALTER TABLE plain ALTER id TYPE bigint;
        CREATE VIEW plain_view AS SELECT * FROM plain""",
}
REPLACE_CHILDREN = {
    "truncate partition": f"TRUNCATE part; INSERT INTO part SELECT generate_series(1, {ROWS - 10})",
    "swap partition": f"""ALTER TABLE parted DETACH PARTITION part; DROP TABLE part;
        CREATE TABLE part AS SELECT generate_series(1, {ROWS - 10}) AS id;
        ALTER TABLE parted ATTACH PARTITION part FOR VALUES FROM (0) TO (1000)""",
    "truncate child": f"TRUNCATE child; INSERT INTO child SELECT generate_series(1, {ROWS})",
    "swap child": f"""DROP TABLE child; CREATE TABLE child() INHERITS (parent);
        INSERT INTO child SELECT generate_series(1, {ROWS})""",
}

CASES = [
    *((name, item) for name in REPLACE_PLAIN for item in ("plain", "plain_view")),
    *(
        (name, item)
        for name in REPLACE_CHILDREN
        for item in (
            ("parted", "parted_view") if "partition" in name else ("parent", "parent_view")
        )
    ),
]

Read = Callable[[PostgreSQLConnector, str, Path], Awaitable[int]]


async def _csv(reader: PostgreSQLConnector, item: str, folder: Path) -> int:
    path = await reader.fetch_data(item, Workspace(folder))
    return len(Path(path).read_text().splitlines()) - 1


async def _parquet(reader: PostgreSQLConnector, item: str, folder: Path) -> int:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = await reader.fetch_data(item, Workspace(folder, file_format="parquet"))
    return int(parquet.read_metadata(path).num_rows)


async def _preview(reader: PostgreSQLConnector, item: str, _folder: Path) -> int:
    return len((await reader.preview(item, 2 * ROWS)).rows)


async def _statistics(reader: PostgreSQLConnector, item: str, _folder: Path) -> int:
    return (await reader.statistics(item))["id"].count


async def _exact_rows(reader: PostgreSQLConnector, item: str, _folder: Path) -> int:
    return int((await reader.get_metadata(item, exact_rows=True))["rows"])


async def _read_table(reader: PostgreSQLConnector, item: str, _folder: Path) -> int:
    return int((await reader.read_table(item)).num_rows)


READS = [_csv, _parquet, _preview, _statistics, _exact_rows, _read_table]


# Every run has each replacement with each read, and each item as such and in a query with two reads.
WAITS = [
    pytest.param(
        *case,
        as_query,
        read,
        id="-".join((*case, ("item", "query")[as_query], read.__name__.strip("_"))),
        marks=[] if (number + as_query + place) % 3 == 0 else pytest.mark.soak,
    )
    for number, case in enumerate(CASES)
    for as_query in (False, True)
    for place, read in enumerate(READS)
]


@pytest.mark.parametrize(("replacement", "item", "query", "read"), WAITS)
async def test_waiting_read_sees_every_row_of_what_replaces_the_table(
    admin: Admin,
    pg_database: Database,
    reader: PostgreSQLConnector,
    tmp_path: Path,
    replacement: str,
    item: str,
    query: bool,
    read: Read,
) -> None:
    admin.execute(TABLES)
    identifier = f"SELECT * FROM {item} WHERE id > 0" if query else item
    with psycopg.connect(pg_database.dsn()) as writer:
        writer.execute((REPLACE_PLAIN | REPLACE_CHILDREN)[replacement])
        reading = asyncio.ensure_future(read(reader, identifier, tmp_path))
        await wait_until(lambda: reading.done() or _waits_for_a_lock(admin))
        assert not reading.done(), "the read did not wait for the table"
        writer.commit()
    assert await reading == ROWS


async def test_table_dropped_while_a_read_waits_is_not_found(
    admin: Admin, pg_database: Database, reader: PostgreSQLConnector
) -> None:
    admin.execute(TABLES)
    with psycopg.connect(pg_database.dsn()) as writer:
        writer.execute("DROP TABLE plain CASCADE")
        reading = asyncio.create_task(reader.preview("plain"))
        await wait_until(lambda: _waits_for_a_lock(admin))
        writer.commit()
    with pytest.raises(ItemNotFoundError, match=r"public\.plain"):
        await reading


async def test_metadata_describe_the_table_that_has_the_name_after_the_wait(
    admin: Admin, pg_database: Database, reader: PostgreSQLConnector
) -> None:
    admin.execute(TABLES)
    with psycopg.connect(pg_database.dsn()) as writer:
        writer.execute("ALTER TABLE plain RENAME TO stale; CREATE TABLE plain(id int, name text)")
        reading = asyncio.create_task(reader.get_metadata("plain"))
        await wait_until(lambda: _waits_for_a_lock(admin))
        writer.commit()
    assert [column["name"] for column in (await reading)["columns"]] == ["id", "name"]


def _waits_for_a_lock(admin: Admin) -> bool:
    return (
        number(
            admin,
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE usename = 'reader' AND wait_event_type = 'Lock'",
        )
        > 0
    )
