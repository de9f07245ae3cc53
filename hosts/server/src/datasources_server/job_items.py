"""The items of a job, as they are kept with its record: encrypted, as an item may be a query."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from datasources import CredentialManager, Record

_PURPOSE = "server jobs"  # of the derived key
_MAX_AGE = 10 * 365 * 86_400  # seconds; the record ends much earlier
_MAX_ITEMS = 10  # of a job that are told
_MAX_LENGTH = 500  # characters of an item that are told


def seal_subject(credentials: CredentialManager, items: Sequence[Mapping[str, Any]]) -> str:
    """Return what is told of the items of a job, encrypted: a list may have hundreds of jobs."""
    told = [
        {"source": item["source"], "item": _cut(item["item"]), "format": item["format"]}
        for item in items[:_MAX_ITEMS]
    ]
    return credentials.seal(_PURPOSE, json.dumps([len(items), told]).encode())


def open_subject(credentials: CredentialManager, job: Record) -> dict[str, Any]:
    """Return what is told of the items of a job: nothing if it is of an older version or key."""
    content = credentials.unseal(_PURPOSE, job.data.get("subject", ""), max_age=_MAX_AGE)
    count, items = (0, []) if content is None else json.loads(content)
    return {"item_count": count, "items": items}


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}…"
