"""A stored secret goes to no changed destination, through any way in which a source is changed.

The tests of each connector try every option; here are all ways, with a listener that asks for the
password as a PostgreSQL does. What the ways can leave is a source without its secret.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from datasources import (
    ConnectorError,
    DataSourceConfig,
    DataSourceRegistry,
    OptionError,
    SecretRequiredError,
)
from datasources.cli.app import cli
from datasources.forms import option_fields
from datasources.options import ConnectorOptions
from datasources.transfer import export_sources, import_sources, read_export
from datasources_azure_blob import AzureBlobOptions
from datasources_object_store import GCSOptions, HTTPFilesOptions, S3Options
from datasources_postgresql.options import PostgreSQLOptions
from tests.azure_blob import test_destination as azure
from tests.listeners import Listeners, listening
from tests.postgresql import test_destination as postgresql

PASSWORD = "correct-horse-battery"
KEY = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
SIGNATURE = "Zm9yZ2VkLXNpZ25hdHVyZS9vZi9zb21lb25l"
# AuthenticationCleartextPassword: https://www.postgresql.org/docs/current/protocol-message-formats.html
ASKS_FOR_PASSWORD = b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big")


def dsn(host: str, port: int, **more: object) -> str:
    values = {"host": host, "port": port, "dbname": "d", "user": "u", "sslmode": "disable", **more}
    return " ".join(f"{name}={value}" for name, value in values.items())


@dataclass(frozen=True)
class Case:
    """A source, a change of its destination, and what the listener must never see."""

    type: str
    options: Callable[[Listeners], dict[str, Any]]
    secret: dict[str, str]
    change: Callable[[Listeners], dict[str, Any]]
    sent: bytes
    """A part of what is sent if the secret is used."""


def fields(x: Listeners) -> dict[str, Any]:
    return {"host": x.host, "port": x.port, "database": "d", "user": "u", "sslmode": "disable"}


def account(x: Listeners, *, host: bool = False, port: bool = False) -> dict[str, Any]:
    url = azure.url(x, host=host, port=port)
    return {"account_url": url, "container": "data", "retries": 0}


def bucket(x: Listeners) -> dict[str, Any]:
    url = f"http://{x.host}:{x.port}"
    return {"bucket": "data", "endpoint": url, "access_key_id": "AKIA", "retries": 0}


def postgresql_case(change: Callable[[Listeners], dict[str, Any]], **more: Any) -> Case:
    options = more.get("options", fields)
    return Case("postgresql", options, {"password": PASSWORD}, change, PASSWORD.encode())


def by_dsn(x: Listeners) -> dict[str, Any]:
    return {"dsn": dsn(x.host, x.port)}


CASES = {
    "host": postgresql_case(lambda x: {"host": x.other_host}),
    "port": postgresql_case(lambda x: {"port": x.other_port}),
    "dsn, host": postgresql_case(lambda x: {"dsn": dsn(x.other_host, x.port)}, options=by_dsn),
    "dsn, port": postgresql_case(lambda x: {"dsn": dsn(x.host, x.other_port)}, options=by_dsn),
    "dsn, hostaddr": postgresql_case(
        lambda x: {"dsn": dsn("db", x.port, hostaddr=x.other_host)}, options=by_dsn
    ),
    "dsn, hostaddr beside the host": postgresql_case(
        lambda x: {"dsn": dsn(x.host, x.port, hostaddr=x.other_host)}, options=by_dsn
    ),
    "dsn, quoted": postgresql_case(lambda x: {"dsn": dsn(r"'127\.0.0.2'", x.port)}, options=by_dsn),
    "dsn, URL": postgresql_case(
        lambda x: {"dsn": f"postgresql://u@{x.other_host}:{x.port}/d?sslmode=disable"},
        options=by_dsn,
    ),
    "dsn, URL with the host as a parameter": postgresql_case(
        lambda x: {
            "dsn": f"postgres:///d?user=u&sslmode=disable&host={x.other_host}&port={x.port}"
        },
        options=by_dsn,
    ),
    "dsn, URL that is percent-encoded": postgresql_case(
        lambda x: {"dsn": f"postgresql://u@127%2E0.0.2:{x.port}/d?sslmode=disable"},
        options=by_dsn,
    ),
    "dsn, twice": postgresql_case(
        lambda x: {"dsn": f"{dsn(x.host, x.port)} host={x.other_host}"}, options=by_dsn
    ),
    "key, host": Case(
        "azure_blob",
        account,
        {"account_key": KEY},
        lambda x: account(x, host=True),
        b"SharedKey a:",
    ),
    "key, port": Case(
        "azure_blob",
        account,
        {"account_key": KEY},
        lambda x: account(x, port=True),
        b"SharedKey a:",
    ),
    "SAS, host": Case(
        "azure_blob",
        account,
        {"sas_token": azure.SAS},
        lambda x: account(x, host=True),
        b"sig=",
    ),
    "S3, host": Case(
        "s3",
        bucket,
        {"secret_access_key": KEY},
        lambda x: {"endpoint": f"http://{x.other_host}:{x.port}"},
        b"AWS4-HMAC-SHA256 Credential=AKIA/",
    ),
    "S3, port": Case(
        "s3",
        bucket,
        {"secret_access_key": KEY},
        lambda x: {"endpoint": f"http://{x.host}:{x.other_port}"},
        b"AWS4-HMAC-SHA256 Credential=AKIA/",
    ),
}
NEED_A_CREDENTIAL = ("azure_blob", "s3")


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
async def listeners(case: Case) -> AsyncIterator[Listeners]:
    async with listening(ASKS_FOR_PASSWORD if case.type == "postgresql" else b"") as listeners:
        yield listeners


@pytest.fixture
async def registry(case: Case, listeners: Listeners) -> AsyncIterator[DataSourceRegistry]:
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(
            DataSourceConfig("s", case.type, "S", case.options(listeners) | case.secret)
        )
        yield registry


def changed(config: DataSourceConfig, options: Mapping[str, Any]) -> DataSourceConfig:
    return DataSourceConfig("s", config.type, "S", dict(options))


Way = Callable[[DataSourceRegistry, dict[str, Any]], Awaitable[object]]


def masked(registry: DataSourceRegistry, change: dict[str, Any]) -> DataSourceConfig:
    config = registry.get_config("s")
    return changed(config, config.config | change)


REFUSED: dict[str, tuple[type[Exception], Way]] = {
    "update": (
        SecretRequiredError,
        lambda r, change: r.update_data_source("s", {"config": change}),
    ),
    "update, tested": (
        SecretRequiredError,
        lambda r, change: r.update_data_source("s", {"config": change}, test_connection=True),
    ),
    "update by another": (
        SecretRequiredError,
        lambda r, change: r.update_data_source("s", {"config": change}, by_administrator=False),
    ),
    "check_update": (
        SecretRequiredError,
        lambda r, change: r.check_update("s", {"config": change}),
    ),
    "replace by a masked copy": (
        OptionError,
        lambda r, change: r.register_data_source(masked(r, change), True, replace=True),
    ),
    "check_config of a masked copy": (
        OptionError,
        lambda r, change: r.check_config(masked(r, change)),
    ),
}


@pytest.mark.parametrize("way", REFUSED)
async def test_changed_destination_receives_no_byte(
    case: Case, listeners: Listeners, registry: DataSourceRegistry, way: str
) -> None:
    before = registry.store.get("s")
    error, operation = REFUSED[way]
    change = case.change(listeners)
    with pytest.raises(error) as caught:
        await operation(registry, change)
    assert not any(secret in str(caught.value) for secret in case.secret.values())
    assert registry.store.get("s") == before
    assert listeners.connections == 0


async def replace(registry: DataSourceRegistry, config: DataSourceConfig) -> None:
    await registry.register_data_source(config, replace=True)


async def by_document(registry: DataSourceRegistry, config: DataSourceConfig) -> None:
    document = export_sources(registry, ["s"])
    document["sources"][0]["options"] = config.config
    sources = read_export(json.loads(json.dumps(document)))
    await import_sources(registry, [source.config for source in sources], replace=True)


STORES_WITHOUT = {"replace": replace, "import": by_document}


@pytest.mark.parametrize("way", STORES_WITHOUT)
async def test_source_that_is_replaced_without_its_secret_has_none(
    case: Case, listeners: Listeners, registry: DataSourceRegistry, way: str
) -> None:
    public = {k: v for k, v in registry.get_config("s").config.items() if k not in case.secret}
    config = changed(registry.get_config("s"), public | case.change(listeners))
    if case.type in NEED_A_CREDENTIAL:
        with pytest.raises(OptionError, match="give "):
            await STORES_WITHOUT[way](registry, config)
        with pytest.raises(OptionError, match="give "):
            await registry.check_config(config)
        assert listeners.connections == 0
        return
    await STORES_WITHOUT[way](registry, config)
    assert not (await registry.check_connection("s")).ok
    assert not (await registry.check_config(config)).ok
    assert listeners.connections > 0
    assert case.sent not in listeners.content


async def test_listener_gets_the_secret_that_is_given_again(
    case: Case, listeners: Listeners, registry: DataSourceRegistry
) -> None:
    """The control of the tests above: what they look for is sent where it may be."""
    change = case.change(listeners) | case.secret
    with pytest.raises(ConnectorError):
        await registry.update_data_source("s", {"config": change}, test_connection=True)
    assert case.sent in listeners.content


async def command(*arguments: str, pipe: str | None = None) -> Any:
    """Run a command in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(
        CliRunner().invoke, cli, arguments, input=pipe, catch_exceptions=False
    )


