"""Bound what a short query unfolds to.

No timeout ends its analysis and planning while their memory grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

from datasources import PolicyError
from datasources_postgresql.guard.syntax import nodes

MAX_PARTS = 1_000
"""Tables and queries that a query may have, where a reference to a CTE that is NOT MATERIALIZED counts
as what it stands for. The server takes about 140 kB to plan each."""
MAX_GROUPING_SETS = 512
"""Grouping sets of one query: CUBE of nine columns."""
_MAX_STARRED = 500_000  # copies of nodes that `(expression).*` may make
MAX_JOINS = 64
"""JOINs of a query. The server keeps a list of all columns so far for each one; it admits 32,767."""
MAX_STAR_COLUMNS = 250_000
"""Columns that all `*` of a query may stand for. The server takes about 1 kB to analyse each."""
_TABLE_COLUMNS = 100  # that `*` is taken to stand for, where it stands for one table
_COLUMNS = 1_664  # that a result may have: MaxTupleAttributeNumber in access/htup_details.h

Parts = Counter[str]
"""The number of times that a query reads each relation; under an empty name, other parts."""
_Scope = Mapping[str, Parts]


def bounded_relations(tree: Mapping[str, Any]) -> list[str]:
    """Return the names of the relations that a query reads, each as often as it is read.

    Raises:
        PolicyError: The query unfolds to too much.
        RecursionError: Its expressions are nested too deeply.
    """
    parts: Parts = Counter()
    _add_parts(parts, tree, {})
    if parts.total() > MAX_PARTS:
        raise PolicyError(
            f"the query unfolds to {parts.total()} tables and queries; {MAX_PARTS} are possible"
        )
    del parts[""]
    return list(parts.elements())


def check_columns(tree: Mapping[str, Any]) -> None:
    """Check how many columns a query has in its JOINs and by `*`: the server lists each.

    Raises:
        PolicyError: There are too many.
    """
    joins = columns = 0
    common_tables = {body["ctename"] for node, body in nodes(tree) if node == "CommonTableExpr"}
    for node, body in nodes(tree):
        joins += node == "JoinExpr"
        if node == "SelectStmt":
            columns += _star_columns(body, common_tables)
    if joins > MAX_JOINS:
        raise PolicyError(f"the query has {joins} JOINs; {MAX_JOINS} are possible")
    if columns > MAX_STAR_COLUMNS:
        raise PolicyError(
            f"the '*' of the query may stand for {columns} columns; {MAX_STAR_COLUMNS} are possible"
        )


def _star_columns(select: Mapping[str, Any], common_tables: Set[str]) -> int:
    """Return about how many columns the `*` of a SELECT stand for."""
    fields = [
        target["ResTarget"].get("val", {}).get("ColumnRef", {}).get("fields", ())
        for target in select.get("targetList", ())
    ]
    stars = sum("A_Star" in part for names in fields for part in names)
    if not stars:
        return 0
    tables = [item.get("RangeVar") for item in select.get("fromClause", ())]
    if stars == 1 and len(tables) == 1 and tables[0] and tables[0]["relname"] not in common_tables:
        return _TABLE_COLUMNS
    return _COLUMNS


def check_star(indirection: Mapping[str, Any]) -> None:
    """Check what the server copies for `(expression).*`.

    Raises:
        PolicyError: It is too much.
        RecursionError: As `bounded_relations`.
    """
    if any("A_Star" in part for part in indirection["indirection"]):
        copied = (_size(indirection["arg"]) + _starred(indirection["arg"])) * _COLUMNS
        if copied > _MAX_STARRED:
            raise PolicyError("the query repeats a long expression for every column by '.*'")


def _add_parts(parts: Parts, tree: Any, scope: _Scope) -> None:
    """Add the parts of a tree.

    Args:
        parts: Where they are added.
        tree: The tree, or a part of it.
        scope: What a reference to each CTE stands for.
    """
    if isinstance(tree, list):
        for item in tree:
            _add_parts(parts, item, scope)
        return
    if "targetList" in tree or "valuesLists" in tree:
        parts[""] += 1
        _check_grouping(tree)
    if "withClause" in tree:
        scope = _common_tables(parts, tree["withClause"], scope)
    for key, value in tree.items():
        if key == "RangeVar":
            parts.update(_reference(value, scope))
        elif key != "withClause" and isinstance(value, (dict, list)):
            _add_parts(parts, value, scope)


def _reference(table: Mapping[str, Any], scope: _Scope) -> Parts:
    name = table["relname"]
    if "schemaname" not in table and name in scope:
        return scope[name]
    return Counter({name: 1})


def _common_tables(parts: Parts, clause: Mapping[str, Any], scope: _Scope) -> _Scope:
    """Add the parts of a WITH clause that are planned once; return the scope behind it."""
    inner = dict(scope)
    for item in clause["ctes"]:
        table = item["CommonTableExpr"]
        name = table["ctename"]
        if clause.get("recursive"):
            inner[name] = Counter({"": 1})
        inside: Parts = Counter()
        _add_parts(inside, table["ctequery"], inner)
        if table.get("ctematerialized") == "CTEMaterializeNever":
            inner[name] = inside
        else:
            parts.update(inside)
            inner[name] = Counter({"": 1})
    return inner


def _check_grouping(select: Mapping[str, Any]) -> None:
    sets = 1
    for item in select.get("groupClause", ()):
        sets *= _grouping_sets(item)
    if sets > MAX_GROUPING_SETS:
        raise PolicyError(
            f"the query has {sets} grouping sets; {MAX_GROUPING_SETS} in one GROUP BY are possible"
        )


def _grouping_sets(item: Mapping[str, Any]) -> int:
    if "GroupingSet" not in item:
        return 1
    body = item["GroupingSet"]
    content = body.get("content", ())
    match body["kind"]:
        case "GROUPING_SET_CUBE":
            return 1 << min(len(content), 64)
        case "GROUPING_SET_ROLLUP":
            return len(content) + 1
        case "GROUPING_SET_SETS":
            return sum(map(_grouping_sets, content))
    return 1


def _starred(tree: Any) -> int:
    """Return how many copies of nodes `(expression).*` makes."""
    if isinstance(tree, list):
        return sum(map(_starred, tree))
    if not isinstance(tree, dict):
        return 0
    body = tree.get("A_Indirection")
    if isinstance(body, dict) and any("A_Star" in part for part in body["indirection"]):
        return (_size(body["arg"]) + _starred(body["arg"])) * _COLUMNS
    return sum(map(_starred, tree.values()))


def _size(tree: Any) -> int:
    """Return the number of nodes of a tree; a row's `.*` counts as many columns."""
    size = 0
    for kind, body in nodes(tree):
        size += 1
        if kind == "RowExpr":
            fields = [item.get("ColumnRef", {}).get("fields", ()) for item in body.get("args", ())]
            size += _COLUMNS * sum("A_Star" in part for names in fields for part in names)
    return size
