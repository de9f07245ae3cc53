"""Stores of configurations, whose secrets are encrypted before a store gets them."""

from __future__ import annotations

import itertools
import json
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from datasources import lazy_exports
from datasources.errors import DataSourceExistsError, OptionError, StoreError
from datasources.locks import ForkSafeLock
from datasources.models import DataSourceConfig, DataSourceType, Limits
from datasources.stored_queries import read_queries
from datasources.stores.records import (
    MemoryRecords as MemoryRecords,
    Record as Record,
    Records as Records,
)

if TYPE_CHECKING:
    from datasources.stores.sqlite import SQLiteStore as SQLiteStore

T = TypeVar("T")

# The key of the stored queries in the column of the metadata; no host may have a note of this name.
_QUERIES = "datasources:queries"


@dataclass(frozen=True, slots=True)
class StoredSource:
    """The record of one source, as a store holds it."""

    id: str
    type: str
    name: str
    created_at: float
    """Unix seconds."""
    metadata: dict[str, Any]
    limits: dict[str, Any] | None
    options: dict[str, Any] | None
    """The options with secrets masked; `None` if the connector declares no options, so that it is
    not known which ones are secret."""
    credentials: str
    """All options, encrypted: `<fingerprint of the key>:<Fernet token>`."""
    version: int = 0
    """Set by the store: it rises with each write and is never used again, not even for a source
    that was removed and added again."""
    paused: str | None = None
    """The reason why the source is paused; `None` if it is not."""
    queries: dict[str, Any] = field(default_factory=dict)
    """The stored queries by name, as `StoredQuery.to_dict` gives them."""

    def to_row(self) -> tuple[str | float | None, ...]:
        """Return the fields in order, as a database takes them: nested ones as JSON texts.

        `paused` is not among them: tables of stores that were written for 0.1.0 have no column for
        it. A store that has one adds `record.paused` to the row. `queries` are in the row, under a
        key of their own in `metadata`, which every table has a column for.
        """
        return (
            self.id,
            self.type,
            self.name,
            self.created_at,
            json.dumps(self.metadata | ({_QUERIES: self.queries} if self.queries else {})),
            None if self.limits is None else json.dumps(self.limits),
            None if self.options is None else json.dumps(self.options),
            self.credentials,
            self.version,
        )

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Return the record of a row; the database may have decoded the JSON already.

        The row has the fields of `to_row`, and may have `paused` after them.

        A damaged row gives a record that can be listed, under an id like its own, with credentials
        that cannot be decrypted.
        """
        source_id, type_name, name, created_at, metadata, limits, options, credentials = row[:8]
        version, paused = (*row[8:], None)[:2]
        try:
            metadata = dict(_expect(dict, _decoded(metadata)))
            queries = metadata.pop(_QUERIES, {})
            read_queries(queries, f"source {source_id!r}")
            return cls(
                DataSourceConfig(source_id, type_name, name, {}).id,
                type_name,
                name,
                _expect(float, created_at),
                metadata,
                None if limits is None else asdict(Limits(**_decoded(limits))),
                None if options is None else _expect(dict, _decoded(options)),
                _expect(str, credentials),
                _expect(int, version),
                None if paused is None else _expect(str, paused),
                queries,
            )
        except (ValueError, TypeError, OptionError):
            safe_id = re.sub(r"[^A-Za-z0-9._-]", "_", str(source_id))[:100]
            if safe_id != source_id or not safe_id[0].isalnum():
                safe_id = f"damaged.{safe_id}"
            return cls(safe_id, DataSourceType.CUSTOM.value, safe_id, 0.0, {}, None, None, "")


class Store(Protocol):
    """The store of a registry's sources. Subclasses inherit `add` and `update`.

    A store that inherits `remove_unchanged` compares and removes in two steps.

    Methods are called from any thread, and several at once. `get` and `list` are called often and
    on event loops: they have to answer from memory or a local file, in well under a millisecond.
    The others may block for seconds; the registry calls them in worker threads or before it
    serves. Records are shared: nobody may change them.
    """

    persistent: bool
    """True if records outlive the process; a generated encryption key, which does not, is then
    refused."""

    @abstractmethod
    def get(self, source_id: str) -> StoredSource | None:
        """Return the record of a source, or None; called for every operation on the source.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def get_many(self, source_ids: Iterable[str]) -> Sequence[StoredSource]:
        """Return the records of sources in the order of the ids, without those that are not there.

        Raises:
            StoreError: The store cannot be read.
        """
        records = map(self.get, source_ids)
        return [record for record in records if record is not None]

    @abstractmethod
    def list(self) -> list[StoredSource]:
        """Return all records in order of their ids, as a new list.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    @abstractmethod
    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        """Add and replace all of the records or none.

        That holds when other processes write at the same time and when this one is killed. What was
        written is seen by `get` and `list` of this instance at once, by others within a second.

        Args:
            add: Records with new ids; their versions are ignored.
            update: Records with the versions that `get` or `list` returned.

        Raises:
            DataSourceExistsError: An id to add is taken.
            StoreError: A record to replace has changed since, or is gone, or the store cannot be
                written.
        """
        ...

    def add(self, *records: StoredSource) -> None:
        """Add all records or none, as `write`."""
        self.write(add=records)

    def update(self, *records: StoredSource) -> None:
        """Replace all records or none, as `write`."""
        self.write(update=records)

    @abstractmethod
    def remove(self, source_id: str) -> bool:
        """Remove a record; return True if there was one.

        Raises:
            StoreError: The store cannot be written.
        """
        ...

    def remove_unchanged(self, record: StoredSource) -> None:
        """Remove a record as `get` or `list` returned it.

        Raises:
            StoreError: It has changed since, or is gone, or the store cannot be written.
        """
        current = self.get(record.id)
        check_write({} if current is None else {record.id: current}, (), [record])
        self.remove(record.id)

    @abstractmethod
    def compact(self) -> None:
        """Erase overwritten and removed content from the files of the store, if it has any.

        Raises:
            StoreError: Some of the content may still be there.
        """
        ...

    def revision(self) -> int | None:
        """Return a number that differs once `list` returns something else; None if unknown.

        As quick as `get`; meant for what hosts keep of a list for some time.

        Raises:
            StoreError: The store cannot be read.
        """
        return None

    def records(self) -> Records | None:
        """Return the records of hosts that are kept beside the sources; None if there are none."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release the store's files and connections; closing twice does nothing more."""
        ...


