"""Places that a principal has for things of one kind, exactly as many as are allowed in all workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from datasources import ConflictError, Record, Records


def acquire_place(
    records: Records,
    kind: str,
    owner: str,
    places: int,
    data: Mapping[str, Any],
    expires_at: float | None = None,
) -> Record | None:
    """Take one of the places of an owner; return None if none is free. Raises StoreError.

    Args:
        records: Those of the store.
        kind: Of the places.
        owner: The id of the principal.
        places: Their number.
        data: Of the record of the place.
        expires_at: Unix seconds, from which on the place is free again.
    """
    prefix = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()
    for number in range(places):
        place = Record(kind, f"{prefix}.{number}", owner, data, expires_at=expires_at)
        with suppress(ConflictError):
            return records.put(place, expected=0)
    return None


def release_place(records: Records, kind: str, place_id: str, name: str, value: str) -> None:
    """Give a place up, unless somebody else has it, whose data have another value of a name."""
    while (current := records.get(kind, place_id)) is not None and current.data[name] == value:
        with suppress(ConflictError):  # a heartbeat was written meanwhile
            # Expired is as good as removed, and depends on the version.
            records.put(replace(current, expires_at=0.0), expected=current.version)
            return
