"""Estimate from its text what a query unfolds to, where the server is not asked for the tree.

`unfolding.py` does that exactly, from the tree. The text does not tell which column a name means, so
each is taken to stand for the longest expression among the subqueries and CTEs that it may belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unfolded_nodes(tree: Mapping[str, Any]) -> float:
    """Return about how many nodes a query has after its subqueries are put in place, from above.

    Args:
        tree: The tree of libpg_query.

    Raises:
        RecursionError: Its expressions are nested too deeply.
    """
    return _weight(tree, 0.0)


def _weight(tree: Any, column: float) -> float:
    """Return the nodes of an expression, in which each column stands for `column` nodes."""
    if isinstance(tree, list):
        return sum(_weight(item, column) for item in tree)
    if not isinstance(tree, dict):
        return 0.0
    total = 0.0
    for key, value in tree.items():
        if key == "SelectStmt":
            total += _query(value, column)[0]
        elif key == "ColumnRef":
            total += 1 + column
        else:
            total += key[0].isupper() + _weight(value, column)
    return total


def _query(select: Mapping[str, Any], column: float) -> tuple[float, float]:
    """Return the nodes of a SELECT, and those that its longest column stands for.

    Args:
        select: The SELECT, a UNION or the like, or VALUES.
        column: The nodes that a column of the queries around it stands for.
    """
    total = 0.0
    for item in select.get("withClause", {}).get("ctes", ()):
        table = item["CommonTableExpr"]["ctequery"]["SelectStmt"]
        total, column = _next_source(total, column, _query(table, column))
    if "larg" in select:
        branches = [_query(select[side], column) for side in ("larg", "rarg")]
        return total + sum(b[0] for b in branches), sum(b[1] for b in branches)
    for item in select.get("fromClause", ()):
        total, column = _next_source(total, column, _source(item, column))
    targets = [*select.get("targetList", ()), *select.get("valuesLists", ())]
    weights = [_weight(target, column) for target in targets]
    counted = ("targetList", "valuesLists", "fromClause", "withClause")
    rest = {key: value for key, value in select.items() if key not in counted}
    return total + sum(weights) + _weight(rest, column), max(weights, default=0.0)


def _next_source(total: float, column: float, source: tuple[float, float]) -> tuple[float, float]:
    return total + source[0], max(column, source[1])


def _source(item: Mapping[str, Any], column: float) -> tuple[float, float]:
    """Return the nodes of an item of FROM, and those that its longest column stands for."""
    ((kind, body),) = item.items()
    if kind == "RangeSubselect":
        return _query(body["subquery"]["SelectStmt"], column)
    if kind == "JoinExpr":
        total, inner = _source(body["larg"], column)
        total, inner = _next_source(total, inner, _source(body["rarg"], max(column, inner)))
        return total + _weight(body.get("quals"), max(column, inner)), inner
    weight = _weight(body, column)
    return weight, weight
