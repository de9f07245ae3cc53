"""Load values of a preview as psycopg does, or as text where Python has no such value.

A loader of psycopg may raise for a value that Python cannot hold (`24:00:00`, 44 BC, a JSON number
of 5,000 digits), or return another value: a month becomes 30 days, a JSON number a rounded float,
an array loses its bounds. A preview shows what the server has, so such a value is its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection, DataError, adapters, pq
from psycopg.abc import Buffer, Transformer as AnyTransformer
from psycopg.adapt import Loader, Transformer
from psycopg.types.datetime import (
    DateLoader,
    IntervalLoader,
    TimeLoader,
    TimestampLoader,
    TimestamptzLoader,
    TimetzLoader,
)

_ERRORS = (DataError, ArithmeticError, ValueError, RecursionError)
# A month and a year have no fixed length; Python has no infinite timedelta.
_NO_TIMEDELTA = re.compile(rb"mon|year|infinity")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Lists and objects inside one another, far less than what exhausts the stack of a program that
# prints or encodes them.
_DEEPEST_JSON = 100
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def register_lenient_loaders(connection: AsyncConnection[Any]) -> None:
    """Make a connection load dates, times, intervals and JSON that Python cannot hold as text.

    Such values are `24:00:00`, `infinity`, years before 1 or after 9999, intervals of months, JSON
    null, and JSON whose numbers, keys or depth would be lost.
    """
    for name, loader in _LOADERS.items():
        connection.adapters.register_loader(name, loader)


def load_rows(connection: AsyncConnection[Any], result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
    """Return the rows of a result in the text format; see `register_lenient_loaders`."""
    transformer = Transformer(connection)
    transformer.set_pgresult(result)
    loaders = [_column_loader(transformer, result.ftype(i)) for i in range(result.nfields)]
    return [
        tuple(
            None if (value := result.get_value(row, column)) is None else load(value)
            for column, load in enumerate(loaders)
        )
        for row in range(result.ntuples)
    ]


def _column_loader(transformer: AnyTransformer, oid: int) -> Callable[[bytes], Any]:
    load = transformer.get_loader(oid, pq.Format.TEXT).load
    info = adapters.types.get(oid)
    is_array = info is not None and oid == info.array_oid

    def load_or_text(value: bytes) -> Any:
        if is_array and value.startswith(b"["):  # `[0:1]={1,2}`: lists begin at 0 or 1, not both
            return value.decode()
        try:
            return load(value)
        except _ERRORS:
            return value.decode(errors="replace")

    return load_or_text


def _with_text_fallback(loader: type[Any], unfit: re.Pattern[bytes] | None = None) -> type[Any]:
    def load(self: Any, data: Buffer) -> Any:
        if unfit is not None and unfit.search(data):
            return bytes(data).decode()
        try:
            return loader.load(self, data)
        except _ERRORS:
            return bytes(data).decode()

    return type(f"{loader.__name__}OrText", (loader,), {"load": load})


class _JsonLoader(Loader):
    """Loads JSON without loss, or as text."""

    def load(self, data: Buffer) -> Any:
        # A database without encoding may hold bytes that are no UTF-8.
        text = bytes(data).decode(errors="replace").encode()
        if text == b"null" or _depth_exceeds(text, _DEEPEST_JSON):
            return text.decode()  # None stands for NULL
        try:
            value = json.loads(text, parse_float=_exact_number, object_pairs_hook=_unique_keys)
            if _SURROGATE.search(text):
                json.dumps(value, ensure_ascii=False, default=str).encode()
        except _ERRORS:
            return text.decode()
        return value


def _exact_number(text: str) -> float | Decimal:
    """Return a float if it is the number, otherwise a decimal."""
    number = float(text)
    exact = Decimal(text)
    return number if Decimal(repr(number)) == exact else exact


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has two members of one name")
    return members


def _depth_exceeds(text: bytes, limit: int) -> bool:
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    depth = 0
    for match in _NESTING.finditer(text):
        if match[0] in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif match[0] in b"]}":
            depth -= 1
    return False


_LOADERS: dict[str, type[Loader]] = {
    "date": _with_text_fallback(DateLoader),
    "time": _with_text_fallback(TimeLoader),
    "timetz": _with_text_fallback(TimetzLoader),
    "timestamp": _with_text_fallback(TimestampLoader),
    "timestamptz": _with_text_fallback(TimestamptzLoader),
    "interval": _with_text_fallback(IntervalLoader, _NO_TIMEDELTA),
    "json": _JsonLoader,
    "jsonb": _JsonLoader,
}