async def test_command_line_sends_no_byte_to_a_changed_destination(
    case: Case, listeners: Listeners, tmp_path: Path
) -> None:
    source = json.dumps(case.options(listeners) | case.secret)
    done = await command("add", case.type, "--id", "s", "--no-test", "--stdin", pipe=source)
    assert done.exit_code == 0, done.stderr
    change = {k: v for k, v in case.change(listeners).items() if k != "retries"}
    for test in ("--test", "--no-test"):
        done = await command("edit", "s", test, "--stdin", pipe=json.dumps(change))
        assert (done.exit_code, "give every secret again" in done.stderr) == (1, True), done.stderr
    assert listeners.connections == 0

    document = json.loads((await command("export", "s")).stdout)
    document["sources"][0]["options"] |= change
    (tmp_path / "s.json").write_text(json.dumps(document))
    done = await command("import", str(tmp_path / "s.json"), "--replace")
    if case.type in NEED_A_CREDENTIAL:
        assert (done.exit_code, listeners.connections) == (1, 0)
    else:
        assert done.exit_code == 0, done.stderr
        assert (await command("test", "s")).exit_code == 1
        assert listeners.connections > 0
        assert case.sent not in listeners.content


# Options that decide neither who receives a secret nor who can read it.
HARMLESS: dict[type[ConnectorOptions], set[str]] = {
    PostgreSQLOptions: {
        "sslcert",
        "sslkey",
        "application_name",
        "connect_timeout",
        "statement_timeout",
        "schemas",
        "search_path",
        "read_only",
        "allow_privileged_role",
        "allowed_functions",
        "denied_functions",
        "guard",
    },
    AzureBlobOptions: {
        "container",
        "prefix",
        "connect_timeout",
        "read_timeout",
        "retries",
        "retry_timeout",
        "concurrency",
        "chunk_size",
        "check_md5",
    },
    S3Options: {
        "bucket",  # but for one in the host name
        "region",
        "addressing",
        "external_id",
        "requester_pays",
        "prefix",
        "connect_timeout",
        "read_timeout",
        "retries",
        "retry_timeout",
        "concurrency",
        "chunk_size",
        "check_md5",
    },
    GCSOptions: {
        "bucket",
        "requester_pays",
        "prefix",
        "connect_timeout",
        "read_timeout",
        "retries",
        "retry_timeout",
        "concurrency",
        "chunk_size",
        "check_md5",
    },
    HTTPFilesOptions: {
        "listing",
        "prefix",
        "connect_timeout",
        "read_timeout",
        "retries",
        "retry_timeout",
        "concurrency",
        "chunk_size",
    },
}
DECIDING: dict[type[ConnectorOptions], set[str]] = {
    PostgreSQLOptions: {name.partition(",")[0] for name in postgresql.CHANGES},
    AzureBlobOptions: {"account_url", "account_name", "credential", "tenant_id", "client_id"},
    HTTPFilesOptions: {"url", "user"},
    GCSOptions: {"endpoint", "credential", "project"},
    S3Options: {
        "endpoint",
        "access_key_id",
        "profile",
        "credential",
        "role_arn",
        "sts_endpoint",
    },
}


