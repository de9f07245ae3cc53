"""Connectors made from configurations: the class from its plugin, the options checked."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from datasources.connector import DataSourceConnector, SupportsDiscover
from datasources.credentials import resolve_references
from datasources.errors import ConnectError, OptionError, PluginLoadError, RegistryError
from datasources.masking import mask_error
from datasources.models import DataSourceConfig, PoolConfig, check_config
from datasources.plugins import IMPORT_TIMEOUT, Plugins
from datasources.policy import Policy
from datasources.registry.records import SourceRecords, ValidatedConfig
from datasources.stores import StoredSource
from datasources.threads import call_in_daemon_thread

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions


class ConnectorFactory:
    """Makes connectors, not yet connected, that the policy admits.

    Safe under threads and event loops.
    """

    def __init__(self, records: SourceRecords, policy: Policy, plugins: Plugins) -> None:
        self._records = records
        self._policy = policy
        self._plugins = plugins
        self._imports: dict[str, Future[type[DataSourceConnector]]] = {}
        self._process = os.getpid()

    async def validate(self, config: DataSourceConfig) -> ValidatedConfig:
        """Return a configuration that may be stored, with its connector class.

        Raises:
            PluginError: No usable plugin offers the type.
            OptionError: An option is unknown, missing or ill-typed.
            PolicyError: A host, directory or reference is not allowed.
        """
        check_config(config)
        connector_class = await self.connector_class(config.type)
        self._policy.check_references(config.id, config.config)
        if connector_class.options_class is not None:
            try:
                options = connector_class.options_class.check(config.config)
            except OptionError as exc:
                raise OptionError(f"source {config.id!r}: {exc}") from None
            if options is not None:
                self._check_places(config.id, options)
        return config, connector_class

    async def create(
        self, config: DataSourceConfig, pool_config: PoolConfig
    ) -> DataSourceConnector:
        """Return a connector for a configuration in clear, with its references resolved now.

        Raises:
            PluginError, OptionError, PolicyError: As `validate`.
            SecretNotFoundError: A reference leads nowhere.
            ConnectError: Networks are restricted and a host does not resolve.
        """
        connector_class = await self.connector_class(config.type)
        connector = await asyncio.to_thread(self._instantiate, connector_class, config)
        if connector.options is not None:
            self._check_places(config.id, connector.options)
            await self._policy.check_networks(config.id, connector.options.hosts())
        connector.pool_config = pool_config
        connector._stored_options = config.config
        connector._secret_resolver = functools.partial(self._resolve_late, config.id)
        return connector

    async def create_from_record(
        self, record: StoredSource, pool_config: PoolConfig
    ) -> DataSourceConnector:
        """Return a connector for a stored source; raises as `create`, and DecryptionError."""
        await self.connector_class(record.type)  # it may have to migrate the options
        config = self._records.config(record, decrypt=True, sanitize=False)
        return await self.create(config, pool_config)

    async def discover(
        self, type_name: str, options: Mapping[str, Any], timeout: float
    ) -> dict[str, list[str]]:
        """Return what a connector finds with options of which some are not given yet.

        Raises:
            RegistryError: The connector cannot.
            PluginError, OptionError, PolicyError, SecretNotFoundError: As `create`.
            ConnectorError: It failed, or took more than `timeout` seconds.
        """
        connector_class = await self.connector_class(type_name)
        options_class = connector_class.options_class
        if options_class is None or not issubclass(connector_class, SupportsDiscover):
            raise RegistryError(f"the connector {type_name!r} cannot say what there is to choose")
        self._policy.check_references(type_name, options)
        values, loaded = await asyncio.to_thread(self._complete, options_class, options)
        self._check_places(type_name, loaded)
        await self._policy.check_networks(type_name, loaded.hosts())
        try:
            async with asyncio.timeout(timeout):
                choices = await connector_class.discover(values)
        except TimeoutError as exc:
            raise ConnectError(f"no answer within {timeout:g} seconds") from exc
        except Exception as exc:
            mask_error(exc, loaded.secret_values())
            raise
        return {name: list(names) for name, names in choices.items()}

    def _complete(
        self, options_class: type[ConnectorOptions], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], ConnectorOptions]:
        """Return options with references resolved and those added that discovery needs."""
        values: dict[str, Any] = resolve_references(options, self._resolve)
        with suppress(OptionError):
            return values, options_class.load(values)
        values = {**options_class.discover_defaults, **values}
        return values, options_class.load(values)

    async def connector_class(self, type_name: str) -> type[DataSourceConnector]:
        """Return the class of a type; import its plugin in a thread if that was not done yet.

        Raises:
            PluginError: No usable plugin offers the type.
        """
        if loaded := self._plugins.loaded(type_name):
            return loaded
        if self._process != os.getpid():  # the threads that import stayed in the parent
            self._imports, self._process = {}, os.getpid()
        importing = self._imports.get(type_name)
        if importing is None or importing.done():
            # Importing a driver can take a second, which no event loop has to spare.
            self._imports[type_name] = importing = call_in_daemon_thread(
                "datasources-import", lambda: self._plugins.connector_class(type_name)
            )
        try:
            async with asyncio.timeout(IMPORT_TIMEOUT):
                # Shielded: others may be waiting for the same.
                return await asyncio.shield(asyncio.wrap_future(importing))
        except TimeoutError as exc:
            raise PluginLoadError(
                f"the plugin of type {str(type_name)!r} was not imported within "
                f"{IMPORT_TIMEOUT:g} seconds"
            ) from exc

    def _instantiate(
        self, connector_class: type[DataSourceConnector], config: DataSourceConfig
    ) -> DataSourceConnector:
        self._policy.check_references(config.id, config.config)
        # Not in a local variable, which tools that report errors would show.
        return connector_class(
            dataclasses.replace(config, config=resolve_references(config.config, self._resolve))
        )

    async def _resolve_late(self, source_id: str, text: str) -> str:
        """Resolve the references in one option of a connector that is in use."""
        self._policy.check_references(source_id, {"": text})
        resolved: str = await asyncio.to_thread(resolve_references, text, self._resolve)
        return resolved

    def _resolve(self, scheme: str, name: str) -> str | None:
        secret: str | None = self._plugins.first(
            "datasources_resolve_secret", scheme=scheme, name=name
        )
        return secret

    def _check_places(self, source_id: str, options: ConnectorOptions) -> None:
        self._policy.check_hosts(source_id, options.hosts())
        self._policy.check_paths(source_id, options.paths())
        self._policy.check_ambient(source_id, options.ambient())
