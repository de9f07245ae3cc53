"""Find the registry of a source: the one that a program gives, or that of the user's settings."""

from __future__ import annotations

import asyncio
import atexit
import threading
from contextlib import suppress
from functools import cached_property

from datasources import Access, DataSourceRegistry, Plugins, Principal, blocking
from datasources.cli.context import CliContext
from datasources.config import Settings

Operations = DataSourceRegistry | Access

_CLOSE_TIMEOUT = 5.0  # seconds that the end of a program waits for operations under way


class GivenSources:
    """The sources of a registry that the program has made, or what a principal may do with them."""

    def __init__(
        self, registry: Operations | blocking.DataSourceRegistry | blocking.Access
    ) -> None:
        operations = getattr(registry, "wrapped", registry)
        if not isinstance(operations, (DataSourceRegistry, Access)):
            raise TypeError("'registry' must be a DataSourceRegistry, or an Access of one")
        self._operations: Operations = operations

    async def list_ids(self) -> list[str]:
        """Return the ids of all sources."""
        return await _list_ids(self._operations)

    async def operations_of(self, source_id: str) -> Operations:  # noqa: ARG002  (one for all)
        """Return the object that runs the operations of a source."""
        return self._operations


class SettingsSources:
    """The sources that the command line finds: declared in the settings, or stored.

    Settings, store and keys come from the environment, as it is when they are first used. A
    declared source has a registry of its own, in memory; all stored ones share one. They are closed
    at the end of the program. Any thread may call the methods.
    """

    def __init__(self) -> None:
        self._registries: dict[str | None, DataSourceRegistry] = {}  # None: that of the store
        self._opening = threading.Lock()

    async def list_ids(self) -> list[str]:
        """Return the ids of all sources."""
        declared = {config.id for config in self._settings.sources}
        return sorted(declared.union(await _list_ids(await self._registry(None))))

    async def operations_of(self, source_id: str) -> Operations:
        """Return the registry of a source; it has no such source if there is none."""
        is_declared = any(config.id == source_id for config in self._settings.sources)
        return await self._registry(source_id if is_declared else None)

    @cached_property
    def _settings(self) -> Settings:
        return _context().settings

    async def _registry(self, declared_id: str | None) -> DataSourceRegistry:
        if declared_id in self._registries:
            return self._registries[declared_id]
        return await asyncio.to_thread(self._open, declared_id)

    def _open(self, declared_id: str | None) -> DataSourceRegistry:
        """Open a registry unless another thread has done so."""
        with self._opening:
            if declared_id not in self._registries:
                context = _context()
                declared = [c for c in self._settings.sources if c.id == declared_id]
                registry = asyncio.run(
                    context.create_memory_registry(declared)
                    if declared
                    else context.open_registry()
                )
                atexit.register(_close, registry)
                self._registries[declared_id] = registry
            return self._registries[declared_id]


async def has_streams(operations: Operations, source_id: str) -> bool:
    """Return True if a source has files, of which its connector reads ranges."""
    return "stream" in await _access(operations).list_abilities(source_id)


async def _list_ids(operations: Operations) -> list[str]:
    return [config.id for config in await _access(operations).list_sources()]


def _access(operations: Operations) -> Access:
    if isinstance(operations, Access):
        return operations
    return operations.access(Principal("fsspec", roles={"admin"}), concurrency=None)


def _context() -> CliContext:
    context = CliContext.from_options({})
    context.plugins = Plugins()  # those of the command line send what others print to stderr
    return context


def _close(registry: DataSourceRegistry) -> None:
    with suppress(Exception):  # threads cannot be started any more; the process ends anyway
        asyncio.run(registry.close(timeout=_CLOSE_TIMEOUT))
