"""Connectors of small sources in memory, for tests of the core."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from datasources import (
    ColumnStatistics,
    ConnectError,
    ConnectorOptions,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceRegistry,
    ItemNotFoundError,
    MemoryStore,
    StoredSource,
    Workspace,
    blocking,
)
from datasources.plugins import Plugins


class SeedConnector(DataSourceConnector):
    """Six methods and nothing else: it writes its file itself."""

    async def connect(self) -> bool:
        self._connection = {"a.csv": b"x,y\n1,2\n", "b.csv": b"x\n"}
        return True

    async def disconnect(self) -> None:
        if self._connection:
            self._connection = None

    async def test_connection(self) -> bool:
        return self._connection is not None

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return [DataItem(name, name, len(data)) for name, data in self._connection.items()]

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        if identifier not in self._connection:
            raise ItemNotFoundError(f"no item {identifier!r}")
        os.makedirs(workspace, exist_ok=True)
        local_path = os.path.join(workspace, identifier)
        with open(local_path, "wb") as file:  # noqa: ASYNC230  (as an author in a hurry writes it)
            file.write(self._connection[identifier])
        return local_path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        if identifier not in self._connection:
            raise ItemNotFoundError(f"no item {identifier!r}")
        return {"columns": ["x", "y"]}


class MemoryOptions(ConnectorOptions):
    host: str = Field(default="localhost", description="Where.")
    port: int = Field(default=1, description="Which.")
    password: SecretStr | None = Field(default=None, description="What nobody may see.")

    def hosts(self) -> list[str]:
        return [self.host]


class MemoryConnector(SeedConnector):
    """Declares options and abilities; counts what is done to its class."""

    type = "memory"
    options_class = MemoryOptions
    options: MemoryOptions
    live: ClassVar[int] = 0
    connects: ClassVar[int] = 0
    described: ClassVar[int] = 0
    passwords: ClassVar[list[str]] = []

    def __init_subclass__(cls) -> None:
        cls.live = cls.connects = cls.described = 0
        cls.passwords = []

    async def connect(self) -> bool:
        if self._connection is None:
            await asyncio.sleep(0)
            if self.options.host == "unreachable":
                raise ConnectError("nobody listens at 'unreachable'")
            await super().connect()
            type(self).live += 1
            type(self).connects += 1
            if self.options.password:
                self.passwords.append(self.options.password.get_secret_value())
        return True

    async def disconnect(self) -> None:
        type(self).live -= self._connection is not None
        await super().disconnect()

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        type(self).described += 1
        return await super().get_metadata(identifier)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        if identifier == "slow":
            await asyncio.sleep(60)
        if identifier not in self._connection:
            raise ItemNotFoundError(f"no item {identifier!r}")
        with Workspace.of(workspace).create(identifier) as file:
            file.write(self._connection[identifier])
            await asyncio.sleep(0)
        return file.path


class AbleConnector(MemoryConnector):
    """Has the optional abilities of a registry's methods."""

    shareable = True

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        for item in await self.list_items(path):
            yield item

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        return {"x": ColumnStatistics(count=1, nulls=0, min=1, max=1, mean=1.0)}

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        return DataItem(blob_name or local_path, local_path, metadata={"overwrite": overwrite})


class CountingStore(MemoryStore):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def get(self, source_id: str) -> StoredSource | None:
        self.asked += 1
        return super().get(source_id)

    def list(self) -> list[StoredSource]:
        self.asked += 1
        return super().list()


def source(source_id: str = "s", type_name: str = "memory", **options: Any) -> DataSourceConfig:
    return DataSourceConfig(source_id, type_name, source_id.title(), options)


def stored(source_id: str = "a", credentials: str = "ciphertext", **values: Any) -> StoredSource:
    """Return a record as a store holds it."""
    fields = {"metadata": {"n": [1, None, "ü"]}, "limits": None, "options": None} | values
    return StoredSource(
        source_id, "custom", source_id.upper(), 12.5, credentials=credentials, **fields
    )


def registry_of(connector_class: type[DataSourceConnector], **arguments: Any) -> DataSourceRegistry:
    """Return a registry that serves the type `memory` with a class and sees no plugin."""
    registry = DataSourceRegistry(plugins=Plugins(index=[]), **arguments)
    registry.register_connector_class("memory", connector_class)
    return registry


def blocking_registry_of(
    connector_class: type[DataSourceConnector],
) -> blocking.DataSourceRegistry:
    """Return the same for code without an event loop."""
    registry = blocking.DataSourceRegistry(plugins=Plugins(index=[]))
    registry.register_connector_class("memory", connector_class)
    return registry


def fresh(base: type[MemoryConnector] = MemoryConnector) -> type[MemoryConnector]:
    """Return a class with counts of its own."""
    return type(base.__name__, (base,), {"__module__": __name__})
