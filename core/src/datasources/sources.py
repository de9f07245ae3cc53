"""From a configuration to a stored record, and from a record to a connector; no connections."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from datasources.connector import DataSourceConnector
from datasources.credentials import CredentialManager, resolve_references
from datasources.errors import (
    CredentialError,
    DataSourceNotFoundError,
    MissingKeyError,
    OptionError,
    PluginLoadError,
    StoreError,
)
from datasources.models import DataSourceConfig, DataSourceType, Limits, PoolConfig, Rotation
from datasources.plugins import Plugins
from datasources.policy import Policy
from datasources.redaction import redact
from datasources.stores import MemoryStore, Store, StoredSource

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions

_IMPORT_TIMEOUT = 60.0  # seconds; the slowest driver known takes one or two

T = TypeVar("T")
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
            OptionError: An option is unknown, missing or ill-typed.
            PolicyError: A host, directory or reference is not allowed.
        """
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
        """Encrypt and store all or, without `replace`, none.

        Raises:
            DataSourceExistsError: An id is taken, and not to be replaced.
            MissingKeyError: The store outlives the process, but the key would not.
        """
        if self.store.persistent and self.credentials.generated:
            raise MissingKeyError(
                "the store outlives this process, but its key would not: set "
                "DATASOURCE_ENCRYPTION_KEY or DATASOURCE_ENCRYPTION_KEY_FILE, or give a "
                "CredentialManager with a key"
            )
        added, changed = [], []
        for config, cls in validated:
            record = self._record(config, cls)
            known = self.store.get(record.id) if replace else None
            if known is None:
                added.append(record)
            else:
                changed.append(dataclasses.replace(record, version=known.version))
        self.store.add(*added)
        self.store.update(*changed)

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
        compact = getattr(self.store, "compact", None)
        if compact is not None:
            compact()
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
        return DataSourceConfig(
            id=record.id,
            type=DataSourceType(record.type),
            name=record.name,
            config=dict(options),
            created_at=record.created_at,
            metadata=copy.deepcopy(record.metadata) if record.metadata else {},
            limits=Limits(**record.limits) if record.limits else None,
        )

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
            self._importing[type_name] = importing = _in_own_thread(
                lambda: self.plugins.connector_class(type_name)
            )
        try:
            async with asyncio.timeout(_IMPORT_TIMEOUT):
                # Shielded: others may be waiting for the same.
                return await asyncio.shield(asyncio.wrap_future(importing))
        except TimeoutError as exc:
            raise PluginLoadError(
                f"the plugin of type {str(type_name)!r} was not imported within "
                f"{_IMPORT_TIMEOUT:g} seconds"
            ) from exc

    def _instantiate(
        self, cls: type[DataSourceConnector], config: DataSourceConfig
    ) -> DataSourceConnector:
        self.policy.check_references(config.id, config.config)
        resolved = resolve_references(config.config, self._resolve)
        return cls(dataclasses.replace(config, config=resolved))

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


def _in_own_thread(load: Callable[[], T]) -> Future[T]:
    """Call in a thread that an import which never ends may keep, and the process need not wait for.

    Importing a driver can take a second, which no event loop has to spare.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(load())
        except BaseException as exc:  # noqa: BLE001  (kept whole in the outcome)
            outcome.set_exception(exc)

    threading.Thread(target=run, name="datasources-import", daemon=True).start()
    return outcome


def open_store(url: str, plugins: Plugins) -> Store:
    """Open `memory:`, `sqlite:///relative`, `sqlite:////absolute`, a path, or what a plugin knows.

    Raises:
        StoreError: Nobody knows the scheme, or the store cannot be opened.
    """
    scheme, separator, rest = url.partition(":")
    if url == "memory:":
        return MemoryStore()
    if scheme == "sqlite" or not separator or "/" in scheme:
        from datasources.stores import SQLiteStore

        return SQLiteStore(rest.removeprefix("///") if scheme == "sqlite" else url)
    store: Store | None = plugins.first("datasources_open_store", url=url)
    if store is None:
        raise StoreError(f"no plugin opens a store at {scheme!r}; built in: memory, sqlite")
    return store
