"""Connectors made from configurations: the class from its plugin, the options checked."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from datasources.connector import DataSourceConnector, SupportsDiscover, abilities
from datasources.connector_errors import as_source_error, raise_masked
from datasources.credentials import resolve_references
from datasources.errors import (
    ConnectError,
    DataSourceError,
    OptionError,
    PluginLoadError,
    UnsupportedError,
)
from datasources.models import DataSourceConfig, PoolConfig, check_config
from datasources.nested import leaves
from datasources.plugins import IMPORT_TIMEOUT, Plugins
from datasources.policy import Policy
from datasources.redaction import REFERENCE
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

    async def validate(
        self, config: DataSourceConfig, *, by_administrator: bool = True
    ) -> ValidatedConfig:
        """Return a configuration that may be stored, with its connector class.

        Args:
            config: The configuration.
            by_administrator: False refuses references that are not bound to hosts.

        Raises:
            PluginError: No usable plugin offers the type.
            OptionError: An option is unknown, missing or ill-typed.
            PolicyError: A host, directory or reference is not allowed.
        """
        check_config(config)
        connector_class = await self.connector_class(config.type)
        if config.queries and "parameters" not in abilities(connector_class):
            raise OptionError(
                f"source {config.id!r}: a connector of type {config.type.value!r} cannot have "
                "'queries', as it takes no parameters"
            )
        _check_parameters(config, connector_class)
        if not by_administrator:
            self._policy.check_bound(config.id, config.config)
        self._policy.check_references(config.id, config.config)
        if connector_class.options_class is None:
            self._policy.check_references(config.id, config.config, hosts=())
            return config, connector_class
        try:
            with _class_errors(config):
                options = connector_class.options_class.check(config.config)
        except OptionError as exc:
            message = f"source {config.id!r}: {exc}"
            raise OptionError(message, fields=exc.fields) from None
        if options is not None:
            self._check_places(config, options, resolved=False)
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
        if connector.options is None:
            self._policy.check_references(config.id, config.config, hosts=())
        else:
            hosts = self._check_places(config, connector.options, resolved=True)
            await self._policy.check_networks(config.id, hosts)
        connector.pool_config = pool_config
        connector.check_address = partial(self._policy.check_address, config.id)
        connector._stored_options = config.config
        connector._secret_resolver = partial(self._resolve_late, config.id)
        return connector

    async def create_from_record(
        self, record: StoredSource, pool_config: PoolConfig
    ) -> DataSourceConnector:
        """Return a connector for a stored source; raises as `create`, and DecryptionError."""
        await self.connector_class(record.type)  # it may have to migrate the options
        config = self._records.config(record, decrypt=True, sanitize=False)
        return await self.create(config, pool_config)

    async def discover(
        self,
        type_name: str,
        options: Mapping[str, Any],
        timeout: float,
        *,
        by_administrator: bool,
    ) -> dict[str, list[str]]:
        """Return what a connector finds with options of which some are not given yet.

        Raises:
            UnsupportedError: The connector cannot.
            PluginError, OptionError, PolicyError, SecretNotFoundError: As `validate` and `create`.
            ConnectorError: It failed, or took more than `timeout` seconds.
        """
        connector_class = await self.connector_class(type_name)
        options_class = connector_class.options_class
        if options_class is None or not issubclass(connector_class, SupportsDiscover):
            raise UnsupportedError(
                f"the connector {type_name!r} cannot say what there is to choose"
            )
        if not by_administrator:
            self._policy.check_bound(type_name, options)
        self._policy.check_references(type_name, options)
        config = DataSourceConfig(type_name, type_name, type_name, dict(options))  # for errors
        values: dict[str, Any] = {}
        try:
            with _class_errors(config):
                values, loaded = await asyncio.to_thread(self._complete, options_class, options)
            hosts = self._check_places(config, loaded, resolved=True)
            await self._policy.check_networks(type_name, hosts)
            async with asyncio.timeout(timeout):
                with _class_errors(config, loaded):
                    choices = await connector_class.discover(
                        values, check_address=partial(self._policy.check_address, type_name)
                    )
                    return {name: list(names) for name, names in choices.items()}
        except TimeoutError as exc:
            raise ConnectError(f"no answer within {timeout:g} seconds") from exc
        finally:
            del values  # tools that report errors show the local variables of frames

    def _complete(
        self, options_class: type[ConnectorOptions], options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], ConnectorOptions]:
        """Return options with references resolved and those added that discovery needs."""
        values: dict[str, Any] = resolve_references(options, self._resolve)
        try:
            with suppress(OptionError):
                return values, options_class.load(values)
            values = {**options_class.discover_defaults, **values}
            return values, options_class.load(values)
        finally:
            del values  # as above

    async def class_of(self, source_id: str) -> type[DataSourceConnector]:
        """Return the connector class of a stored source.

        Raises:
            DataSourceNotFoundError: There is no such source.
            PluginError: No usable plugin offers its type.
        """
        return await self.connector_class(self._records.get(source_id).type)

    async def connector_class(self, type_name: str) -> type[DataSourceConnector]:
        """Return the connector class of a type; its plugin is imported in a thread.

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
        resolved = dataclasses.replace(
            config, config=resolve_references(config.config, self._resolve)
        )
        try:
            return connector_class(resolved)
        except DataSourceError:
            raise
        except (Exception, SystemExit) as exc:  # noqa: BLE001  (raised again, masked)
            # No instance says which options are secret, so every text is masked.
            raise_masked(as_source_error(config, exc, _texts_in(resolved)))
        finally:
            del resolved  # tools that report errors show the local variables of frames

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

    def _check_places(
        self, config: DataSourceConfig, options: ConnectorOptions, *, resolved: bool
    ) -> list[str]:
        """Check the hosts and paths of a source, and return the hosts.

        Args:
            config: The source, with its references as they are.
            options: Its options.
            resolved: True if the references in `options` are resolved. Otherwise a host may be a
                reference, and bound references are compared with the hosts when connecting. After
                that no host may look like a reference: a connection string can spell one with
                escapes, which hide it until the connector has taken the string apart.
        """
        with _class_errors(config, options):
            hosts, paths, ambient = list(options.hosts()), list(options.paths()), options.ambient()
        self._policy.check_hosts(config.id, hosts)
        if resolved or not any(REFERENCE.search(host) for host in hosts):
            self._policy.check_references(config.id, config.config, hosts)
        self._policy.check_paths(config.id, paths)
        self._policy.check_ambient(config.id, ambient)
        return hosts


