"""The table of identifiers, through every way into a source that the library has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from datasources_sqlite.connector import SQLiteConnector

from datasources import (
    Access,
    ConnectError,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceRegistry,
    Grant,
    PolicyError,
    PoolConfig,
    Principal,
    blocking,
)
from datasources.cli.app import cli
from datasources.plugins import Plugins
from datasources_azure_blob import AzureBlobConnector
from datasources_local_file import LocalFileConnector
from datasources_object_store import GCSConnector, HTTPFilesConnector, S3Connector
from datasources_postgresql import PostgreSQLConnector
from tests.core.fakes import AbleConnector
from tests.identifiers_table import TABLE

CLASSES: dict[str, tuple[type[DataSourceConnector], dict[str, Any]]] = {
    "postgresql": (
        PostgreSQLConnector,
        {"host": "h", "database": "d", "user": "u", "password": "open-sesame"},
    ),
    "azure_blob": (
        AzureBlobConnector,
        {
            "container": "blobs",
            "account_url": "https://a.blob.core.windows.net",
            "account_key": "b3Blbi1zZXNhbWU=",
        },
    ),
    "s3": (S3Connector, {"bucket": "data", "access_key_id": "a", "secret_access_key": "b"}),
    "http_files": (HTTPFilesConnector, {"url": "http://127.0.0.1/files"}),
    "gcs": (GCSConnector, {"bucket": "data", "credential": "anonymous"}),
    "local_file": (LocalFileConnector, {"path": "/nowhere"}),
    "sqlite": (SQLiteConnector, {"path": "/nowhere"}),
    "shelf": (AbleConnector, {}),
}
ASKED = "the connector is asked"

Way = Callable[[DataSourceRegistry, Access, str, Path], Awaitable[Any]]


async def by_session(_: DataSourceRegistry, access: Access, item: str, folder: Path) -> Any:
    async with access.workspace("w", root=folder) as session:
        return await session.fetch("s", item)


async def by_path(registry: DataSourceRegistry, access: Access, item: str, folder: Path) -> Any:
    async with access.workspace("w", root=folder) as session:
        return await registry.fetch("s", item, session.path)


async def by_paths(registry: DataSourceRegistry, access: Access, item: str, folder: Path) -> Any:
    async with access.workspace("w", root=folder) as session:
        (result,) = await registry.fetch_many([("s", item)], session.path)
        assert result.error is not None
        raise result.error


async def by_many(_: DataSourceRegistry, access: Access, item: str, folder: Path) -> Any:
    (result,) = await access.fetch_many([("s", item)], folder)
    assert result.error is not None
    raise result.error


WAYS: dict[str, Way] = {
    "fetch": lambda _, access, item, folder: access.fetch("s", item, folder),
    "fetch_many": by_many,
    "get_metadata": lambda _, access, item, __: access.get_metadata("s", item),
    "preview": lambda _, access, item, __: access.preview("s", item),
    "statistics": lambda _, access, item, __: access.statistics("s", item),
    "session": by_session,
    "workspace": by_path,
    "workspaces": by_paths,
}


@pytest.fixture
async def registry(type_: str) -> AsyncIterator[DataSourceRegistry]:
    """A registry whose connector cannot connect, and says that it was asked."""

    async def connect(_self: DataSourceConnector) -> bool:
        raise ConnectError(ASKED)

    base, options = CLASSES[type_]
    pool_config = PoolConfig(connect_attempts=1)
    async with DataSourceRegistry(plugins=Plugins(index=[]), pool_config=pool_config) as registry:
        registry.register_connector_class(type_, type(base.__name__, (base,), {"connect": connect}))
        await registry.register_data_source(DataSourceConfig("s", type_, "S", options))
        yield registry


REASONS = {"allowed": ASKED, "right": "does not have the right", "item": "only items that match"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("type_", CLASSES)
async def test_an_identifier_is_refused_or_reaches_the_connector(
    registry: DataSourceRegistry, type_: str, way: str, tmp_path: Path
) -> None:
    wrong = {}
    for row in TABLE:
        if row.type != type_:
            continue
        access = registry.access(
            Principal("ann", grants=[Grant("s", row.rights, row.items or None)])
        )
        error: type[Exception] = ConnectError if row.becomes == "allowed" else PolicyError
        with pytest.raises((ConnectError, PolicyError)) as caught:
            await WAYS[way](registry, access, row.identifier, tmp_path)
        if caught.type is not error or REASONS[row.becomes] not in str(caught.value):
            wrong[str(row)] = str(caught.value)
    assert wrong == {}


@pytest.mark.parametrize("type_", CLASSES)
async def test_an_administrator_and_a_plain_session_reach_the_connector_with_all(
    registry: DataSourceRegistry, type_: str, tmp_path: Path
) -> None:
    for row in TABLE:
        if row.type == type_:
            with pytest.raises(ConnectError, match=ASKED):
                await registry.access(Principal("root", {"admin"})).preview("s", row.identifier)
            async with registry.workspace("w", root=tmp_path, sources=["s"]) as session:
                with pytest.raises(ConnectError, match=ASKED):
                    await session.fetch("s", row.identifier)


@pytest.mark.parametrize("type_", CLASSES)
def test_the_blocking_registry_refuses_the_same(type_: str, tmp_path: Path) -> None:
    async def connect(_self: DataSourceConnector) -> bool:
        raise ConnectError(ASKED)

    base, options = CLASSES[type_]
    wrong = {}
    pool_config = PoolConfig(connect_attempts=1)
    with blocking.DataSourceRegistry(
        plugins=Plugins(index=[]), pool_config=pool_config
    ) as registry:
        registry.register_connector_class(type_, type(base.__name__, (base,), {"connect": connect}))
        registry.register_data_source(DataSourceConfig("s", type_, "S", options))
        for row in TABLE:
            if row.type != type_:
                continue
            access = registry.access(
                Principal("ann", grants=[Grant("s", row.rights, row.items or None)])
            )
            error: type[Exception] = ConnectError if row.becomes == "allowed" else PolicyError
            for operation in (
                lambda item, access=access: access.preview("s", item),
                lambda item, access=access: access.fetch("s", item, tmp_path),
            ):
                with pytest.raises((ConnectError, PolicyError)) as caught:
                    operation(row.identifier)
                if caught.type is not error or REASONS[row.becomes] not in str(caught.value):
                    wrong[str(row)] = str(caught.value)
    assert wrong == {}


@pytest.mark.parametrize("type_", ["postgresql", "azure_blob", "s3", "local_file"])
def test_the_command_line_reaches_the_connector_with_all(
    type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(_self: DataSourceConnector) -> bool:
        raise ConnectError(ASKED)

    base, options = CLASSES[type_]
    monkeypatch.setattr(base, "connect", connect)
    settings = tmp_path / "s.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    settings.write_text(
        "\n".join(
            [
                "[pool]\nconnect_attempts = 1  # a second one is made after a pause",
                f'[sources.s]\ntype = "{type_}"',
                "[sources.s.options]",
                *lines,
            ]
        )
    )
    wrong = {}
    for row in TABLE:
        if row.type == type_ and row.identifier.strip():
            arguments = ["--config", str(settings), "preview", "s", row.identifier]
            result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
            if result.exit_code != 1 or ASKED not in result.stderr:
                wrong[row.identifier] = result.stderr
    assert wrong == {}


@pytest.mark.parametrize("type_", CLASSES)
@pytest.mark.parametrize("text", ["", "\0", "\ud800", "a" * 100_000, '"' * 10_001, "(" * 10_000])
def test_any_text_is_classified(type_: str, text: str) -> None:
    connector_class = CLASSES[type_][0]
    assert connector_class.identifier_kind(text) in ("item", "query", None)
    assert connector_class.item_path(text) in (None, text)
