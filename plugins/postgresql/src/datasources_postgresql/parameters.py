"""Bind the values of stored queries' parameters.

COPY takes no parameters, and every way to read a result here is a COPY or wraps the query. So the
values go to the server as parameters of one statement, `SELECT set_config(name, value, true)`, which
sets variables for the transaction; in the text of the query, `:month` is replaced by a fixed
expression that reads the variable, such as `current_setting('datasources.month')::date`. The text is
the same for all values but NULL, which is `NULL::date`, and passes the guard like any other query.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING

from datasources import BoundQuery, QueryValue, StoredQuery

if TYPE_CHECKING:
    from datasources_postgresql.reading import Transaction

# https://www.postgresql.org/docs/current/sql-syntax-lexical.html: strings and names in quotes,
# comments, and `::`, in which no parameter stands. A text that is split otherwise than the server
# splits it has an expression in the wrong place, and never a value.
_TOKEN = re.compile(
    r"""
    \b[eE]'(?:[^'\\]|''|\\.)*'
    | '[^']*'
    | "[^"]*"
    | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    | --[^\r\n]*
    | (?P<comment>/\*)
    | ::
    | (?P<bracket>[\[\]])
    | :(?P<name>[a-z_][a-z0-9_]*)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_TYPES = {
    "text": "text",
    "integer": "int8",
    "number": "numeric",
    "boolean": "bool",
    "date": "date",
}


def bound_text(query: BoundQuery) -> str:
    """Return the text of a query with an expression in place of each parameter."""
    parts: list[str] = []
    position = 0
    for match, _ in _names_in(query.text):
        if match["name"] in query.types:
            parts += [query.text[position : match.start()], _expression(query, match["name"])]
            position = match.end()
    return "".join([*parts, query.text[position:]])


def parameter_names(query: StoredQuery) -> list[str]:
    """Return the names that stand in the text of a query for values of parameters.

    In brackets, `:name` may be a bound of an array's slice, as in `a[1:name]`. There it counts only
    if the query declares it.
    """
    names = [
        match["name"]
        for match, in_brackets in _names_in(query.text)
        if match["name"] in query.parameters or not in_brackets
    ]
    return list(dict.fromkeys(names))


async def set_values(t: Transaction, values: Mapping[str, QueryValue]) -> None:
    """Set the variables that the expressions of `bound_text` read, for the transaction."""
    texts = {name: _text(value) for name, value in values.items() if value is not None}
    if texts:
        calls = b", ".join([b"pg_catalog.set_config(%s, %s, true)"] * len(texts))
        parameters = [part for name, text in texts.items() for part in (_variable(name), text)]
        await t.execute(b"SELECT " + calls, parameters)


def _names_in(text: str) -> Iterator[tuple[re.Match[str], bool]]:
    """Yield the match of each `:name` that is SQL, and True if it stands in brackets."""
    position = brackets = 0
    while match := _TOKEN.search(text, position):
        position = _end_of_comment(text, match.end()) if match["comment"] else match.end()
        if match["bracket"]:
            brackets += 1 if match["bracket"] == "[" else -1
        if match["name"]:
            yield match, brackets > 0


def _end_of_comment(text: str, position: int) -> int:
    """Return where a comment ends that begins before `position`; comments nest."""
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(text, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return len(text) if depth else position


def _variable(name: str) -> str:
    return f"datasources.{name}"


def _expression(query: BoundQuery, name: str) -> str:
    value, type_ = query.values[name], query.types[name]
    if type_ == "timestamp":
        has_offset = isinstance(value, datetime) and value.tzinfo is not None
        sql_type = "timestamptz" if has_offset else "timestamp"
    else:
        sql_type = _TYPES[type_]
    source = "NULL" if value is None else f"pg_catalog.current_setting('{_variable(name)}')"
    return f"({source}::pg_catalog.{sql_type})"


def _text(value: QueryValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)
