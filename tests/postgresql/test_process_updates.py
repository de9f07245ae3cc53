"""Processes that update one source of a PostgreSQL store at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process_updates import UPDATES, check_that_processes_lose_no_update
from tests.servers import Database


@pytest.mark.parametrize("updates", UPDATES)
async def test_two_processes_lose_no_update_and_are_told_of_conflicts(
    pg_database: Database, tmp_path: Path, updates: int
) -> None:
    await check_that_processes_lose_no_update(pg_database.dsn(), tmp_path, updates)
