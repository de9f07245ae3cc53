"""Nothing that the connector asks by itself is compiled on a server with JIT."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources import Workspace
from datasources_postgresql import PostgreSQLConnector
from tests.field.operations import OPERATIONS, QUERY, SMALL_TABLE
from tests.postgresql.conftest import Admin, Source
from tests.servers import Database
from tests.servers.debian import DebianPostgresServer

# The module writes each statement's plan to the server's log, with a section "JIT:" if functions
# were compiled: https://www.postgresql.org/docs/15/auto-explain.html
EXPLAIN_ALL = {
    "session_preload_libraries": "'auto_explain'",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
}


class PlanLog:
    """The plans that the server has logged since `clear`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.clear()

    def clear(self) -> None:
        self._start = self._path.stat().st_size

    def plans(self) -> list[str]:
        """Return every statement with its plan."""
        with self._path.open("rb") as log:
            log.seek(self._start)
            return log.read().decode().split("Query Text: ")[1:]

    def compiled(self) -> list[str]:
        """Return the statements of which functions were compiled, with their plans."""
        return [plan for plan in self.plans() if "JIT:\n" in plan]


@pytest.fixture
def plan_log(admin: Admin, pg_database: Database, field_postgres: DebianPostgresServer) -> PlanLog:
    admin.execute(SMALL_TABLE)
    for name, value in EXPLAIN_ALL.items():
        admin.execute(f"ALTER DATABASE {pg_database.name} SET {name} = {value}")
    return PlanLog(field_postgres.directory / "log")


@pytest.fixture
async def warm(plan_log: PlanLog, source: Source, workspace: Workspace) -> PostgreSQLConnector:
    """A source whose sessions have served a call, and whose plans are logged from here on."""
    connector = await source()
    await connector.preview("orders")
    plan_log.clear()
    return connector


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_on_a_small_table_compiles_nothing(
    warm: PostgreSQLConnector, plan_log: PlanLog, workspace: Workspace, name: str
) -> None:
    await OPERATIONS[name](warm, workspace)
    assert plan_log.plans() != []
    assert plan_log.compiled() == []


@pytest.fixture
async def compiled_fetch(
    admin: Admin, source: Source, plan_log: PlanLog, workspace: Workspace
) -> list[str]:
    """What is compiled for the fetch of a query whose cost is above the threshold."""
    admin.execute("ALTER ROLE reader SET jit_above_cost = 0")
    try:
        connector = await source()
        plan_log.clear()
        await connector.fetch_data(QUERY, workspace)
    finally:
        admin.execute("ALTER ROLE reader RESET jit_above_cost")
    return plan_log.compiled()


async def test_callers_costly_query_is_compiled(compiled_fetch: list[str]) -> None:
    assert [plan for plan in compiled_fetch if plan.startswith("COPY")] != []


async def test_planning_a_callers_costly_query_for_its_locks_compiles_nothing(
    compiled_fetch: list[str],
) -> None:
    assert [plan for plan in compiled_fetch if "EXPLAIN" in plan] == []
