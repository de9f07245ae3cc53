"""The contract, kept by the connector on Debian's PostgreSQL, directly and through PgBouncer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.postgresql import test_contract
from tests.postgresql.test_contract import contract_database
from tests.servers import Database
from tests.servers.pgbouncer import PgBouncerServer

__all__ = ["contract_database"]


class TestDirectly(test_contract.TestContract):
    """The contract on the server itself."""


class TestThroughPgBouncer(test_contract.TestContract):
    """The contract through a pooler that shares two sessions by transaction."""

    is_direct = False

    @pytest.fixture
    def database(self, contract_database: Database, field_pgbouncer: PgBouncerServer) -> Database:
        return replace(contract_database, port=field_pgbouncer.port)
