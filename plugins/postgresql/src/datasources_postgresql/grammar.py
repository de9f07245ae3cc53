"""The first layer of read-only: one statement, by the server's own grammar, that only reads.

Nothing is looked for in the text: it is parsed by PostgreSQL's parser (libpg_query), and every
kind of node in its tree must be one that is known to read. The README lists all five layers:
`functions.py` is the second, `reading.py` the third and fourth, `connections.py` the fifth.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import pgparse  # type: ignore[import-not-found]  # one binary, without types

from datasources import DataFetchError, PolicyError

MAX_LENGTH = 50_000
"""Characters of a query: what parses in about a tenth of a second, however hostile."""
# The parser recurses for every operator of a chain such as `1+1+1`, about 100 bytes deep each time,
# and beyond the end of the stack the process ends; a thread may have but 128 KiB.
_SHORT = 1_000  # characters that fit any stack
_STACK = 16 << 20
_starting = threading.Lock()

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
# How people call what is not called as its node is.
_SPOKEN = {
    "CompositeTypeStmt": "CREATE TYPE",
    "CreateStmt": "CREATE TABLE",
    "CreatedbStmt": "CREATE DATABASE",
    "DropdbStmt": "DROP DATABASE",
    "GrantStmt": "GRANT or REVOKE",
    "IndexStmt": "CREATE INDEX",
    "LockingClause": "FOR UPDATE or FOR SHARE",
    "RuleStmt": "CREATE RULE",
    "TransactionStmt": "control of transactions",
    "VacuumStmt": "VACUUM or ANALYZE",
    "VariableSetStmt": "SET or RESET",
    "ViewStmt": "CREATE VIEW",
}
# Words that became grammar in PostgreSQL 16 and 17; an older server calls functions of that name.
_JSON_FUNCTIONS = frozenset(
    """json json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar
    json_serialize json_table json_value""".split()  # noqa: SIM905  # a list would be three times as long
)
# They take the name of a type as text, and call what its values are checked by.
_TYPE_AS_TEXT = frozenset({"pg_input_error_info", "pg_input_is_valid"})
_EXPLAIN_OPTIONS = frozenset(
    {"buffers", "costs", "format", "generic_plan", "memory", "settings", "summary", "verbose"}
)

Name = tuple[str | None, str]
"""Schema, or None where the search path decides, and name."""
Function = tuple[str | None, str, int | None]
"""Schema, name, number of arguments; None for any, of functions that are not the server's own."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that reads, and the names in it that the catalog has to be asked about."""

    text: str
    """The statement alone: no semicolon, nothing after it."""
    kind: Literal["select", "explain", "show", "other"]
    relations: frozenset[Name] = frozenset()
    functions: frozenset[Function] = frozenset()
    attributes: frozenset[str] = frozenset()
    """Names after a dot: `v.f` calls the function `f` if `v` has no column of that name."""
    operators: frozenset[str] = frozenset()
    types: frozenset[Name] = frozenset()
    """Those of casts, and every name that may be one: `f(x)` and `v.f` are casts if `f` is a type."""


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
        statements = pgparse.parse(query) if len(query) <= _SHORT else _parse_deep(query)
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


def _parse_deep(query: str) -> list[dict[str, Any]]:
    """Parse on a stack that is large enough, while the caller waits."""
    outcome: Future[list[dict[str, Any]]] = Future()

    def run() -> None:
        try:
            outcome.set_result(pgparse.parse(query))
        except BaseException as exc:  # noqa: BLE001  # raised where it is waited for
            outcome.set_exception(exc)

    with _starting:  # the size counts for whichever thread starts next
        before = threading.stack_size(_STACK)
        try:
            threading.Thread(target=run, name="datasources-parse", daemon=True).start()
        finally:
            threading.stack_size(before)
    return outcome.result()


def plain_select(tree: dict[str, Any]) -> bool:
    """Tell whether a tree is a query that changes nothing by its form."""
    return "SelectStmt" in tree and all(
        node in _READING and "intoClause" not in body for node, body in _nodes(tree)
    )


def _select(tree: dict[str, Any], text: str, kind: Literal["select", "explain"]) -> Statement:
    (top,) = tree
    if top != "SelectStmt":
        raise _refused(_spoken(top))
    names = _Names()
    for node, body in _nodes(tree):
        if node not in _READING:
            raise _refused(_spoken(node))
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
        frozenset(names.types | names.row_types()),
    )


