"""The size of results, and what all results about one item begin with."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from datasources import FetchRequest, OptionError, SourceURI
from datasources_agents.tools.bounding import Cutter

MAX_BYTES = 32 << 10
"""Bytes of a result as `json.dumps` writes it."""
ROOM = MAX_BYTES - (12 << 10)
"""Bytes of the part of a result that grows with the data; the rest is for all other fields."""

_MAX_ITEM = 500  # characters of an item, which may be a query
_MAX_URI = 2048  # characters of a link


def item_head(request: FetchRequest) -> dict[str, Any]:
    """Return source, item and URI; a long item is cut, and has no URI."""
    head = {"source": request.source_id, "item": Cutter(_MAX_ITEM).cut(request.identifier)}
    uri = _uri(request)
    return head if uri is None else head | {"uri": uri}


def _uri(request: FetchRequest) -> str | None:
    if request.parameters:
        return None
    with suppress(OptionError):
        uri = str(SourceURI(request.source_id, request.identifier, request.format))
        return uri if len(uri) <= _MAX_URI else None
    return None
