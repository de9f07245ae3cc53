"""Settings and rights of a role change neither names nor answers, and errors say what is possible."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from datasources import DataFetchError, LimitExceededError, PolicyError, Workspace
from tests.postgresql.conftest import Admin, Source, active, with_limits
from tests.servers import Database
from tests.waiting import wait_until


async def test_quote_all_identifiers_of_the_role_changes_no_path(
    admin: Admin, pg_database: Database, source: Source, workspace: Workspace
) -> None:
    admin.execute(
        f"ALTER ROLE reader IN DATABASE {pg_database.name} SET quote_all_identifiers = on"
    )
    admin.execute("CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES t)")
    connector = await source()
    assert [item.path for item in await connector.list_items()] == ["public.t"]
    assert [item.path for item in await connector.glob_items("public.*")] == ["public.t"]
    metadata = await connector.get_metadata("t")
    assert metadata["identifier"] == "public.t"
    assert metadata["foreign_keys"][0]["table"] == "public.t"
    assert (await connector.fetch_data("t", workspace)).endswith("/public.t.csv")
    # The caller's own query has the role's setting.
    assert (await connector.preview("SELECT quote_ident('t')")).rows == [('"t"',)]


NOISE = """
CREATE FUNCTION noisy(level text) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 1..30 LOOP
        IF level = 'info' THEN RAISE INFO '%', repeat('x', 100000);
        ELSE RAISE WARNING '%', repeat('x', 100000);
        END IF;
    END LOOP;
    RETURN 1;
END $$
"""


async def test_warnings_of_a_function_are_not_received(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute(NOISE)
    limited = with_limits(workspace, max_bytes=1_000_000)
    await (await source()).fetch_data("SELECT noisy('warning')", limited)


@pytest.mark.soak  # it measures how far libpq reads ahead, which a busy machine disturbs
async def test_messages_that_cannot_be_switched_off_count_as_bytes(
    admin: Admin, source: Source, workspace: Workspace
) -> None:
    admin.execute(NOISE)
    connector = await source()
    limited = with_limits(workspace, max_bytes=1_000_000)
    with pytest.raises(LimitExceededError, match="with the server's messages before it"):
        await connector.fetch_data("SELECT noisy('info')", limited)


CONFLICT = """
CREATE TABLE conflicts (code text);
CREATE FUNCTION conflicting() RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE first_code text := (SELECT code FROM conflicts LIMIT 1);
BEGIN
    IF first_code IS NOT NULL THEN
        PERFORM pg_sleep(0.3);
        RAISE EXCEPTION 'canceling statement due to conflict with recovery' USING ERRCODE = first_code;
    END IF;
    RETURN 1;
END $$
"""


@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_read_that_a_standby_cancels_is_tried_again(
    admin: Admin, source: Source, workspace: Workspace, code: str
) -> None:
    admin.execute(CONFLICT)
    admin.execute("INSERT INTO conflicts VALUES (%s)", [code])
    reading = asyncio.create_task(
        (await source()).fetch_data("SELECT conflicting() AS a", workspace)
    )
    await wait_until(lambda: active(admin, "COPY%conflicting"))
    admin.execute("DELETE FROM conflicts")
    assert Path(await reading).read_text() == "a\n1\n"


async def test_read_that_a_standby_cancels_each_time_names_its_settings(
    admin: Admin, source: Source
) -> None:
    admin.execute(CONFLICT)
    admin.execute("INSERT INTO conflicts VALUES ('40001')")
    with pytest.raises(DataFetchError, match=r"max_standby_streaming_delay.*\[40001\]"):
        await (await source()).preview("SELECT conflicting()")


async def test_superuser_that_becomes_another_role_is_refused(
    admin: Admin, pg_database: Database, source: Source
) -> None:
    login = {"user": pg_database.user, "password": pg_database.password}
    with pytest.raises(PolicyError, match="is a superuser"):
        await source(dsn="options='-c role=reader'", **login)
    connector = await source(dsn="options='-c role=reader'", allow_privileged_role=True, **login)
    assert (await connector.preview("SELECT current_user")).rows == [("reader",)]


async def test_lock_timeout_names_the_table(
    admin: Admin, pg_database: Database, source: Source
) -> None:
    admin.execute(f"ALTER ROLE reader IN DATABASE {pg_database.name} SET lock_timeout = '50ms'")
    admin.execute("CREATE TABLE busy (n int)")
    connector = await source()
    with admin.transaction():
        admin.execute("LOCK TABLE busy")
        with pytest.raises(DataFetchError, match=r"lock timeout; the table is public\.busy"):
            await connector.preview("busy")
