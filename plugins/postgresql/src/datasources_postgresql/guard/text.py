"""The first layer of read-only: one statement, by the server's own grammar, that only reads.

The text is not searched but parsed, by PostgreSQL's parser (libpg_query), and every kind of node in
its tree must be one that is known to read. What a name in it means is not decided here, but by
the server (`guard.py`): this layer refuses what is no read, what is too large, and calls of functions
that are denied by name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

import pgparse  # type: ignore[import-not-found]  # one binary, without types

from datasources import DataFetchError, PolicyError
from datasources_postgresql.guard.bounds import bounded_relations, check_columns, check_star
from datasources_postgresql.guard.estimating import unfolded_nodes
from datasources_postgresql.guard.syntax import nodes, strings

MAX_LENGTH = 50_000
"""Characters of a query: what parses in about a tenth of a second, however hostile."""
# The parser recurses for every operator of a chain such as `1+1+1`, about 100 bytes deep each time,
# and beyond the end of the stack the process ends; a thread may have but 128 KiB.
_FITS_ANY_STACK = 1_000  # characters of a query
_STACK = 16 << 20
_TOO_DEEP = "the query's expressions are nested too deeply"
_starting = threading.Lock()

_READING = frozenset({
    "A_ArrayExpr", "A_Const", "A_Expr", "A_Indices", "A_Indirection", "A_Star", "BitString",
    "BoolExpr", "Boolean", "BooleanTest", "CaseExpr", "CaseWhen", "CoalesceExpr", "CollateClause",
    "ColumnDef", "ColumnRef", "CommonTableExpr", "CTECycleClause", "CTESearchClause", "Float",
    "FuncCall", "GroupingFunc", "GroupingSet", "Integer", "JoinExpr", "JsonAggConstructor",
    "JsonArgument", "JsonArrayAgg", "JsonArrayConstructor", "JsonArrayQueryConstructor",
    "JsonBehavior", "JsonExpr", "JsonFormat", "JsonFuncExpr", "JsonIsPredicate", "JsonKeyValue",
    "JsonObjectAgg", "JsonObjectConstructor", "JsonOutput", "JsonParseExpr", "JsonReturning",
    "JsonScalarExpr", "JsonSerializeExpr", "JsonTable", "JsonTableColumn", "JsonTablePathSpec",
    "JsonValueExpr", "List", "MinMaxExpr", "NamedArgExpr", "NullTest", "ParamRef", "RangeFunction",
    "RangeSubselect", "RangeTableFunc", "RangeTableFuncCol", "RangeTableSample", "RangeVar",
    "ResTarget", "RowExpr", "SelectStmt", "SetToDefault", "SortBy", "SQLValueFunction", "String",
    "SubLink", "TypeCast", "TypeName", "WindowDef", "XmlExpr", "XmlSerialize",
})  # fmt: skip
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
_JSON_FUNCTIONS = frozenset({
    "json", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg",
    "json_query", "json_scalar", "json_serialize", "json_table", "json_value",
})  # fmt: skip
_IMPLIED_OPERATORS = frozenset({"=", "<>", "<", "<=", ">", ">="})  # of IN, BETWEEN, USING, …
_EXPLAIN_OPTIONS = frozenset(
    {"buffers", "costs", "format", "generic_plan", "memory", "settings", "summary", "verbose"}
)
# Those of ANALYZE and of what it measures: they may be there as long as they are off.
_MEASURING_OPTIONS = frozenset({"analyze", "serialize", "timing", "wal"})
_OFF = frozenset({"off", "false", "0", "none"})  # as defGetBoolean in commands/define.c reads them


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; it reads unless its kind is `other`."""

    text: str
    """The statement alone: no semicolon, nothing after it."""
    kind: Literal["select", "explain", "show", "other"]
    query: str = ""
    """The query to analyse: the statement, or the one that it explains.

    Empty for SHOW, and where `read_only` is off.
    """
    names: frozenset[str] = frozenset()
    """The identifiers in it, and the functions that an older server calls for its grammar."""
    operators: frozenset[str] = frozenset()
    relations: tuple[str, ...] = ()
    """The names of relations in FROM, each as often as it is read."""
    nested: bool = False
    """True if there is a query in FROM or WITH, whose expressions the server copies on planning."""
    unfolded: float = 0
    """About how many nodes a nested query has after that, by its text; see `estimating.py`."""


