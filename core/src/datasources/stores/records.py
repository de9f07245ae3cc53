"""Records of hosts: state that several processes share, beside the sources of a store."""

from __future__ import annotations

import builtins
import itertools
import json
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from datasources.errors import ConflictError
from datasources.locks import ForkSafeLock


@dataclass(frozen=True, slots=True)
class Record:
    """State of a host under a kind and an id, such as a job or a link.

    Stores write records as they are, without encryption: nothing in one may be a secret.
    """

    kind: str
    """The host's name for records of one sort."""
    id: str
    """Unique within the kind."""
    owner: str = ""
    """The id of the principal whom the record belongs to."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Values that JSON can hold."""
    version: int = 0
    """Set by the store: another one after each write, and never used again."""
    expires_at: float | None = None
    """Unix seconds, from which on the record counts as removed; None if it does not expire."""


class Records(Protocol):
    """The records of a store, and numbered entries.

    Methods are called from any thread, and several at once; they may block for seconds. Each is
    one step that is done as a whole or not at all, whatever other processes do. Times are those of
    the clock of the process, so the clocks of machines that share a store must agree.

    All of them raise StoreError if the store cannot be used.
    """

    @abstractmethod
    def get(self, kind: str, id: str) -> Record | None:
        """Return a record; None if there is none, or it has expired."""
        ...

    @abstractmethod
    def list(
        self, kind: str, *, owner: str | None = None, after: str = "", limit: int = 100
    ) -> builtins.list[Record]:
        """Return records of a kind in order of their ids, by code points.

        Args:
            kind: Of the records.
            owner: Of the records; None for all owners.
            after: The records follow this id.
            limit: The largest number of records.
        """
        ...

    @abstractmethod
    def put(self, record: Record, *, expected: int | None = None) -> Record:
        """Write a record, and return it with its new version.

        Args:
            record: The record; its version is ignored.
            expected: The version that the stored record must have; 0 if there must be none, or one
                that has expired; None for whatever there is.

        Raises:
            ConflictError: There is another version, or none.
        """
        ...

    @abstractmethod
    def take(self, kind: str, id: str) -> Record | None:
        """Remove a record and return it; of several callers one gets it, the others get None."""
        ...

    @abstractmethod
    def remove(self, kind: str, id: str) -> bool:
        """Remove a record; return True if there was one that had not expired."""
        ...

    @abstractmethod
    def append(
        self, kind: str, id: str, data: Mapping[str, Any], expires_at: float | None = None
    ) -> int:
        """Add an entry to those of a kind and an id, and return its number.

        Numbers rise within a kind and an id, with gaps. A reader that has seen a number will not
        see a new entry below it.

        Args:
            kind: The host's name for entries of one sort.
            id: Such as that of a job.
            data: Values that JSON can hold.
            expires_at: Unix seconds, from which on the entry counts as removed.
        """
        ...

    def append_many(
        self,
        kind: str,
        id: str,
        entries: Sequence[Mapping[str, Any]],
        expires_at: float | None = None,
    ) -> None:
        """Add entries in this order, as `append`; stores add all or none of them in one write."""
        for data in entries:
            self.append(kind, id, data, expires_at)

    @abstractmethod
    def read(
        self,
        kind: str,
        id: str,
        *,
        after: int = 0,
        before: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> builtins.list[tuple[int, dict[str, Any]]]:
        """Return entries with their numbers, in order.

        Args:
            kind: Of the entries.
            id: Of the entries.
            after: The numbers are over this one.
            before: The numbers are under this one; None is no bound.
            newest_first: True for falling numbers, so that `limit` leaves out the oldest entries.
            limit: The largest number of entries.
        """
        ...

    @abstractmethod
    def delete_expired(self, now: float) -> int:
        """Delete the records and entries that have expired at a time; return their number."""
        ...


def conflict(record: Record) -> ConflictError:
    """Return the error of a write that expected another version."""
    return ConflictError(f"the record of kind {record.kind!r} was changed or removed meanwhile")


@dataclass(slots=True)
class _Entry:
    number: int
    data: str
    expires_at: float | None


class MemoryRecords(Records):
    """Holds records in memory, as long as the process lives."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        self._entries: dict[tuple[str, str], list[_Entry]] = {}
        self._numbers = itertools.count(1)
        self._lock = ForkSafeLock()

    def get(self, kind: str, id: str) -> Record | None:
        record = self._records.get((kind, id))
        return None if record is None or _has_expired(record.expires_at) else _copy(record)

    def list(
        self, kind: str, *, owner: str | None = None, after: str = "", limit: int = 100
    ) -> builtins.list[Record]:
        with self._lock:
            records = [
                _copy(record)
                for record in self._records.values()
                if record.kind == kind
                and record.id > after
                and owner in (None, record.owner)
                and not _has_expired(record.expires_at)
            ]
        return sorted(records, key=lambda record: record.id)[:limit]

    def put(self, record: Record, *, expected: int | None = None) -> Record:
        with self._lock:
            current = self.get(record.kind, record.id)
            if expected not in (None, 0 if current is None else current.version):
                raise conflict(record)
            stored = replace(_copy(record), version=next(self._numbers))
            self._records[record.kind, record.id] = stored
        return _copy(stored)

    def take(self, kind: str, id: str) -> Record | None:
        with self._lock:
            record = self._records.pop((kind, id), None)
        return None if record is None or _has_expired(record.expires_at) else record

    def remove(self, kind: str, id: str) -> bool:
        return self.take(kind, id) is not None

    def append(
        self, kind: str, id: str, data: Mapping[str, Any], expires_at: float | None = None
    ) -> int:
        text = json.dumps(data)
        with self._lock:
            number = next(self._numbers)
            self._entries.setdefault((kind, id), []).append(_Entry(number, text, expires_at))
        return number

    def read(
        self,
        kind: str,
        id: str,
        *,
        after: int = 0,
        before: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> builtins.list[tuple[int, dict[str, Any]]]:
        with self._lock:
            entries = [
                entry
                for entry in self._entries.get((kind, id), ())
                if entry.number > after
                and (before is None or entry.number < before)
                and not _has_expired(entry.expires_at)
            ]
        if newest_first:
            entries.reverse()
        return [(entry.number, json.loads(entry.data)) for entry in entries[:limit]]

    def delete_expired(self, now: float) -> int:
        deleted = 0
        with self._lock:
            for key, record in list(self._records.items()):
                if _has_expired(record.expires_at, now):
                    del self._records[key]
                    deleted += 1
            for key, entries in list(self._entries.items()):
                current = [entry for entry in entries if not _has_expired(entry.expires_at, now)]
                deleted += len(entries) - len(current)
                if current:
                    self._entries[key] = current
                else:
                    del self._entries[key]
        return deleted


def _has_expired(expires_at: float | None, now: float | None = None) -> bool:
    return expires_at is not None and expires_at <= (time.time() if now is None else now)


def _copy(record: Record) -> Record:
    """Return a record whose data nobody else can change, as a database would return it."""
    return replace(record, data=json.loads(json.dumps(record.data)))
