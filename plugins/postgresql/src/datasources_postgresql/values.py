"""How values of a preview become Python's: as psycopg has it, or text where Python has none."""

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


def register(connection: AsyncConnection[Any]) -> None:
    """Let a connection load times that Python cannot hold (24:00:00, infinity, 44 BC) as text."""
    for name, loader in _LOADERS.items():
        connection.adapters.register_loader(name, loader)


def _or_text(loader: type[Any]) -> type[Any]:
    def load(self: Any, data: Buffer) -> Any:
        try:
            return loader.load(self, data)
        except (DataError, OverflowError, ValueError):
            return bytes(data).decode()

    return type(f"{loader.__name__}OrText", (loader,), {"load": load})


_LOADERS = {
    "date": _or_text(DateLoader),
    "time": _or_text(TimeLoader),
    "timetz": _or_text(TimetzLoader),
    "timestamp": _or_text(TimestampLoader),
    "timestamptz": _or_text(TimestamptzLoader),
    "interval": _or_text(IntervalLoader),
}
