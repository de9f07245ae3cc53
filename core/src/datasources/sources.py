"""From a configuration to a stored record, and from a record to a connector; no connections."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from datasources.connector import DataSourceConnector
from datasources.credentials import CredentialManager, key_of, resolve_references
from datasources.errors import (
    CredentialError,
    DataSourceExistsError,
    DataSourceNotFoundError,
    MissingKeyError,
    OptionError,
    PluginLoadError,
    StoreError,
)
from datasources.models import (
    DataSourceConfig,
    DataSourceType,
    Limits,
    PoolConfig,
    Rotation,
    check_config,
)
from datasources.plugins import IMPORT_TIMEOUT, Plugins
from datasources.policy import Policy
from datasources.redaction import redact
from datasources.stores import Store, StoredSource, open_builtin
from datasources.threads import call_in_daemon_thread

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions

Validated = tuple[DataSourceConfig, type[DataSourceConnector]]


class Sources:
    """Joins store, keys, policy and plugins; what it uses is the registry's."""

    def __init__(
        self, store: Store, credentials: CredentialManager, policy: Policy, plugins: Plugins
    ) -> None:
        self.store = store
        self.credentials = credentials
        self.policy = policy
        self.plugins = plugins
        self._importing: dict[str, Future[type[DataSourceConnector]]] = {}

    def get(self, source_id: str) -> StoredSource:
        """Return a record.

        Raises:
            DataSourceNotFoundError: There is none.
        """
        record = self.store.get(source_id)
        if record is None:
            raise DataSourceNotFoundError(
                f"no source {source_id!r} is registered; list_data_sources shows those that are"
            )
        return record

    async def validate(self, config: DataSourceConfig) -> Validated:
        """Return a configuration that may be stored, with its connector class.

        Raises:
            PluginError: No usable plugin offers the type.
            OptionError: A field of the configuration has a wrong type, or an option is unknown,
                missing or ill-typed.
            PolicyError: A host, directory or reference is not allowed.
        """
        check_config(config)
        cls = await self._connector_class(config.type)
        self.policy.check_references(config.id, config.config)
        if cls.options_class is not None:
            try:
                options = cls.options_class.check(config.config)
            except OptionError as exc:
                raise OptionError(f"source {config.id!r}: {exc}") from None
            if options is not None:
                self._check_places(config.id, options)
        return config, cls

    def keep(self, validated: Sequence[Validated], *, replace: bool) -> None:
        """Encrypt and store all or none.

        Raises:
            DataSourceExistsError: An id is taken, and not to be replaced.
            MissingKeyError: The store outlives the process, but the key would not; or everything
                that stays in it is under other keys.
        """
        if self.store.persistent and self.credentials.generated:
            raise MissingKeyError(
                "the store outlives this process, but its key would not: set "
                "DATASOURCE_ENCRYPTION_KEY or DATASOURCE_ENCRYPTION_KEY_FILE, or give a "
                "CredentialManager with a key"
            )
        self._check_key({config.id for config, _ in validated} if replace else set())
        records = [self._record(config, cls) for config, cls in validated]
        while True:
            versions = self._versions(records) if replace else {}
            add = [record for record in records if record.id not in versions]
            update = [
                dataclasses.replace(record, version=versions[record.id])
                for record in records
                if record.id in versions
            ]
            try:
                return self.store.write(add=add, update=update)
            except (DataSourceExistsError, StoreError):
                # Unless somebody was faster: then theirs is what is to be replaced.
                if not replace or self._versions(records) == versions:
                    raise

    def _versions(self, records: Sequence[StoredSource]) -> dict[str, int]:
        known = (self.store.get(record.id) for record in records)
        return {record.id: record.version for record in known if record is not None}

    def _check_key(self, replaced: Collection[str]) -> None:
        """Refuse a second key: who has the first would never open what is stored under it."""
        used, held = set(), self.credentials.fingerprints
        for record in self.store.list():
            if record.id not in replaced and (name := key_of(record.credentials)):
                if name in held:
                    return
                used.add(name)
        if used:
            raise MissingKeyError(
                f"the stored sources are encrypted with {_listed(used)}, which is not among the "
                f"keys given: {_listed(held)}; to change keys give both, the new one first, and "
                "re-encrypt, as `datasources keys rotate` does"
            )

    def reencrypt(self) -> Rotation:
        """Bring every record under the first key; can be stopped and run again at any point.

        Every record is opened, so that what does not open is named, whichever key it is under.

        Raises:
            StoreError: All is re-encrypted, but old content may still be in the store's files.
        """
        changed, failed = 0, {}
        for record in self.store.list():
            try:
                changed += self._renew(record)
            except (CredentialError, StoreError) as exc:
                failed[record.id] = str(exc)
        self.store.compact()
        return Rotation(changed, failed)

    def _renew(self, record: StoredSource) -> bool:
        options = self._decrypt(record)
        if self.credentials.is_current(record.credentials):
            return False
        renewed = self.credentials.encrypt_credentials(options, source_id=record.id)
        new = dataclasses.replace(record, credentials=renewed)
        if self._decrypt(new) != options:
            raise CredentialError(f"the credentials of source {record.id!r} did not survive")
        try:
            self.store.update(new)
        except StoreError:
            current = self.store.get(record.id)
            if current is not None and current.version == record.version:
                raise
            # Somebody else wrote or removed it meanwhile; theirs is what counts.
            return current is not None and self._renew(current)
        return True

    def _record(self, config: DataSourceConfig, cls: type[DataSourceConnector]) -> StoredSource:
        try:
            metadata = json.loads(json.dumps(config.metadata, allow_nan=False))
        except (TypeError, ValueError):
            reason = f"the metadata of source {config.id!r} must be values that JSON can hold"
            raise OptionError(reason) from None
        options = cls.options_class.redact(config.config) if cls.options_class else None
        return StoredSource(
            id=config.id,
            type=config.type.value,
            name=config.name,
            created_at=config.created_at,
            metadata=metadata,
            limits=dataclasses.asdict(config.limits) if config.limits else None,
            options=options,
            credentials=self.credentials.encrypt_credentials(config.config, source_id=config.id),
        )

    def config(
        self, record: StoredSource, *, decrypt: bool = False, sanitize: bool = True
    ) -> DataSourceConfig:
        """Return a configuration: masked, in clear, or with its options as ciphertext.

        Raises:
            DecryptionError: The record does not open, and must for this.
        """
        if sanitize and record.options is not None:
            options = record.options
        elif decrypt or sanitize:
            options = self._decrypt(record)
            options = redact(options) if sanitize else options
        else:
            options = {"encrypted": record.credentials}
        return _config(record, options)

    def shown(self, record: StoredSource) -> DataSourceConfig:
        """Return a masked configuration; one that does not open has the options `{"error": …}`."""
        try:
            return self.config(record)
        except CredentialError as exc:
            return self.config(dataclasses.replace(record, options={"error": str(exc)}))

    async def build(self, config: DataSourceConfig, pool_config: PoolConfig) -> DataSourceConnector:
        """Return a connector, not yet connected, with references resolved and the policy applied.

        Raises:
            PluginError, OptionError, PolicyError: As `validate`.
            SecretNotFoundError: A reference leads nowhere.
            ConnectError: Networks are restricted and a host does not resolve.
        """
        cls = await self._connector_class(config.type)
        connector = await asyncio.to_thread(self._instantiate, cls, config)
        if connector.options is not None:
            self._check_places(config.id, connector.options)
            await self.policy.check_networks(config.id, connector.options.hosts())
        connector.pool_config = pool_config
        return connector

    async def _connector_class(self, type_name: str) -> type[DataSourceConnector]:
        if loaded := self.plugins.loaded(type_name):
            return loaded
        importing = self._importing.get(type_name)
        if importing is None or importing.done():
            # Importing a driver can take a second, which no event loop has to spare.
            self._importing[type_name] = importing = call_in_daemon_thread(
                "datasources-import", lambda: self.plugins.connector_class(type_name)
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
        self, cls: type[DataSourceConnector], config: DataSourceConfig
    ) -> DataSourceConnector:
        self.policy.check_references(config.id, config.config)
        # Not in a local variable, which tools that report errors would show.
        return cls(
            dataclasses.replace(config, config=resolve_references(config.config, self._resolve))
        )

    def _decrypt(self, record: StoredSource) -> dict[str, Any]:
        return self.credentials.decrypt_credentials(record.credentials, source_id=record.id)

    def _resolve(self, scheme: str, name: str) -> str | None:
        secret: str | None = self.plugins.first(
            "datasources_resolve_secret", scheme=scheme, name=name
        )
        return secret

    def _check_places(self, source_id: str, options: ConnectorOptions) -> None:
        self.policy.check_hosts(source_id, options.hosts())
        self.policy.check_paths(source_id, options.paths())


