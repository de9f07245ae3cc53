"""The base of all groups of checks: fixtures, waivers, and the two ways to use a source."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datasources import DataItem, DataSourceConnector, DataSourceRegistry, Limits, Workspace
from datasources.plugins import Plugins
from datasources.testing.reporting import (
    report_subjects_once,
    subject_if_needed,
    verified_subject,
)
from datasources.testing.subject import Subject
from datasources.workspace import WrittenFile


class Source:
    """The subject's source, used through a connector."""

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
        """Fetch with the default limits or those given, and verify the file as a registry does."""
        target = Workspace(workspace, limits=limits)
        return target.adopt(await self.connector.fetch_data(identifier, target))


class HostedSource(Source):
    """The subject's source, used as hosts do, through a registry and its pool."""

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
    """Return a registry that has the subject's connector and no plugins."""
    registry = DataSourceRegistry(plugins=Plugins(index=[]), **arguments)
    registry.register_connector_class(subject.type, subject.connector_class)
    return registry


@dataclass(frozen=True)
class Declaration:
    """A connector class, and the type under which it is installed."""

    connector_class: type[DataSourceConnector]
    type: str


class Checks:
    """Base of every group of checks."""

    connector_class: ClassVar[type[DataSourceConnector] | None] = None
    """The class to check, for the checks that need no source; else it is the subject's."""

    waived: ClassVar[Mapping[str, str]] = {}
    """Names of checks that the connector need not pass, and the reasons."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, check in vars(cls).items():
            # Marked, so that the checks also run with an author's pytest-asyncio in strict mode.
            if name.startswith("test_") and inspect.iscoroutinefunction(check):
                pytest.mark.asyncio(check)

    @pytest.fixture(autouse=True, scope="session")
    @staticmethod
    def _reporting(request: pytest.FixtureRequest) -> None:
        # Of the widest scope, so that it comes before the fixtures that a subject is made with.
        report_subjects_once(request.config)

    @pytest.fixture(autouse=True)
    def _waiver(self, request: pytest.FixtureRequest) -> None:
        name = getattr(request.node, "originalname", None) or request.node.name
        if name in self.waived:
            pytest.skip(f"{name} is waived: {self.waived[name]}")
        if "subject" in request.fixturenames:
            verified_subject(request)

    @pytest.fixture
    def declaration(self, request: pytest.FixtureRequest) -> Declaration:
        """The connector class, taken from the subject only if the contract does not name it."""
        if self.connector_class is not None:
            return Declaration(self.connector_class, self.connector_class.type)
        subject = subject_if_needed(request)
        return Declaration(subject.connector_class, subject.type)

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> Path:
        """A directory that does not exist yet; a fetch makes it."""
        return tmp_path / "workspace"

    @pytest_asyncio.fixture
    async def connector(self, subject: Subject) -> AsyncIterator[DataSourceConnector]:
        """A connected instance of the subject's connector."""
        connector = subject.connector()
        await connector.connect()
        yield connector
        await connector.disconnect()

    @pytest_asyncio.fixture(params=[Source, HostedSource], ids=["connector", "registry"])
    async def source(
        self, request: pytest.FixtureRequest, subject: Subject
    ) -> AsyncIterator[Source]:
        """The subject's source, used through a connector and, in a second run, a registry."""
        source: Source = request.param(subject)
        await source.open()
        yield source
        await source.close()
