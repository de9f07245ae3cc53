"""Two hosts that update one source in a store that they share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from datasources import ConflictError, CredentialManager, DataSourceRegistry, SourcePausedError
from tests.core.fakes import registry_of, source
from tests.core.test_updates import (
    NarrowConnector,
    check_that_no_update_is_lost,
    check_that_writers_keep_what_the_other_changes,
)
from tests.servers import Database
from tests.waiting import wait_until

UPDATES = [100, pytest.param(1000, marks=pytest.mark.soak)]
Two = tuple[DataSourceRegistry, DataSourceRegistry]


@pytest.fixture
async def two(pg_database: Database) -> AsyncIterator[Two]:
    """The registries of two hosts."""
    from datasources_postgresql.store import PostgreSQLStore

    key = CredentialManager.generate_key()
    first, second = (
        registry_of(
            NarrowConnector,
            credential_manager=CredentialManager(key),
            store=PostgreSQLStore(pg_database.dsn()),
        )
        for _ in range(2)
    )
    async with first, second:
        yield first, second


@pytest.mark.parametrize("updates", UPDATES)
async def test_no_update_is_lost_where_a_version_is_expected(two: Two, updates: int):
    await check_that_no_update_is_lost(*two, updates)


@pytest.mark.parametrize("updates", UPDATES)
async def test_writers_that_expect_no_version_keep_what_the_other_changes(two: Two, updates: int):
    await check_that_writers_keep_what_the_other_changes(*two, updates)


async def test_version_that_another_host_has_just_written_is_waited_for(two: Two):
    first, second = two
    await first.register_data_source(source(host="h"))
    await wait_until(lambda: second.exists("s"))
    for number in range(20):
        written = await first.update_data_source("s", {"metadata": {"n": number}})
        await second.update_data_source("s", {"name": f"N{number}"}, expected=written.version)
        with pytest.raises(ConflictError):
            await first.update_data_source("s", {"name": "late"}, expected=written.version)
    await wait_until(lambda: first.get_config("s").name == "N19")


async def test_pause_is_seen_by_the_other_host(two: Two):
    first, second = two
    await first.register_data_source(source(host="h"))
    await wait_until(lambda: second.exists("s"))
    assert len(await second.list_items("s")) == 2
    await first.pause("s", "moving")
    await wait_until(lambda: second._pools.source_pool("s").paused == "moving")
    with pytest.raises(SourcePausedError, match="moving"):
        await second.list_items("s")
