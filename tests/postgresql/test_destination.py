"""A password goes nowhere but where it was given for, whichever option is changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ConnectorError,
    DataSourceConfig,
    DataSourceRegistry,
    Policy,
    PolicyError,
    PoolConfig,
    SecretRequiredError,
)
from datasources.options import destinations
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.options import PostgreSQLOptions
from tests.core.fakes import registry_of
from tests.listeners import Listeners, listening

PASSWORD = "correct-horse-battery"


@pytest.fixture
async def listeners() -> AsyncIterator[Listeners]:
    async with listening() as listeners:
        yield listeners


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    pool = PoolConfig(connect_timeout=30)
    async with registry_of(PostgreSQLConnector, pool_config=pool) as registry:
        yield registry


def options(listeners: Listeners, folder: Path) -> dict[str, Any]:
    """Return options in fields of their own."""
    return {
        "host": listeners.host,
        "port": listeners.port,
        "database": "sales",
        "user": "reader",
        "password": PASSWORD,
        "sslmode": "verify-full",
        "sslrootcert": str(folder / "ca.pem"),
    }


def dsn(listeners: Listeners, **parameters: Any) -> str:
    values = {
        "host": listeners.host,
        "port": listeners.port,
        "dbname": "sales",
        "user": "reader",
        "gssencmode": "disable",
        **parameters,
    }
    return " ".join(f"{name}={value}" for name, value in values.items())


async def refused(
    registry: DataSourceRegistry, listeners: Listeners, change: dict[str, Any]
) -> None:
    """Check that a change is refused without the password, and that nobody hears of it."""
    before = registry.store.get("s")
    for operation in (
        registry.update_data_source("s", {"config": change}),
        registry.update_data_source("s", {"config": change}, test_connection=True),
        registry.check_update("s", {"config": change}),
    ):
        with pytest.raises(SecretRequiredError) as caught:
            await operation
        assert "password" in caught.value.options
        assert PASSWORD not in str(caught.value)
    await asyncio.sleep(0)
    assert listeners.received == 0
    assert registry.store.get("s") == before


CHANGES: dict[str, Any] = {
    "host": "127.0.0.2",
    "host, added": "127.0.0.1,127.0.0.2",
    "host, reference": "${env:PG_HOST}",
    "port": "other",
    "port, reference": "${env:PG_PORT}",
    "sslmode": "disable",
    "sslmode, none": None,
    "sslrootcert": "/elsewhere/ca.pem",
    "sslrootcert, none": None,
    "database": "other",
    "user": "other",
    "dsn": "gssencmode=prefer",
    "dsn, reference": "${env:PG_DSN}",
}


@pytest.mark.parametrize("name", CHANGES)
async def test_changed_destination_receives_no_byte(
    registry: DataSourceRegistry, listeners: Listeners, tmp_path: Path, name: str
):
    (tmp_path / "ca.pem").touch()
    await registry.register_data_source(
        DataSourceConfig("s", "memory", "S", options(listeners, tmp_path))
    )
    value = listeners.other_port if CHANGES[name] == "other" and name == "port" else CHANGES[name]
    await refused(registry, listeners, {name.partition(",")[0]: value})


PARAMETERS: dict[str, Any] = {
    "host": "127.0.0.2",
    "hostaddr": "127.0.0.2",
    "port": "other",
    "dbname": "other",
    "user": "other",
    "sslmode": "disable",
    "sslrootcert": "/elsewhere/ca.pem",
    "sslcrl": "/elsewhere/list.pem",
    "sslsni": 0,
    "sslnegotiation": "direct sslmode=require",
    "ssl_min_protocol_version": "TLSv1",
    "ssl_max_protocol_version": "TLSv1.2",
    "channel_binding": "disable",
    "gssencmode": "prefer",
    "options": "-cproject=other",
    "target_session_attrs": "primary",
    "load_balance_hosts": "random",
}


@pytest.mark.parametrize("name", PARAMETERS)
async def test_destination_changed_in_a_connection_string_receives_no_byte(
    registry: DataSourceRegistry, listeners: Listeners, name: str
):
    await registry.register_data_source(
        DataSourceConfig("s", "memory", "S", {"dsn": dsn(listeners), "password": PASSWORD})
    )
    value = listeners.other_port if name == "port" else PARAMETERS[name]
    await refused(registry, listeners, {"dsn": dsn(listeners, **{name: value})})


@pytest.mark.parametrize("change", ["host", "port"])
async def test_listener_hears_of_a_change_that_gives_the_password_again(
    registry: DataSourceRegistry, listeners: Listeners, tmp_path: Path, change: str
):
    (tmp_path / "ca.pem").touch()
    await registry.register_data_source(
        DataSourceConfig("s", "memory", "S", options(listeners, tmp_path))
    )
    value = listeners.other_host if change == "host" else listeners.other_port
    with pytest.raises(ConnectorError):
        await registry.update_data_source(
            "s", {"config": {change: value, "password": PASSWORD}}, test_connection=True
        )
    assert listeners.received > 0


@pytest.mark.parametrize(
    "change",
    [
        {"application_name": "report"},
        {"connect_timeout": 3},
        {"statement_timeout": 3},
        {"schemas": ["a"]},
        {"read_only": False},
        {"port": 5432},
        {"database": None, "dbname": "sales"},
        {"password": "another-password"},
        {"password": "${env:PASSWORD}"},
        {"dsn": "postgresql://reader:pa55-in-it@db/sales"},
    ],
)
async def test_other_changes_need_no_password(registry: DataSourceRegistry, change: dict[str, Any]):
    values = {"host": "db", "database": "sales", "user": "reader", "password": PASSWORD}
    await registry.register_data_source(DataSourceConfig("s", "memory", "S", values))
    await registry.update_data_source("s", {"config": change})


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://reader:pa55-of-it@db/sales",
        "postgresql://reader:${env:P}@db/sales",
        "postgresql://reader:pa55-of-it@${env:H}/sales",
        "${env:DSN}",
    ],
)
def test_destination_holds_no_secret_and_is_the_same_for_the_same_options(text: str):
    values = {"dsn": text, "password": PASSWORD}
    one, two, other = destinations(
        PostgreSQLOptions, values, dict(values), {**values, "dsn": f"{text}x"}
    )
    assert one == two
    assert one != other
    assert "pa55-of-it" not in str(one)
    assert PASSWORD not in str(one)


async def test_bound_reference_is_sent_to_no_host_beside_one_that_is_spelled_like_a_reference(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SALES_PASSWORD", PASSWORD)
    policy = Policy(allowed_references={"env:SALES_*": ("*.sales.internal",)})
    text = (
        rf"host='{listeners.host},$\{{env:A}}' port={listeners.port} user=u dbname=d "
        "sslmode=disable password=${env:SALES_PASSWORD}"
    )
    async with registry_of(PostgreSQLConnector, policy=policy) as registry:
        await registry.register_data_source(
            DataSourceConfig("s", "memory", "S", {"dsn": text}), by_administrator=False
        )
        with pytest.raises(PolicyError, match=r"which is for the hosts \*.sales.internal only"):
            await registry.list_items("s")
    assert listeners.connections == 0