class _Names:
    """Collects from a tree what may call functions."""

    def __init__(self) -> None:
        self.relations: set[Name] = set()
        self.functions: set[Function] = set()
        self.attributes: set[str] = set()
        self.operators: set[str] = set()
        self.types: set[Name] = set()
        self._columns: set[str] = set()
        self._tables: set[str] = set()
        """Names and aliases: used as a column, one is a whole row, as `t.*` in an expression is."""
        self._stars = 0

    def row_types(self) -> set[Name]:
        """Return the types of rows that may be made from text or JSON, because some are at hand."""
        whole_rows = self._stars or self._columns & self._tables
        return self.relations if whole_rows else set()  # a table's name is that of its rows' type

    def add(self, node: str, body: Mapping[str, Any]) -> None:
        match node:
            case "RangeVar":
                self.relations.add((body.get("schemaname"), body["relname"]))
                self._tables |= {body["relname"], body.get("alias", {}).get("aliasname")}
            case "FuncCall":
                self._add_call(_name(body["funcname"]), body)
            case "ColumnRef":
                self._add_attributes(_strings(body["fields"])[1:])
                self._columns.update(_strings(body["fields"][-1:]))
                self._stars += _is_star(body)
            case "ResTarget":
                self._stars -= _is_star(body.get("val", {}).get("ColumnRef", {}))
            case "A_Indirection":
                self._add_attributes(_strings(body["indirection"]))
            case "TypeName":
                self.types.add(_name(body["names"]))
            case _ if node.startswith("Json"):
                self.functions.update((None, name, None) for name in _JSON_FUNCTIONS)
            case _:
                self.operators.update(_operators(node, body))

    def _add_call(self, name: Name, body: Mapping[str, Any]) -> None:
        arguments = body.get("args", [])
        # The ORDER BY of an aggregate is no argument of it, that of WITHIN GROUP is.
        ordered = body.get("agg_order", ()) if body.get("agg_within_group") else ()
        count: int | None = len(arguments) + len(ordered)
        if name == ("pg_catalog", "json_object"):  # so said by the grammar, not by the query
            self.functions.add((None, name[1], None))
        if name[1] in _TYPE_AS_TEXT and count == 2 and self._add_type(arguments[1]):
            count = None
        self.functions.add((*name, count))
        if count == 1:
            self.types.add(name)

    def _add_attributes(self, names: list[str]) -> None:
        self.attributes.update(names)
        self.types.update((None, name) for name in names)

    def _add_type(self, argument: Mapping[str, Any]) -> bool:
        """Take a plain text for the name of a type; tell whether it is one."""
        text = argument.get("A_Const", {}).get("sval", {}).get("sval")
        if text is None:
            return False
        with suppress(DataFetchError, PolicyError):  # the server will not know it either
            tree, _ = parse_one(f"SELECT NULL::{text}")
            for node, body in _nodes(tree):
                self.add(node, body)
        return True


def _operators(node: str, body: Mapping[str, Any]) -> Iterable[str]:
    """Return the names of the operators that a node applies, those that it implies included."""
    match node:
        case "A_Expr" if "BETWEEN" in body["kind"]:
            return ("<", "<=", ">", ">=")
        case "A_Expr":
            return _strings(body["name"])[-1:]
        case "SubLink":
            return _strings(body.get("operName", ()))[-1:] or ("=",)
        case "SortBy":
            return _strings(body.get("useOp", ()))[-1:]
        case "CaseExpr" | "JoinExpr":  # CASE x WHEN y, USING (x)
            return ("=",)
    return ()


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


def _is_star(column: Mapping[str, Any]) -> bool:
    """Tell whether a ColumnRef is `t.*`."""
    fields = column.get("fields", ())
    return len(fields) > 1 and "A_Star" in fields[-1]


def _check_explain(statement: Mapping[str, Any]) -> None:
    for option in statement.get("options", ()):
        name = option["DefElem"]["defname"]
        if name not in _EXPLAIN_OPTIONS:
            raise _refused(f"EXPLAIN with {name.upper()}")


def _spoken(kind: str) -> str:
    """Return a node's kind as the statement is called: CreateTableAsStmt is CREATE TABLE AS."""
    words = re.findall(r"[A-Z][a-z]*", kind.removesuffix("Stmt"))
    return _SPOKEN.get(kind) or " ".join(words).upper()


def _refused(what: str) -> PolicyError:
    return PolicyError(
        f"the source is read-only, and {what} is not a read; "
        "possible: SELECT, VALUES, TABLE, WITH, EXPLAIN without ANALYZE, SHOW"
    )