def parse_read(query: str, denied: frozenset[str] = frozenset()) -> Statement:
    """Return the one reading statement that a query is.

    Args:
        query: The text.
        denied: Names of functions that it may not call.

    Raises:
        PolicyError: It is none, or more than one, or it would do something else than read.
        DataFetchError: It is not SQL; code 42601.
    """
    tree, text = parse_one(query)
    ((kind, statement),) = tree.items()
    try:
        if kind == "VariableShowStmt":
            return Statement(text, "show")
        if kind == "ExplainStmt":
            _check_explain(statement)
            inner = statement["query"]
            return _select(inner, text, "explain", _explained(text, inner), denied)
        return _select(tree, text, "select", text, denied)
    except RecursionError:
        raise PolicyError(_TOO_DEEP) from None


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
        statements = pgparse.parse(query) if len(query) <= _FITS_ANY_STACK else _parse_deep(query)
    except UnicodeEncodeError:
        raise DataFetchError("the query is not valid Unicode text", code="42601") from None
    except pgparse.PGQueryError as exc:
        raise DataFetchError(
            f"neither the name of a table nor a query: {exc}", code="42601"
        ) from exc
    except RecursionError:
        raise PolicyError(_TOO_DEEP) from None
    if len(statements) != 1:
        raise PolicyError(f"a query is one statement; this one has {len(statements)}")
    (statement,) = statements
    start = statement.get("stmt_location", 0)
    end = start + statement["stmt_len"] if statement.get("stmt_len") else len(encoded)
    return statement["stmt"], encoded[start:end].decode()


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


def plain_select(tree: Mapping[str, Any]) -> bool:
    """Return True if a tree is a query that changes nothing by its form."""
    return "SelectStmt" in tree and all(
        node in _READING and "intoClause" not in body for node, body in nodes(tree)
    )


def _select(
    tree: dict[str, Any],
    text: str,
    kind: Literal["select", "explain"],
    query: str,
    denied: frozenset[str],
) -> Statement:
    (top,) = tree
    if top != "SelectStmt":
        raise _refused(_spoken(top))
    names: set[str] = set()
    operators = set(_IMPLIED_OPERATORS)
    nested = False
    for node, body in nodes(tree):
        _check_node(node, body, denied)
        if node == "String":
            names.add(body.get("sval", ""))
        elif node == "RangeVar":
            names.add(body["relname"])
        elif node == "A_Expr":
            operators.update(strings(body["name"])[-1:])
        elif node == "SubLink":
            operators.update(strings(body.get("operName", ()))[-1:])
        elif node == "SortBy":
            operators.update(strings(body.get("useOp", ()))[-1:])
        elif node.startswith("Json"):
            names |= _JSON_FUNCTIONS
        nested |= node in {"RangeSubselect", "CommonTableExpr"}
    check_columns(tree)
    folded = {name.lower() for name in names if not name.isascii()}
    return Statement(
        text,
        kind,
        query,
        frozenset(names | folded),
        frozenset(operators),
        tuple(bounded_relations(tree)),
        nested,
        unfolded_nodes(tree) if nested else 0,
    )


def _check_node(node: str, body: Mapping[str, Any], denied: frozenset[str]) -> None:
    if node not in _READING:
        raise _refused(_spoken(node))
    if "intoClause" in body:
        raise _refused("SELECT INTO")
    if node == "FuncCall":
        _check_call(strings(body["funcname"]), denied)
    elif node == "A_Indirection":
        check_star(body)


def _check_call(name: list[str], denied: frozenset[str]) -> None:
    if name[-1] in denied or ".".join(name) in denied:
        raise PolicyError(f"the source is read-only, and the function {name[-1]} may not be called")


def _check_explain(statement: Mapping[str, Any]) -> None:
    for option in statement.get("options", ()):
        name, argument = option["DefElem"]["defname"], option["DefElem"].get("arg")
        if name in _MEASURING_OPTIONS and _is_off(argument):
            continue
        if name not in _EXPLAIN_OPTIONS:
            raise _refused(f"EXPLAIN with {name.upper()}")


def _is_off(argument: Mapping[str, Any] | None) -> bool:
    if argument is None:
        return False
    if "Integer" in argument:
        return not argument["Integer"].get("ival", 0)
    value = argument.get("String", argument.get("Boolean", {}))
    return str(value.get("sval", value.get("boolval", "on"))).lower() in _OFF


def _explained(text: str, tree: Mapping[str, Any]) -> str:
    """Return the text of the query that an EXPLAIN explains.

    The grammar does not tell where the query begins: it is what follows EXPLAIN and its options and
    has the same tree.
    """
    expected = _without_locations(tree)
    for match in re.finditer(r"\(|\b(?:SELECT|WITH|VALUES|TABLE)\b", text, re.IGNORECASE):
        candidate = text[match.start() :]
        try:
            reparsed, alone = parse_one(candidate)
        except (DataFetchError, PolicyError):
            continue
        if _without_locations(reparsed) == expected:
            return alone
    raise PolicyError("the query after EXPLAIN cannot be told from the options before it")


def _without_locations(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {
            key: _without_locations(value)
            for key, value in tree.items()
            if key not in {"location", "list_start", "list_end"}
        }
    return [_without_locations(item) for item in tree] if isinstance(tree, list) else tree


def _spoken(kind: str) -> str:
    """Return a node's kind as the statement is called: CreateTableAsStmt is CREATE TABLE AS."""
    words = re.findall(r"[A-Z][a-z]*", kind.removesuffix("Stmt"))
    return _SPOKEN.get(kind) or " ".join(words).upper()


def _refused(what: str) -> PolicyError:
    return PolicyError(
        f"the source is read-only, and {what} is not a read; "
        "possible: SELECT, VALUES, TABLE, WITH, EXPLAIN without ANALYZE, SHOW"
    )
