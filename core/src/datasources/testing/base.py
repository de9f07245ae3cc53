"""What all groups of checks share: fixtures, waivers, and the two ways to a source."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datasources import DataItem, DataSourceConnector, DataSourceRegistry, Limits, Workspace
from datasources.plugins import Plugins
from datasources.testing.subject import Subject
from datasources.workspace import WrittenFile


class Source:
    """A source as a connector gives it."""

    def __init__(self, subject: Subject) -> None:
        self.connector = subject.connector()

    async def open(self) -> None:
        await self.connector.connect()

    async def close(self) -> None:
        await self.connector.disconnect()

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return await self.connector.list_items(path)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        return await self.connector.get_metadata(identifier)

    async def fetch(
        self, identifier: str, workspace: Path, limits: Limits | None = None
    ) -> WrittenFile:
        """Fetch with the default limits or these, and check what came as a registry does."""
        target = Workspace(workspace, limits=limits)
        return target.adopt(await self.connector.fetch_data(identifier, target))


class HostedSource(Source):
    """The same source as hosts get it, through a registry and its pool."""

    def __init__(self, subject: Subject) -> None:
        self.registry = registry_of(subject)
        self._config = subject.config()

    async def open(self) -> None:
        await self.registry.register_data_source(self._config)

    async def close(self) -> None:
        await self.registry.close()

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return await self.registry.list_items(self._config.id, path)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        return await self.registry.get_metadata(self._config.id, identifier, refresh=True)

    async def fetch(
        self, identifier: str, workspace: Path, limits: Limits | None = None
    ) -> WrittenFile:
        receipt = await self.registry.fetch(
            self._config.id, identifier, workspace, limits=limits or Limits()
        )
        facts = (receipt.path, receipt.size, receipt.sha256, receipt.rows)
        return WrittenFile(*facts, receipt.truncated, receipt.version)


def registry_of(subject: Subject, **arguments: Any) -> DataSourceRegistry:
    """Return a registry that sees the subject's connector and no plugin."""
    registry = DataSourceRegistry(plugins=Plugins(index=[]), **arguments)
    registry.register_connector_class(subject.type, subject.connector_class)
    return registry


class Checks:
    """Base of every group of checks."""

    waived: ClassVar[Mapping[str, str]] = {}
    """Checks that the connector need not pass, and why not."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, check in vars(cls).items():
            # So that an author's pytest-asyncio may run in either of its modes.
            if name.startswith("test_") and inspect.iscoroutinefunction(check):
                pytest.mark.asyncio(check)

    @pytest.fixture(autouse=True)
    def _waiver(self, request: pytest.FixtureRequest) -> None:
        name = getattr(request.node, "originalname", None) or request.node.name
        if name in self.waived:
            pytest.skip(f"{name} is waived: {self.waived[name]}")

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> Path:
        """A directory that fetching makes."""
        return tmp_path / "workspace"

    @pytest_asyncio.fixture
    async def connector(self, subject: Subject) -> AsyncIterator[DataSourceConnector]:
        """The subject's connector, connected."""
        connector = subject.connector()
        await connector.connect()
        yield connector
        await connector.disconnect()

    @pytest_asyncio.fixture(params=[Source, HostedSource], ids=["connector", "registry"])
    async def source(
        self, request: pytest.FixtureRequest, subject: Subject
    ) -> AsyncIterator[Source]:
        """The subject's source, as a connector and as a registry give it."""
        source: Source = request.param(subject)
        await source.open()
        yield source
        await source.close()
