"""The contract, kept by the connector on Debian's PostgreSQL, directly and through PgBouncer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.postgresql import test_contract
from tests.postgresql.test_contract import database
from tests.servers import Database
from tests.servers.pgbouncer import PgBouncerServer

__all__ = ["database"]


class TestDirectly(test_contract.TestContract):
    """The contract on the server itself."""


class TestThroughPgBouncer(test_contract.TestContract):
    """The contract through a pooler that shares two sessions by transaction."""

    @pytest.fixture
    def database(self, database: Database, field_pgbouncer: PgBouncerServer) -> Database:
        return replace(database, port=field_pgbouncer.port)