@contextmanager
def _class_errors(
    config: DataSourceConfig, options: ConnectorOptions | None = None
) -> Iterator[None]:
    """Raise what the code of a connector class raises in the block as a `ConnectorError`.

    No connector says which texts are secret, so in errors of drivers all of `config` are masked; in
    every error, those that `options` declare.
    """
    try:
        yield
    except (Exception, SystemExit) as exc:  # a driver that exits must not end the host
        texts = [] if isinstance(exc, DataSourceError) else _texts_in(config)
        error = as_source_error(config, exc, [*texts, *_secret_values(options)])
        del texts  # tools that report errors show the local variables of frames
        if error is exc:
            raise
        raise_masked(error)


def _texts_in(config: DataSourceConfig) -> list[str]:
    return [leaf for leaf in leaves(config.config) if isinstance(leaf, str)]


def _secret_values(options: ConnectorOptions | None) -> list[str]:
    if options is None:
        return []
    try:
        return options.secret_values()
    except (Exception, SystemExit):  # noqa: BLE001  (it may be the method that has failed)
        from datasources.options import ConnectorOptions

        return ConnectorOptions.secret_values(options)


def _check_parameters(config: DataSourceConfig, connector_class: type[DataSourceConnector]) -> None:
    """Raise OptionError if the text of a stored query has other parameters than it declares.

    Checked when a source is stored, not when it is read: a misspelt name is then seen by who wrote it.
    """
    for name, query in config.queries.items():
        with _class_errors(config):
            found = connector_class.query_parameters(query)
        if found is None:
            undeclared, unused = [], query.unused_parameters()
        else:
            undeclared = [key for key in found if key not in query.parameters]
            unused = [key for key in query.parameters if key not in found]
        if undeclared:
            reason = (
                f"has {_as_in_text(undeclared)} without a declaration; its parameters: "
                f"{', '.join(query.parameters) or 'none'}"
            )
        elif unused:
            reason = (
                f"does not use its parameters {', '.join(unused)}; write {_as_in_text(unused)}, or "
                "remove them"
            )
        else:
            continue
        raise OptionError(
            f"source {config.id!r}: the text of query {name!r} {reason}",
            fields={f"/{name}/text": reason},
            part="queries",
        )


def _as_in_text(names: Iterable[str]) -> str:
    return ", ".join(f":{name}" for name in names)
