"""Load values of a preview as psycopg does, or as text where Python has no such value."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection, DataError
from psycopg.abc import Buffer
from psycopg.types.datetime import (
    DateLoader,
    IntervalLoader,
    TimeLoader,
    TimestampLoader,
    TimestamptzLoader,
    TimetzLoader,
)


def register_lenient_loaders(connection: AsyncConnection[Any]) -> None:
    """Make a connection load dates and times that Python cannot hold as text.

    Such values are `24:00:00`, `infinity`, years before 1 or after 9999.
    """
    for name, loader in _LOADERS.items():
        connection.adapters.register_loader(name, loader)


def _with_text_fallback(loader: type[Any]) -> type[Any]:
    def load(self: Any, data: Buffer) -> Any:
        try:
            return loader.load(self, data)
        except (DataError, OverflowError, ValueError):
            return bytes(data).decode()

    return type(f"{loader.__name__}OrText", (loader,), {"load": load})


_LOADERS = {
    "date": _with_text_fallback(DateLoader),
    "time": _with_text_fallback(TimeLoader),
    "timetz": _with_text_fallback(TimetzLoader),
    "timestamp": _with_text_fallback(TimestampLoader),
    "timestamptz": _with_text_fallback(TimestamptzLoader),
    "interval": _with_text_fallback(IntervalLoader),
}
