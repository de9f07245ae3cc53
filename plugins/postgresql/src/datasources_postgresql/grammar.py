"""The first layer of read-only: one statement, by the server's own grammar, that only reads.

Nothing is looked for in the text: it is parsed by PostgreSQL's parser (libpg_query), and every
kind of node in its tree must be one that is known to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pgparse  # type: ignore[import-not-found]  # one binary, without types

from datasources import DataFetchError, PolicyError

MAX_LENGTH = 200_000
"""Characters of a query: what parses in about a tenth of a second."""

_READING = frozenset(
    """A_ArrayExpr A_Const A_Expr A_Indices A_Indirection A_Star BitString BoolExpr Boolean
    BooleanTest CaseExpr CaseWhen CoalesceExpr CollateClause ColumnDef ColumnRef CommonTableExpr
    CTECycleClause CTESearchClause Float FuncCall GroupingFunc GroupingSet Integer JoinExpr
    JsonAggConstructor JsonArgument JsonArrayAgg JsonArrayConstructor JsonArrayQueryConstructor
    JsonBehavior JsonExpr JsonFormat JsonFuncExpr JsonIsPredicate JsonKeyValue JsonObjectAgg
    JsonObjectConstructor JsonOutput JsonParseExpr JsonReturning JsonScalarExpr JsonSerializeExpr
    JsonTable JsonTableColumn JsonTablePathSpec JsonValueExpr List MinMaxExpr NamedArgExpr NullTest
    ParamRef RangeFunction RangeSubselect RangeTableFunc RangeTableFuncCol RangeTableSample RangeVar
    ResTarget RowExpr SelectStmt SetToDefault SortBy SQLValueFunction String SubLink TypeCast
    TypeName WindowDef XmlExpr XmlSerialize""".split()  # noqa: SIM905  # a list would be three times as long
)
_WRITING = {
    "DeleteStmt": "DELETE",
    "InsertStmt": "INSERT",
    "LockingClause": "FOR UPDATE or FOR SHARE",
    "MergeStmt": "MERGE",
    "UpdateStmt": "UPDATE",
}
_EXPLAIN_OPTIONS = frozenset(
    {"buffers", "costs", "format", "generic_plan", "memory", "settings", "summary", "verbose"}
)

Name = tuple[str | None, str]
"""Schema, or None where the search path decides, and name."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that reads, and the names in it that the catalog has to be asked about."""

    text: str
    """The statement alone: no semicolon, nothing after it."""
    kind: Literal["select", "explain", "show", "other"]
    relations: frozenset[Name] = frozenset()
    functions: frozenset[tuple[str | None, str, int]] = frozenset()
    """Schema, name, number of arguments."""
    attributes: frozenset[str] = frozenset()
    """Names after a dot: `v.f` calls the function `f` if `v` has no column of that name."""
    operators: frozenset[str] = frozenset()
    types: frozenset[Name] = frozenset()


def parse_read(query: str) -> Statement:
    """Return the one reading statement that a query is.

    Raises:
        PolicyError: It is none, or more than one, or it would do something else than read.
        DataFetchError: It is not SQL; code 42601.
    """
    tree, text = parse_one(query)
    ((kind, statement),) = tree.items()
    if kind == "VariableShowStmt":
        return Statement(text, "show")
    if kind == "ExplainStmt":
        _check_explain(statement)
        return _select(statement["query"], text, "explain")
    return _select(tree, text, "select")


def parse_one(query: str) -> tuple[dict[str, Any], str]:
    """Return the tree of the one statement in a query, and its text alone.

    Raises:
        PolicyError: There is none, more than one, or too much of it.
        DataFetchError: It is not SQL; code 42601.
    """
    if len(query) > MAX_LENGTH:
        raise PolicyError(f"the query is longer than {MAX_LENGTH} characters")
    try:
        encoded = query.encode()
        if b"\0" in encoded:
            raise DataFetchError("the query holds a NUL character", code="42601")
        statements = pgparse.parse(query)
    except UnicodeEncodeError:
        raise DataFetchError("the query is not valid Unicode text", code="42601") from None
    except pgparse.PGQueryError as exc:
        raise DataFetchError(
            f"neither the name of a table nor a query: {exc}", code="42601"
        ) from exc
    except RecursionError:
        raise PolicyError("the query's expressions are nested too deeply") from None
    if len(statements) != 1:
        raise PolicyError(f"a query is one statement; this one has {len(statements)}")
    (found,) = statements
    start = found.get("stmt_location", 0)
    end = start + found["stmt_len"] if found.get("stmt_len") else len(encoded)
    return found["stmt"], encoded[start:end].decode()


