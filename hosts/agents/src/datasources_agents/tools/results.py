"""The size of results."""

from __future__ import annotations

MAX_BYTES = 32 << 10
"""Bytes of a result as `json.dumps` writes it."""
ROOM = MAX_BYTES - (4 << 10)
"""Bytes of the part of a result that grows with the data; the rest is for all other fields."""