def _listed(fingerprints: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(fingerprints)))


_NESTED = (dict, list, tuple)
_type_of = lru_cache(maxsize=256)(DataSourceType)


def _config(record: StoredSource, options: dict[str, Any]) -> DataSourceConfig:
    """Return a configuration of copies; not validated again, as a host may list thousands."""
    config = object.__new__(DataSourceConfig)
    config.id = record.id
    config.type = _type_of(record.type)
    config.name = record.name
    config.config = _copy(options)
    config.created_at = record.created_at
    config.metadata = _copy(record.metadata)
    config.limits = Limits(**record.limits) if record.limits else None
    return config


def _copy(value: Any) -> Any:
    """Copy what JSON can hold, ten times as fast as `copy.deepcopy`."""
    if not isinstance(value, dict):
        return [_copy(item) if isinstance(item, _NESTED) else item for item in value]
    copied = value.copy()
    for key, item in value.items():
        if isinstance(item, _NESTED):
            copied[key] = _copy(item)
    return copied


def open_store(url: str | os.PathLike[str], plugins: Plugins) -> Store:
    """Open a store in memory, in a SQLite file, or at a URL that a plugin knows.

    Args:
        url: As `stores.open_builtin` takes it, or a URL of a plugin's scheme.
        plugins: Whose hook `datasources_open_store` is called.

    Raises:
        StoreError: No plugin knows the scheme, or the store cannot be opened.
    """
    store = open_builtin(url)
    if store is None:
        store = plugins.first("datasources_open_store", url=url)
    if store is None:
        scheme = str(url).partition(":")[0]
        raise StoreError(f"no plugin opens a store at {scheme!r}; built in: memory, sqlite")
    return store
