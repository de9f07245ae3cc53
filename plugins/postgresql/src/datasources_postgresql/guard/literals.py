"""Take the literals out of a query: the server would convert them while it analyses it.

The server calls the input function of a literal's type during the analysis, before anybody can see
which one. A NULL in place of a literal takes the same type, and no input function is called for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from datasources import PolicyError
from datasources_postgresql.guard.syntax import strings
from datasources_postgresql.guard.text import Statement, parse_one

# Fields in which the grammar or the server admits nothing but a text, of no type that checks it.
_PLAIN_TEXTS = frozenset({"JsonTablePathSpec", "pathspec", "typmods"})
# The argument that is a word of the grammar: `EXTRACT(year FROM x)`, `x IS NFC NORMALIZED`.
_WORDS = {"extract": 0, "normalize": 1, "is_normalized": 1}

# A text as SQL writes it: plain, with escapes, with Unicode escapes, or between dollars. Pieces on
# several lines are one text.
_LITERAL = re.compile(
    rb"""(?:[eE]'(?:[^'\\]|\\.|'')*'|(?:[nN]|[uU]&)?'(?:[^']|'')*'(?:\s*\n\s*'(?:[^']|'')*')*
    |\$((?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?)\$.*?\$\1\$)(?:\s+UESCAPE\s+'.')?""",
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)

# True if a literal may call a function that changes something: a domain's check calls a volatile
# function or one of the database's own, a type has a volatile input function of the database's own,
# or a range compares its bounds by an operator class of the database's own.
CHECKING_TYPES = rb"""
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_constraint c,
        pg_catalog.regexp_matches(c.conbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS called
        JOIN pg_catalog.pg_proc p ON p.oid = called[1]::pg_catalog.oid
    WHERE c.contypid > 0 AND (p.provolatile = 'v' OR p.oid >= 16384))
OR EXISTS (
    SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_proc p ON p.oid = t.typinput
    WHERE p.oid >= 16384 AND p.provolatile = 'v')
OR EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngsubopc >= 16384)
"""


def without_literals(statement: Statement) -> str | None:
    """Return a statement's query with NULL in place of every text; None if it has none.

    Raises:
        PolicyError: A text is written in a way that is not understood here.
    """
    query = statement.query.encode()
    tree = parse_one(statement.query)[0]
    edits = list(_edits(tree, query))
    if not edits:
        return None
    for start, end, replacement in sorted(edits, reverse=True):
        query = query[:start] + replacement + query[end:]
    return query.decode()


def _edits(tree: Any, query: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield what to replace: start and end in bytes, and the replacement."""
    parameters = 0
    stack: list[tuple[Any, str]] = [(tree, "")]
    while stack:
        part, key = stack.pop()
        if isinstance(part, list):
            stack.extend((item, key) for item in part)
            continue
        if not isinstance(part, dict) or key in _PLAIN_TEXTS:
            continue
        if key == "A_Const":
            if "sval" in part:
                yield (*_span(part, query), b"NULL")
            continue
        if key == "TypeCast" and part.get("location") == -1 and _is_text(part["arg"]):
            yield from _typed(part, query)
            continue
        # NULL beside IS DISTINCT FROM would be understood as IS NULL, a parameter is not.
        distinct = key == "A_Expr" and "DISTINCT" in part["kind"]
        for name, value in _parts(part, key):
            if distinct and _is_text(value):
                parameters += 1
                yield (*_span(value["A_Const"], query), b"$%d" % parameters)
            else:
                stack.append((value, name))


def _parts(body: dict[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    """Return the fields of a node, without words of the grammar that stand in the tree as texts."""
    if key == "FuncCall" and body.get("funcformat") == "COERCE_SQL_SYNTAX":
        name, arguments = strings(body["funcname"])[-1], body.get("args", [])
        if name in _WORDS:
            return [("args", arguments[: _WORDS[name]] + arguments[_WORDS[name] + 1 :])]
    return body.items()


def _is_text(node: Any) -> bool:
    return isinstance(node, dict) and "sval" in node.get("A_Const", {})


def _span(constant: dict[str, Any], query: bytes) -> tuple[int, int]:
    start = constant.get("location", 0)
    match = _LITERAL.match(query, start)
    if match is None:
        raise PolicyError("a text of the query is written in a way that cannot be checked")
    return start, match.end()


def _typed(cast: dict[str, Any], query: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the edit for `type 'text'`, which takes no NULL, but not for a type of the grammar's."""
    names = strings(cast["typeName"]["names"])
    if names[0] != "pg_catalog":
        start = cast["typeName"].get("location", 0)
        at, end = _span(cast["arg"]["A_Const"], query)
        yield start, end, b"CAST(NULL AS %s)" % query[start:at].strip()
