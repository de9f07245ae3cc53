"""Configurations at rest: always ciphertext, whichever store holds it."""

from __future__ import annotations

import itertools
import json
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from datasources import lazy_exports
from datasources.errors import DataSourceExistsError, OptionError, StoreError
from datasources.locks import ForkSafeLock
from datasources.models import DataSourceConfig, DataSourceType, Limits

if TYPE_CHECKING:
    from datasources.stores.sqlite import SQLiteStore as SQLiteStore

T = TypeVar("T")


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

    def to_row(self) -> tuple[str | float | None, ...]:
        """Return the fields in order, as a database takes them: what is nested as JSON."""
        return (
            self.id,
            self.type,
            self.name,
            self.created_at,
            json.dumps(self.metadata),
            None if self.limits is None else json.dumps(self.limits),
            None if self.options is None else json.dumps(self.options),
            self.credentials,
            self.version,
        )

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Return the record of a row, of which the database may have decoded the JSON.

        A row that is no longer as it was written can be listed, under an id like its own, and has
        credentials that do not open.
        """
        source_id, kind, name, created_at, metadata, limits, options, credentials, version = row
        try:
            return cls(
                DataSourceConfig(source_id, DataSourceType(kind), name, {}).id,
                kind,
                _expect(str, name),
                _expect(float, created_at),
                _expect(dict, _decoded(metadata)),
                None if limits is None else asdict(Limits(**_decoded(limits))),
                None if options is None else _expect(dict, _decoded(options)),
                _expect(str, credentials),
                _expect(int, version),
            )
        except (ValueError, TypeError, OptionError):
            shown = re.sub(r"[^A-Za-z0-9._-]", "_", str(source_id))[:100]
            if shown != source_id or not shown[0].isalnum():
                shown = f"damaged.{shown}"
            return cls(shown, DataSourceType.CUSTOM.value, shown, 0.0, {}, None, None, "")


class Store(Protocol):
    """Where a registry keeps its sources; subclass it, and `add` and `update` are there.

    Methods are called from any thread.  `get` and `list` are called on event loops and answer
    from memory or a local file, in well under a millisecond; the others may take their time.
    Records must not be changed.
    """

    persistent: bool
    """True if records outlive the process: then a key that nobody wrote down is refused."""

    @abstractmethod
    def get(self, source_id: str) -> StoredSource | None:
        """Return a record, or None."""
        ...

    @abstractmethod
    def list(self) -> list[StoredSource]:
        """Return all records in order of their ids."""
        ...

    @abstractmethod
    def write(
        self, *, add: Sequence[StoredSource] = (), update: Sequence[StoredSource] = ()
    ) -> None:
        """Add and replace all of these or none, whoever else writes and whatever happens.

        Args:
            add: Records of new ids; their versions do not matter.
            update: Records of the versions that were read.

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
        """Remove a record; return whether there was one."""
        ...

    @abstractmethod
    def compact(self) -> None:
        """Leave nothing of what was overwritten or removed in the store's files, if it has any.

        Raises:
            StoreError: Something of it may still be there.
        """
        ...

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds; closing twice does nothing more."""
        ...


class MemoryStore(Store):
    """Keeps records as long as the process lives; the default for embedding."""

    persistent = False

    def __init__(self) -> None:
        self._records: dict[str, StoredSource] = {}
        self._versions = itertools.count(1)
        self._lock = ForkSafeLock()

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

    def remove(self, source_id: str) -> bool:
        with self._lock:
            return self._records.pop(source_id, None) is not None

    def compact(self) -> None:
        pass

    def close(self) -> None:
        pass


def check_write(
    current: Mapping[str, StoredSource],
    add: Iterable[StoredSource],
    update: Iterable[StoredSource],
) -> None:
    """Raise what `Store.write` raises if these do not fit what is stored now."""
    seen: set[str] = set()
    for record in add:
        if record.id in current or record.id in seen:
            raise DataSourceExistsError(
                f"source {record.id!r} exists already; unregister it first, or replace it"
            )
        seen.add(record.id)
    for record in update:
        known = current.get(record.id)
        if known is None or known.version != record.version or record.id in seen:
            raise StoreError(
                f"source {record.id!r} was changed or removed meanwhile; read it again"
            )
        seen.add(record.id)


def open_builtin(url: str | os.PathLike[str]) -> Store | None:
    """Open a store in memory or in a SQLite file; return None for a URL of another scheme.

    Args:
        url: `memory:` or `sqlite:///:memory:`, or as `sqlite_path` takes it.

    Raises:
        StoreError: The URL is malformed, or the file cannot be opened.
    """
    if url in ("memory:", "sqlite:///:memory:"):
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
        if path in (rest, "") or "?" in path:
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


def _expect(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"not {kind.__name__}")
    return value


__getattr__ = lazy_exports(__name__, {"SQLiteStore": "sqlite"})
