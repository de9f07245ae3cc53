"""Cursors of listings that core does not page, encrypted and bound to their principal."""

from __future__ import annotations

import json
from collections.abc import Sequence

from datasources import CursorError
from datasources_server.calls import Call

_MAX_AGE = 3600  # seconds that a cursor can be used, as those of core
_MAX_LENGTH = 8 * 1024  # characters of a cursor that are looked at


def seal_cursor(call: Call, purpose: str, binding: Sequence[str | None], place: str) -> str:
    """Return the cursor of a place in a listing, which is described by `binding`."""
    content = json.dumps([*binding, place]).encode()
    return call.registry.credentials.seal(f"server {purpose}", content)


def open_cursor(call: Call, purpose: str, binding: Sequence[str | None], cursor: str) -> str:
    """Return the place of a cursor.

    Raises:
        CursorError: It is forged, too old, or of another listing.
    """
    content = (
        call.registry.credentials.unseal(f"server {purpose}", cursor, max_age=_MAX_AGE)
        if len(cursor) <= _MAX_LENGTH
        else None
    )
    if content is not None:
        *bound, place = json.loads(content)
        if bound == list(binding):
            return str(place)
    raise CursorError("the cursor is not one of this listing, or is more than an hour old")
