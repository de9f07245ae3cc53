"""No harmful function is reached by the newer corpus of hostile statements, in any mode, by any role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from datasources import DataSourceError, PoolConfig
from tests.postgresql.conftest import Admin, configured, readable
from tests.postgresql.guard import hostile
from tests.servers import Database, PostgresServer


@dataclass(frozen=True)
class Hostile:
    """The database, a superuser's session, and the file that harmful functions write."""

    database: Database
    admin: Admin
    file: Path

    def is_harmful(self, statement: str) -> bool:
        """Return True if a statement that nobody checks reaches something harmful."""
        self.admin.execute("SET search_path = z, public; SET ROLE reader")
        with suppress(psycopg.Error):
            text = f"TABLE {statement}" if statement.isidentifier() else statement
            self.admin.execute(text.encode())
        self.admin.execute("RESET ROLE")
        harmful = self.file.stat().st_size > 0
        self.file.write_text("")
        return harmful


def plant(server: PostgresServer, name: str, more: str = hostile.OPERATORS) -> Iterator[Hostile]:
    """Yield a new database of a server with every harmful object that its version knows."""
    file = Path(f"/tmp/datasources-{name}-{server.port}")
    file.touch()
    file.chmod(0o666)
    database = server.at(name)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute(hostile.SETUP.replace("{file}", str(file)))
            admin.execute(more)
            file.write_text("")
            yield Hostile(database, admin, file)
    finally:
        file.unlink()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def planted(pg_roles: PostgresServer) -> Iterator[Hostile]:
    yield from plant(pg_roles, "hostile")


@pytest.fixture(scope="module")
def without_operators(pg_roles: PostgresServer) -> Iterator[Hostile]:
    yield from plant(pg_roles, "hostile_names", more="")


async def check(planted: Hostile, role: str, mode: str) -> None:
    """Preview all statements as a role, and assert that none is admitted that reaches harm."""
    options: dict[str, object] = {"user": role, "guard": mode, "search_path": "z, public"}
    if role == planted.database.user:
        options |= {"password": planted.database.password, "allow_privileged_role": True}
    if role == "owner":
        planted.admin.execute(
            "ALTER FUNCTION z.harm() SECURITY DEFINER; ALTER SCHEMA z OWNER TO owner"
        )
    connector = configured(planted.database, **options)
    connector.pool_config = PoolConfig(max_size=1)
    await connector.connect()
    admitted = []
    is_superuser = role == planted.database.user
    for statement in (*hostile.STATEMENTS, *hostile.XML, *hostile.SERVER):
        with suppress(DataSourceError):
            await connector.preview(statement)
            if not (is_superuser and statement in hostile.POLICIES):
                admitted.append(statement)
        if planted.file.stat().st_size:
            planted.file.write_text("")
            admitted.append(f"HARM: {statement}")
    await connector.disconnect()
    assert admitted == []


@pytest.mark.parametrize("role", ["reader", "owner", "postgres"])
async def test_hostile_statement_is_refused(planted: Hostile, role: str) -> None:
    await check(planted, role, "server")


@pytest.mark.parametrize("mode", ["names-first", "names"])
async def test_hostile_statement_is_refused_by_names(without_operators: Hostile, mode: str) -> None:
    await check(without_operators, "reader", mode)


def test_each_statement_is_harmful_where_nobody_checks_it(planted: Hostile) -> None:
    assert [s for s in hostile.STATEMENTS if not planted.is_harmful(s)] == []
