"""Of the role's statement timeout and the option's default, the shorter one holds."""

from __future__ import annotations

import pytest

from datasources import LimitExceededError
from tests.postgresql.conftest import Admin, Source
from tests.servers import Database

TIMEOUT = "SELECT current_setting('statement_timeout')"


@pytest.mark.parametrize(
    ("role", "option", "holds"),
    [
        ("0", None, "5min"),
        ("1s", None, "1s"),
        ("250ms", None, "250ms"),
        ("1min", None, "1min"),
        ("1h", None, "5min"),
        ("2d", None, "5min"),
        ("1s", 20, "20s"),
        ("1h", 20, "20s"),
        ("1s", 300, "5min"),
        ("0", 0.5, "500ms"),
    ],
)
async def test_shorter_timeout_holds_unless_the_option_is_given(
    admin: Admin,
    pg_database: Database,
    source: Source,
    role: str,
    option: float | None,
    holds: str,
) -> None:
    admin.execute(
        f"ALTER ROLE reader IN DATABASE {pg_database.name} SET statement_timeout = '{role}'"
    )
    connector = await source(statement_timeout=option)
    for _ in range(2):  # the second on the same session
        assert (await connector.preview(TIMEOUT)).rows == [(holds,)]


async def test_timeout_of_the_connection_string_holds(
    pg_database: Database, admin: Admin, source: Source
) -> None:
    connector = await source(dsn="options='-c statement_timeout=1500'")
    assert (await connector.preview(TIMEOUT)).rows == [("1500ms",)]


@pytest.mark.parametrize("style", ["postgres", "sql_standard", "iso_8601", "postgres_verbose"])
async def test_timeout_is_read_whatever_the_style_of_intervals(
    admin: Admin, pg_database: Database, source: Source, style: str
) -> None:
    for setting in (f"intervalstyle = '{style}'", "statement_timeout = '90s'"):
        admin.execute(f"ALTER ROLE reader IN DATABASE {pg_database.name} SET {setting}")
    assert (await (await source()).preview(TIMEOUT)).rows == [("90s",)]


async def test_statement_over_the_roles_timeout_exceeds_a_limit(
    admin: Admin, pg_database: Database, source: Source
) -> None:
    admin.execute(
        f"ALTER ROLE reader IN DATABASE {pg_database.name} SET statement_timeout = '500ms'"
    )
    connector = await source(allowed_functions="pg_sleep")
    with pytest.raises(LimitExceededError, match=r"allows 0\.5 seconds"):
        await connector.preview("SELECT pg_sleep(50)")