@pytest.mark.parametrize("options_class", HARMLESS)
def test_every_option_is_a_secret_or_known_to_decide_the_destination_or_not(
    options_class: type[ConnectorOptions],
) -> None:
    public = {field.name for field in option_fields(options_class) if not field.secret}
    deciding = DECIDING[options_class] & public
    assert public == HARMLESS[options_class] | deciding
    assert not HARMLESS[options_class] & deciding


def test_every_parameter_of_a_connection_string_is_known_to_decide_the_destination_or_not() -> None:
    from datasources_postgresql import options

    secrets = {"password", "sslpassword"}
    deciding = options._DSN_KEYWORDS - options._NO_DESTINATION - secrets
    assert deciding == set(postgresql.PARAMETERS)


@pytest.mark.parametrize(
    "name", ["service", "servicefile", "passfile", "sslkeylogfile", "requirepeer"]
)
async def test_parameter_that_reads_the_disk_of_the_host_is_refused(name: str) -> None:
    async with listening(ASKS_FOR_PASSWORD) as listeners, DataSourceRegistry() as registry:
        options = {"dsn": dsn(listeners.host, listeners.port), "password": PASSWORD}
        await registry.register_data_source(DataSourceConfig("s", "postgresql", "S", options))
        text = f"{dsn(listeners.host, listeners.port)} {name}=other"
        for given in ({}, {"password": PASSWORD}):
            with pytest.raises(OptionError):
                await registry.check_update("s", {"config": {"dsn": text, **given}})
        assert listeners.connections == 0
