"""Tell the name of a table from a query, and fold names as PostgreSQL does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_IDENTIFIER = r'(?:[^\W\d][\w$]*|"(?:[^"\0]|"")+")'
_TABLE = re.compile(rf"\s*({_IDENTIFIER})(?:\s*\.\s*({_IDENTIFIER}))?\s*")
_SURROGATE = re.compile("[\ud800-\udfff]")  # has no UTF-8, so a server cannot receive it
_UPPER = re.compile(r"[A-Z]")


@dataclass(frozen=True, slots=True)
class TableName:
    """A name of one or two parts, folded as PostgreSQL folds names of ASCII letters."""

    schema: str | None
    name: str
    text: str = field(default="", compare=False, repr=False)
    """The name as it was written."""


def table_name(identifier: str) -> TableName | None:
    """Return the table that an identifier names, or None for a query."""
    match = _TABLE.fullmatch(identifier)
    if match is None or _SURROGATE.search(identifier):
        return None
    first, second = match.groups()
    if second:
        return TableName(_fold(first), _fold(second), identifier)
    return TableName(None, _fold(first), identifier)


def schema_name(path: str) -> str | None:
    """Return the schema that a path names, or None if it is no identifier."""
    table = table_name(path)
    return table.name if table and table.schema is None else None


def _fold(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    # Only ASCII letters, as the server does in a database of more than one byte a character.
    return _UPPER.sub(lambda match: match[0].lower(), identifier)