class MemoryStore(Store):
    """Holds records in memory, as long as the process lives; the default of a registry."""

    persistent = False

    def __init__(self) -> None:
        self._records: dict[str, StoredSource] = {}
        self._versions = itertools.count(1)
        self._revision = 0
        self._lock = ForkSafeLock()
        self._host_records = MemoryRecords()

    def get(self, source_id: str) -> StoredSource | None:
        return self._records.get(source_id)

    def list(self) -> list[StoredSource]:
        with self._lock:
            return [record for _, record in sorted(self._records.items())]

    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        with self._lock:
            check_write(self._records, add, update)
            for record in (*add, *update):
                self._records[record.id] = replace(record, version=next(self._versions))
            self._revision += 1

    def remove(self, source_id: str) -> bool:
        with self._lock:
            removed = self._records.pop(source_id, None)
            self._revision += 1  # not before: `get` does not wait for the lock
            return removed is not None

    def remove_unchanged(self, record: StoredSource) -> None:
        with self._lock:
            check_write(self._records, (), [record])
            del self._records[record.id]
            self._revision += 1

    def compact(self) -> None:
        pass

    def revision(self) -> int:
        return self._revision

    def records(self) -> Records:
        return self._host_records

    def close(self) -> None:
        pass


def check_write(
    current: Mapping[str, StoredSource],
    add: Iterable[StoredSource],
    update: Iterable[StoredSource],
) -> None:
    """Check that records can be added and updated; for the `write` of a store.

    Args:
        current: The stored records, by id.
        add: As `Store.write` takes it.
        update: Likewise.

    Raises:
        DataSourceExistsError: An id to add is taken.
        StoreError: A record to replace has changed since it was read, or is gone.
    """
    seen: set[str] = set()
    for record in add:
        if record.id in current or record.id in seen:
            raise DataSourceExistsError(
                f"source {record.id!r} exists already; unregister it first, or replace it"
            )
        seen.add(record.id)
    for record in update:
        stored = current.get(record.id)
        if stored is None or stored.version != record.version or record.id in seen:
            raise StoreError(
                f"source {record.id!r} was changed or removed meanwhile; read it again"
            )
        seen.add(record.id)


def open_builtin(url: str | os.PathLike[str]) -> Store | None:
    """Open a store in memory or in a SQLite file; return None for a URL of another scheme.

    Args:
        url: `memory:`, `:memory:` or `sqlite:///:memory:`, or as `sqlite_path` takes it.

    Raises:
        StoreError: The URL is malformed, or the file cannot be opened.
    """
    if url in ("memory:", ":memory:", "sqlite:///:memory:"):
        return MemoryStore()
    path = sqlite_path(url)
    if path is None:
        return None
    from datasources.stores.sqlite import SQLiteStore

    return SQLiteStore(path)


def sqlite_path(url: str | os.PathLike[str]) -> str | None:
    """Return the path of the SQLite file that a URL names; None for a URL of another scheme.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, or a path. A `~` at its beginning
            is the home directory.

    Raises:
        StoreError: The URL has a host, parameters or no path, or there is no home directory.
    """
    text = os.fspath(url)
    scheme, separator, rest = text.partition(":")
    if isinstance(url, str) and scheme == "sqlite" and separator:
        path = rest.removeprefix("///")
        if path in (rest, "") or "?" in path or ":memory:" in path:
            raise StoreError(
                f"{text!r} is not the URL of a SQLite store; one is sqlite:///relative/path or "
                "sqlite:////absolute/path, without parameters"
            )
    elif isinstance(url, str) and separator and "/" not in scheme:
        return None
    else:
        path = text
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise StoreError(f"the store {text!r} cannot be used: there is no home directory {user!r}")
    return expanded


def _decoded(value: object) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _expect(cls: type[T], value: object) -> T:
    if not isinstance(value, cls):
        raise TypeError(f"not {cls.__name__}")
    return value


__getattr__ = lazy_exports(__name__, {"SQLiteStore": "sqlite"})
