"""What a caller may ask for: a table by its name, or a query."""

from __future__ import annotations

import re
from dataclasses import dataclass

_IDENTIFIER = r'(?:[^\W\d][\w$]*|"(?:[^"\0]|"")+")'
_TABLE = re.compile(rf"\s*({_IDENTIFIER})(?:\s*\.\s*({_IDENTIFIER}))?\s*")
_SURROGATE = re.compile("[\ud800-\udfff]")  # no text, as far as a server is concerned
_UPPER = re.compile(r"[A-Z]")


@dataclass(frozen=True, slots=True)
class TableName:
    """A name of one or two parts, folded as PostgreSQL folds it."""

    schema: str | None
    name: str


def table_name(identifier: str) -> TableName | None:
    """Return the table that an identifier names, or None for a query."""
    match = _TABLE.fullmatch(identifier)
    if match is None or _SURROGATE.search(identifier):
        return None
    first, second = match.groups()
    return TableName(_fold(first), _fold(second)) if second else TableName(None, _fold(first))


def schema_name(path: str) -> str | None:
    """Return the schema that a path names, or None if it is no identifier."""
    found = table_name(path)
    return found.name if found and found.schema is None else None


def _fold(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    # Only ASCII letters, as the server does in a database of more than one byte a character.
    return _UPPER.sub(lambda match: match[0].lower(), identifier)
