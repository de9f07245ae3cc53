"""Configurations at rest: always ciphertext, whichever store holds it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from datasources.errors import DataSourceExistsError, StoreError

if TYPE_CHECKING:
    from datasources.stores.sqlite import SQLiteStore as SQLiteStore


@dataclass(frozen=True, slots=True)
class StoredSource:
    """One source as a store keeps it."""

    id: str
    type: str
    name: str
    created_at: float
    """Unix seconds."""
    metadata: dict[str, Any]
    limits: dict[str, Any] | None
    options: dict[str, Any] | None
    """The options with secrets masked; `None` where the connector declares none, as then nobody
    can say what is secret."""
    credentials: str
    """All options, encrypted."""
    version: int = 0
    """Given by the store: rises with each write, and is never given again, not even to a source
    that was removed and added anew."""


class Store(Protocol):
    """Where a registry keeps its sources.

    Methods are called from any thread.  `get` and `list` are called on event loops and answer
    from memory or a local file, in well under a millisecond; the others may take their time.
    Records must not be changed.
    """

    persistent: bool
    """True if records outlive the process: then a key that nobody wrote down is refused."""

    def get(self, source_id: str) -> StoredSource | None:
        """Return a record, or None."""
        ...

    def list(self) -> list[StoredSource]:
        """Return all records in order of their ids."""
        ...

    def add(self, *records: StoredSource) -> None:
        """Add all records or none.

        Raises:
            DataSourceExistsError: An id is taken.
            StoreError: The store cannot be written.
        """
        ...

    def update(self, *records: StoredSource) -> None:
        """Replace all records or none; each must have the version that was read.

        Raises:
            StoreError: A record changed since, or is gone, or the store cannot be written.
        """
        ...

    def remove(self, source_id: str) -> bool:
        """Remove a record; return whether there was one."""
        ...

    def close(self) -> None:
        """Release what the store holds; closing twice does nothing more."""
        ...


class MemoryStore:
    """Keeps records as long as the process lives; the default for embedding."""

    persistent = False

    def __init__(self) -> None:
        self._records: dict[str, StoredSource] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def get(self, source_id: str) -> StoredSource | None:
        return self._records.get(source_id)

    def list(self) -> list[StoredSource]:
        with self._lock:
            return [record for _, record in sorted(self._records.items())]

    def add(self, *records: StoredSource) -> None:
        with self._lock:
            check_new(records, self._records)
            self._put(records)

    def update(self, *records: StoredSource) -> None:
        with self._lock:
            check_unchanged(records, self._records)
            self._put(records)

    def remove(self, source_id: str) -> bool:
        with self._lock:
            return self._records.pop(source_id, None) is not None

    def close(self) -> None:
        pass

    def _put(self, records: tuple[StoredSource, ...]) -> None:
        for record in records:
            self._records[record.id] = replace(record, version=next(self._versions))


def check_new(records: Iterable[StoredSource], taken: Container[str]) -> None:
    """Raise DataSourceExistsError if an id is taken, or comes twice."""
    seen: set[str] = set()
    for record in records:
        if record.id in taken or record.id in seen:
            raise DataSourceExistsError(
                f"source {record.id!r} exists already; unregister it first, or replace it"
            )
        seen.add(record.id)


def check_unchanged(records: Iterable[StoredSource], current: Mapping[str, StoredSource]) -> None:
    """Raise StoreError if a record is not of the version that is stored, or comes twice."""
    seen: set[str] = set()
    for record in records:
        known = current.get(record.id)
        if known is None or known.version != record.version or record.id in seen:
            raise changed_meanwhile(record.id)
        seen.add(record.id)


def changed_meanwhile(source_id: str) -> StoreError:
    """Return the error of an update that came second."""
    return StoreError(f"source {source_id!r} was changed or removed meanwhile; read it again")


def __getattr__(name: str) -> object:
    if name == "SQLiteStore":
        from datasources.stores.sqlite import SQLiteStore

        return SQLiteStore
    raise AttributeError(f"module 'datasources.stores' has no attribute {name!r}")