def plain_select(tree: dict[str, Any]) -> bool:
    """Tell whether a tree is a query that changes nothing by its form."""
    return "SelectStmt" in tree and all(
        node in _READING and "intoClause" not in body for node, body in _nodes(tree)
    )


def _select(tree: dict[str, Any], text: str, kind: Literal["select", "explain"]) -> Statement:
    (top,) = tree
    if top != "SelectStmt":
        raise _refused(_WRITING.get(top, _spoken(top)))
    names = _Names()
    for node, body in _nodes(tree):
        if node not in _READING:
            raise _refused(_WRITING.get(node, _spoken(node)))
        if "intoClause" in body:
            raise _refused("SELECT INTO")
        names.add(node, body)
    return Statement(
        text,
        kind,
        frozenset(names.relations),
        frozenset(names.functions),
        frozenset(names.attributes),
        frozenset(names.operators),
        frozenset(names.types),
    )


class _Names:
    """Collects from a tree what may call functions."""

    def __init__(self) -> None:
        self.relations: set[Name] = set()
        self.functions: set[tuple[str | None, str, int]] = set()
        self.attributes: set[str] = set()
        self.operators: set[str] = set()
        self.types: set[Name] = set()

    def add(self, node: str, body: Mapping[str, Any]) -> None:
        match node:
            case "RangeVar":
                self.relations.add((body.get("schemaname"), body["relname"]))
            case "FuncCall":
                arguments = [*body.get("args", ()), *body.get("agg_order", ())]
                self.functions.add((*_name(body["funcname"]), len(arguments)))
            case "ColumnRef":
                self.attributes.update(_strings(body["fields"])[1:])
            case "A_Indirection":
                self.attributes.update(_strings(body["indirection"]))
            case "A_Expr":
                self.operators.update(_strings(body["name"])[-1:])
            case "SubLink":
                self.operators.update(_strings(body.get("operName", ()))[-1:])
            case "SortBy":
                self.operators.update(_strings(body.get("useOp", ()))[-1:])
            case "TypeName":
                self.types.add(_name(body["names"]))


def _nodes(tree: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every node of a tree with its kind.

    Kinds are keys with a capital; fields whose kind the grammar fixes hold the node bare, of which
    types and the arms of a UNION matter here.
    """
    stack = [tree]
    while stack:
        found = stack.pop()
        if isinstance(found, list):
            stack.extend(found)
        elif isinstance(found, dict):
            for key, value in found.items():
                if key[0].isupper():
                    yield key, value
                elif key == "typeName":
                    yield "TypeName", value
                elif key in {"larg", "rarg"}:
                    yield "SelectStmt", value
                stack.append(value)


def _name(parts: list[Any]) -> Name:
    strings = _strings(parts)
    return (strings[-2] if len(strings) > 1 else None, strings[-1])


def _strings(parts: Any) -> list[str]:
    return [part["String"].get("sval", "") for part in parts if "String" in part]


def _check_explain(statement: Mapping[str, Any]) -> None:
    for option in statement.get("options", ()):
        name = option["DefElem"]["defname"]
        if name not in _EXPLAIN_OPTIONS:
            raise _refused(f"EXPLAIN with {name.upper()}")


def _spoken(kind: str) -> str:
    """Return a node's kind as the statement is called: CreateTableAsStmt is CREATE TABLE AS."""
    words = re.findall(r"[A-Z][a-z]*", kind.removesuffix("Stmt"))
    return " ".join(words).upper()


def _refused(what: str) -> PolicyError:
    return PolicyError(
        f"the source is read-only, and {what} is not a read; "
        "possible: SELECT, VALUES, TABLE, WITH, EXPLAIN without ANALYZE, SHOW"
    )
