"""Networks that the policy denies get no connection, whatever a name resolves to."""

from __future__ import annotations

from typing import Any

import pytest

from datasources import DataSourceConfig, Policy, PolicyError, PoolConfig
from datasources_postgresql import PostgreSQLConnector
from tests.core.fakes import registry_of
from tests.listeners import listening
from tests.resolvers import DENIED, NAME, ChangingResolver
from tests.servers import Database

POLICY = Policy(denied_networks=(f"{DENIED}/32",))


def config(**options: Any) -> DataSourceConfig:
    values = {"database": "x", "user": "u", "password": "p-a-s-s", "sslmode": "disable", **options}
    return DataSourceConfig("s", "memory", "S", values)


@pytest.mark.parametrize("allowed_answers", [1, 0])
async def test_name_that_resolves_to_a_denied_address_meanwhile_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch, allowed_answers: int
) -> None:
    pool = PoolConfig(connect_timeout=30, connect_attempts=1)
    async with (
        listening() as listeners,
        registry_of(PostgreSQLConnector, policy=POLICY, pool_config=pool) as registry,
    ):
        resolver = ChangingResolver(monkeypatch, allowed_answers=allowed_answers)
        await registry.register_data_source(config(host=NAME, port=listeners.port))
        with pytest.raises(PolicyError, match=rf"may not use .*{DENIED}; denied"):
            await registry.list_items("s")
        assert resolver.questions == allowed_answers + 1
        assert listeners.connections == 0


@pytest.mark.parametrize("host", ["/tmp", f"127.0.0.1,{DENIED}", "2130706434", "::ffff:127.0.0.2"])
async def test_denied_address_and_socket_get_no_connection_in_any_spelling(host: str) -> None:
    async with (
        listening() as listeners,
        registry_of(PostgreSQLConnector, policy=POLICY) as registry,
    ):
        await registry.register_data_source(config(host=host, port=listeners.port))
        with pytest.raises(PolicyError, match="may not use"):
            await registry.list_items("s")
        assert listeners.connections == 0


async def test_server_in_an_allowed_network_is_reached(pg_database: Database) -> None:
    options = {
        "host": pg_database.host,
        "port": pg_database.port,
        "user": pg_database.user,
        "database": pg_database.name,
        "password": pg_database.password,
        "allow_privileged_role": True,
    }
    policy = Policy(allowed_networks=("127.0.0.1/32", "::1/128"), denied_networks=(DENIED,))
    async with registry_of(PostgreSQLConnector, policy=policy) as registry:
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        assert await registry.test_connection("s")
