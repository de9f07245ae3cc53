"""Sources in the store: saved encrypted, loaded masked or in clear, re-encrypted."""

from __future__ import annotations

import dataclasses
import itertools
import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from datasources.connector import DataSourceConnector
from datasources.credentials import CredentialManager, key_of
from datasources.errors import (
    ConflictError,
    CredentialError,
    DataSourceExistsError,
    DataSourceNotFoundError,
    MissingKeyError,
    OptionError,
    PluginError,
    RegistryError,
    SourcePausedError,
    StoreError,
)
from datasources.models import DataSourceConfig, DataSourceType, Limits, Rotation
from datasources.plugins import Plugins
from datasources.redaction import redact
from datasources.registry.filtering import SourceFilter
from datasources.stored_queries import StoredQuery
from datasources.stores import Store, StoredSource


def not_found(source_id: str) -> DataSourceNotFoundError:
    """Return the error for a source that does not exist, or that is hidden from the caller."""
    return DataSourceNotFoundError(
        f"no source {source_id!r} is registered; list_data_sources shows those that are"
    )


ValidatedConfig = tuple[DataSourceConfig, type[DataSourceConnector]]
"""A configuration that may be stored, and its connector class, which knows its secrets."""


class SourceRecords:
    """The records of a store, under the keys of a credential manager.

    With `plugins`, options of older versions are migrated when they are read in clear.

    Its methods may be called from any thread; those that read or write many records take as long
    as the store does, so coroutines call them in a thread.
    """

    def __init__(
        self, store: Store, credentials: CredentialManager, plugins: Plugins | None = None
    ) -> None:
        self._store = store
        self.credentials = credentials
        self._plugins = plugins
        self._closed = False

    @property
    def store(self) -> Store:
        """The store of the records.

        Raises:
            RegistryError: `close` was called; some stores, such as `MemoryStore`, would go on.
        """
        self.check_open()
        return self._store

    def check_open(self) -> None:
        """Raise RegistryError once `close` was called."""
        if self._closed:
            raise RegistryError("this registry is closed")

    def close(self) -> None:
        """Refuse everything from now on; the store stays open."""
        self._closed = True

    def get(self, source_id: str) -> StoredSource:
        """Return a record.

        Raises:
            DataSourceNotFoundError: There is none.
        """
        record = self.store.get(source_id)
        if record is None:
            raise not_found(source_id)
        return record

    def list(self, chosen: SourceFilter, ids: Iterable[str] | None = None) -> list[StoredSource]:
        """Return records by id.

        Args:
            chosen: Which of them.
            ids: Of the records that may be returned, of which no others are read; None is for all.
        """
        if ids is None:
            stored = self.store.list()
            after = chosen.after
            start = 0 if after is None else bisect_right(stored, after, key=attrgetter("id"))
            return chosen.of(itertools.islice(stored, start, None))
        # The store may hold many more records than these.
        following = sorted({i for i in ids if chosen.after is None or i > chosen.after})
        size = chosen.limit or len(following) or 1
        batches = (following[start : start + size] for start in range(0, len(following), size))
        return chosen.of(record for batch in batches for record in self.store.get_many(batch))

    def check_not_paused(self, source_id: str) -> None:
        """Check that a source may be used.

        Raises:
            DataSourceNotFoundError: There is none.
            SourcePausedError: It is paused.
        """
        if (reason := self.get(source_id).paused) is not None:
            raise paused_error(source_id, reason)

    def save(
        self, configs: Sequence[ValidatedConfig], *, replace: bool, expected: int | None = None
    ) -> None:
        """Encrypt and store sources, all or none.

        Raises:
            DataSourceExistsError: An id is taken, and not to be replaced.
            ConflictError: A source to replace is not of the version `expected`, or there is none.
            MissingKeyError: The store outlives the process, but the key would not; or everything
                that stays in it is under other keys.
        """
        if self.store.persistent and self.credentials.generated:
            raise MissingKeyError(
                "the store outlives this process, but its key would not: set "
                "DATASOURCE_ENCRYPTION_KEY or DATASOURCE_ENCRYPTION_KEY_FILE, or give a "
                "CredentialManager with a key"
            )
        self._check_key({config.id for config, _ in configs} if replace else set())
        records = [self._record(config, connector_class) for config, connector_class in configs]
        while True:
            stored = self._stored(records) if replace else {}
            if expected is not None:
                for record in records:
                    _check_version(record.id, stored.get(record.id), expected)
            add = [record for record in records if record.id not in stored]
            update = [
                _in_place_of(stored[record.id], record) for record in records if record.id in stored
            ]
            try:
                return self.store.write(add=add, update=update)
            except (DataSourceExistsError, StoreError):
                # Unless somebody was faster: then theirs is what is to be replaced.
                if not replace or self._stored(records) == stored:
                    raise

    def replace(self, record: StoredSource, config: ValidatedConfig) -> StoredSource:
        """Encrypt a source and store it in place of a record; return what the store has then.

        Raises:
            StoreError: The stored record is not that one any more, or the store cannot be written.
        """
        new = _in_place_of(record, self._record(*config))
        self.store.update(new)
        return self.store.get(record.id) or new

    def set_paused(self, source_id: str, reason: str | None, expected: int | None = None) -> None:
        """Store the reason why a source is paused, or None to resume it.

        Raises:
            DataSourceNotFoundError: There is none.
            ConflictError: It is of another version than the one expected, if one is.
            StoreError: The store cannot be written, or cannot hold that a source is paused.
        """
        while (record := self.get(source_id)).paused != reason:
            if expected is not None and record.version != expected:
                raise conflict_error(record, expected)
            try:
                self.store.update(dataclasses.replace(record, paused=reason))
            except StoreError:
                if self.get(source_id).version == record.version:
                    raise
                continue
            if reason is not None and self.get(source_id).paused is None:
                raise StoreError(
                    f"source {source_id!r} is not paused: this store cannot hold that, or somebody "
                    "has resumed it already"
                )

    def _stored(self, records: Sequence[StoredSource]) -> dict[str, StoredSource]:
        stored = (self.store.get(record.id) for record in records)
        return {record.id: record for record in stored if record is not None}

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
                f"the stored sources are encrypted with {_quoted(used)}, which is not among the "
                f"keys given: {_quoted(held)}; to change keys give both, the new one first, and "
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
                changed += self._reencrypt(record)
            except (CredentialError, StoreError) as exc:
                failed[record.id] = str(exc)
        self.store.compact()
        return Rotation(changed, failed)

    def _reencrypt(self, record: StoredSource) -> bool:
        options, version = self._decrypt(record)
        if self.credentials.is_current(record.credentials):
            return False
        renewed = self.credentials.encrypt_credentials(
            options, source_id=record.id, options_version=version
        )
        new = dataclasses.replace(record, credentials=renewed)
        if self._decrypt(new) != (options, version):
            raise CredentialError(f"the credentials of source {record.id!r} did not survive")
        try:
            self.store.update(new)
        except StoreError:
            current = self.store.get(record.id)
            if current is not None and current.version == record.version:
                raise
            # Somebody else wrote or removed it meanwhile; theirs is what counts.
            return current is not None and self._reencrypt(current)
        return True

    def _record(
        self, config: DataSourceConfig, connector_class: type[DataSourceConnector]
    ) -> StoredSource:
        try:
            metadata = json.loads(json.dumps(config.metadata, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            reason = f"the metadata of source {config.id!r} must be values that JSON can hold"
            raise OptionError(reason) from None
        if _levels(metadata) > _MAX_LEVELS:
            reason = f"the metadata of source {config.id!r} may be nested {_MAX_LEVELS} levels deep"
            raise OptionError(f"{reason}, and no deeper")
        if "datasources:queries" in metadata:
            reason = f"the metadata of source {config.id!r} must not have 'datasources:queries'"
            raise OptionError(reason)
        options_class = connector_class.options_class
        options = options_class.redact(config.config) if options_class else None
        return StoredSource(
            id=config.id,
            type=config.type.value,
            name=config.name,
            created_at=config.created_at,
            metadata=metadata,
            limits=dataclasses.asdict(config.limits) if config.limits else None,
            options=options,
            credentials=self.credentials.encrypt_credentials(
                config.config,
                source_id=config.id,
                options_version=options_class.options_version if options_class else 1,
            ),
            queries={name: query.to_dict() for name, query in config.queries.items()},
        )

    def config(
        self, record: StoredSource, *, decrypt: bool = False, sanitize: bool = True
    ) -> DataSourceConfig:
        """Return a configuration: masked, in clear, or with its options as ciphertext.

        Raises:
            DecryptionError: The record does not open, and must for this.
            OptionError: It has options of a newer version than the connector's, or the connector
                cannot migrate them.
        """
        if sanitize and record.options is not None:
            options = record.options
        elif sanitize:
            options = redact(self._decrypt(record)[0])
        elif decrypt:
            options = self._migrated(record)
        else:
            options = {"encrypted": record.credentials}
        return _config(record, options)

    def masked_config(self, record: StoredSource) -> DataSourceConfig:
        """Return a masked configuration; one that does not open has the options `{"error": …}`."""
        if record.options is not None:  # as most are, of which a host may list thousands
            return _config(record, record.options)
        try:
            return self.config(record)
        except CredentialError as exc:
            return self.config(dataclasses.replace(record, options={"error": str(exc)}))

    def _migrated(self, record: StoredSource) -> dict[str, Any]:
        """Return the options of a record in clear, in the version of its connector.

        Without the connector they are returned as they are: they may be exported without it.
        """
        options, version = self._decrypt(record)
        try:
            if self._plugins is None:
                return options
            connector_class = self._plugins.loaded(record.type)
            connector_class = connector_class or self._plugins.connector_class(record.type)
        except PluginError:
            return options
        options_class = connector_class.options_class
        if options_class is None or version == options_class.options_version:
            return options
        where = f"source {record.id!r} has options of version {version}"
        if version > options_class.options_version:
            del options
            raise OptionError(
                f"{where}, and the installed connector of type {record.type!r} has version "
                f"{options_class.options_version}; update it"
            )
        fault = ""
        try:
            return dict(options_class.migrate(options, version))
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - raised below, without its values
            fault = type(exc).__name__
        del options
        raise OptionError(
            f"{where}, and its connector cannot migrate them to version "
            f"{options_class.options_version}: {fault}"
        )

    def _decrypt(self, record: StoredSource) -> tuple[dict[str, Any], int]:
        return self.credentials.decrypt_with_version(record.credentials, source_id=record.id)


def _check_version(source_id: str, record: StoredSource | None, expected: int) -> None:
    if record is None:
        raise ConflictError(f"source {source_id!r} is not there any more; it cannot be replaced")
    if record.version != expected:
        raise conflict_error(record, expected)


def conflict_error(record: StoredSource, expected: int) -> ConflictError:
    """Return the error for a source that is not of the version expected."""
    return ConflictError(
        f"source {record.id!r} has version {record.version}, and not {expected} as expected: "
        "somebody else has changed it; read it again"
    )


def paused_error(source_id: str, reason: str) -> SourcePausedError:
    """Return the error of an operation on a source that is paused."""
    return SourcePausedError(f"source {source_id!r} is paused: {reason}")


def _in_place_of(stored: StoredSource, record: StoredSource) -> StoredSource:
    """Return a record that replaces a stored one; a source that is paused stays so."""
    return dataclasses.replace(record, version=stored.version, paused=stored.paused)


def _quoted(fingerprints: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(fingerprints)))


_NESTED = (dict, list, tuple)
_MAX_LEVELS = 64  # of metadata; what copies and encodes it calls itself for each level
_type_of = lru_cache(maxsize=256)(DataSourceType)


def _config(record: StoredSource, options: dict[str, Any]) -> DataSourceConfig:
    """Return a configuration of copies; not validated again, as a host may list thousands."""
    config = object.__new__(DataSourceConfig)
    config.id = record.id
    config.type = _type_of(record.type)
    config.name = record.name
    config.config = _copy(options)
    config.created_at = record.created_at
    config.metadata = _copy(record.metadata) if record.metadata else {}
    config.limits = Limits(**record.limits) if record.limits else None
    config.version = record.version
    config.paused = record.paused
    queries = record.queries  # most sources have none
    config.queries = {n: StoredQuery.from_dict(q) for n, q in queries.items()} if queries else {}
    return config


def _levels(value: Any) -> int:
    """Return how many containers of a value of JSON stand inside one another."""
    levels, parts = 0, [value]
    while containers := [part for part in parts if isinstance(part, _NESTED)]:
        levels += 1
        parts = [
            part
            for container in containers
            for part in (container.values() if isinstance(container, dict) else container)
        ]
    return levels


def _copy(value: Any) -> Any:
    """Copy a value of JSON, ten times as fast as `copy.deepcopy`."""
    if not isinstance(value, dict):
        return [_copy(item) if isinstance(item, _NESTED) else item for item in value]
    copied = value.copy()
    for key, item in value.items():
        if isinstance(item, _NESTED):
            copied[key] = _copy(item)
    return copied
