"""Bound the constants that the server computes while it plans: no timeout ends one allocation.

The planner computes every function of constants that is not volatile, also where a constant comes
from a subquery. So `repeat('x', 1000000000)` takes its gigabytes during planning, before anything
runs. The tree has all that this depends on. Here it is found out which parts of it are constants, and
`sizes.py` estimates what each takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from datasources_postgresql.guard.calls import FIRST_NORMAL
from datasources_postgresql.guard.sizes import (
    FIXED,
    Value,
    composed,
    constant_of,
    largest,
    together,
    value_of_call,
)
from datasources_postgresql.guard.tree import Node
from datasources_postgresql.guard.unfolding import Query

MAX_BYTES = 16 << 20
"""Bytes of all constants that planning computes. The planner keeps up to about 20 copies of each."""
MAX_COPIED_BYTES = 64 << 20
"""Bytes of the constants that are copied for all partitions of the tables of a query."""
# Nodes that are constants if one of their parts is: the planner leaves out the others.
_CHOOSING = frozenset({
    "CASEEXPR", "CASEWHEN", "COALESCEEXPR", "FIELDSELECT", "MINMAXEXPR", "BOOLEXPR",
    "TARGETENTRY", "RANGETBLFUNCTION", "NAMEDARGEXPR",
})  # fmt: skip
_CALLS = {
    "FUNCEXPR": "funcid",
    "OPEXPR": "opfuncid",
    "DISTINCTEXPR": "opfuncid",
    "NULLIFEXPR": "opfuncid",
    "SCALARARRAYOPEXPR": "opfuncid",
}
"""The nodes that call a function, and the field of the function."""
_WITHOUT_PARTS = {"CASETESTEXPR": 0.0, "SQLVALUEFUNCTION": FIXED}
"""Constants that stand for a value of elsewhere, as in CASE, or of now, with their bytes."""
_NEVER_COMPUTED = frozenset({"AGGREF", "WINDOWFUNC", "GROUPINGFUNC", "SUBLINK", "QUERY", "XMLEXPR"})


GROWING_NAMES = frozenset({
    "array_fill", "array_to_string", "bit", "bpchar", "concat_ws", "format", "lpad", "regexp_replace",
    "repeat", "replace", "rpad", "ts_headline",
})  # fmt: skip
"""Names of functions and types by which a short query without subqueries makes large constants."""


class CalledFunction(Protocol):
    """A function that a tree calls."""

    @property
    def oid(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def volatile(self) -> bool: ...


class TooManyBytesError(Exception):
    """A query has the server compute too large constants."""


@dataclass(slots=True)
class _Total:
    """The bytes of the constants in an expression, and the function that makes most of them."""

    bytes: float = 0
    most: float = 0
    function: str = ""

    def add(self, size: float, function: str) -> None:
        self.bytes += size
        if size > self.most:
            self.most, self.function = size, function

    def add_total(self, other: _Total) -> None:
        self.bytes += other.bytes
        if other.most > self.most:
            self.most, self.function = other.most, other.function


def check(queries: Sequence[Query], functions: Mapping[int, CalledFunction]) -> float:
    """Check what the constants of queries take while they are planned, and return their bytes.

    Args:
        queries: The queries, as `unfolding.check` returns them.
        functions: The functions that they call, by object id.

    Raises:
        TooManyBytesError: They take too much.
    """
    folding = _Folding(functions)
    total = _Total()
    for query in queries:
        total.add_total(folding.total(query))
    if total.bytes > MAX_BYTES:
        by = f", most of them by {total.function}" if total.function else ""
        raise TooManyBytesError(
            f"constants of about {min(total.bytes, 1e18):,.0f} bytes{by}; {MAX_BYTES:,} are possible"
        )
    return total.bytes


class _Folding:
    """Estimates the constants of expressions, with subqueries put in place of their columns."""

    def __init__(self, functions: Mapping[int, CalledFunction]) -> None:
        self._functions = functions
        self._columns: dict[tuple[int, int, int], tuple[Value | None, _Total]] = {}

    def total(self, query: Query) -> _Total:
        """Return the bytes of all constants of a query and those in it."""
        total = _Total()
        for expression in query.expressions():
            total.add_total(self._evaluate(query, expression)[1])
        for inner in query.inner_queries():
            total.add_total(self.total(inner))
        return total

    def _evaluate(self, query: Query, expression: Node) -> tuple[Value | None, _Total]:
        """Return the value of an expression, None if it is no constant, and the bytes in it."""
        total = _Total()
        nodes, stack = [], [expression]
        while stack:
            node = stack.pop()
            nodes.append(node)
            if node.label != "QUERY":
                stack.extend(child for _, child in node.children)
        values: dict[int, Value | None] = {}
        for node in reversed(nodes):  # parts come before what they are part of
            if node.label == "VAR":
                value, inside = self._column(query.query_of(node), node)
                total.add_total(inside)
            else:
                parts = [values.get(id(child)) for _, child in node.children]
                value = self._value(node, parts, total)
            values[id(node)] = value
        return values[id(expression)], total

    def _column(self, query: Query, var: Node) -> tuple[Value | None, _Total]:
        number, attribute = var.number("varno"), var.number("varattno")
        key = (id(query), number, attribute)
        if key not in self._columns:
            self._columns[key] = (None, _Total())
            total = _Total()
            values = []
            for source, node in query.sources(number, attribute):
                value, inside = self._evaluate(source, node)
                total.add_total(inside)
                if value is not None:
                    values.append(value)
            self._columns[key] = (largest(values), total)
        return self._columns[key]

    def _value(self, node: Node, parts: list[Value | None], total: _Total) -> Value | None:
        """Return the value of a node from those of its parts, and add what computing it takes.

        Args:
            node: A node that is no column.
            parts: The values of its parts; None for each that is no constant.
            total: The sum of the expression so far.
        """
        label = node.label
        constants = [part for part in parts if part is not None]
        if label == "CONST":
            return constant_of(node)
        if label in _WITHOUT_PARTS:
            return Value(_WITHOUT_PARTS[label])
        if label in _NEVER_COMPUTED or (not constants and (parts or label not in _CALLS)):
            return None
        if label == "ROWEXPR":
            return together(constants)
        if label in _CHOOSING:
            return largest(constants)
        if len(constants) != len(parts):
            return None
        return self._computed(node, constants, total)

    def _computed(self, node: Node, constants: list[Value], total: _Total) -> Value | None:
        """Return the value of a cast or a call of constants; None if it is not computed on planning."""
        if node.label not in _CALLS:
            value, name = composed(node, constants), "a cast"
        else:
            called = self._functions.get(node.number(_CALLS[node.label]))
            if (called and called.volatile) or node.text("funcretset") == "true":
                return None
            name = f"the function {called.name}" if called is not None else ""
            is_system = called is not None and called.oid < FIRST_NORMAL
            value = value_of_call(called.name if called and is_system else "", node, constants)
        grows = value.bytes > sum(part.bytes for part in constants)
        total.add(value.bytes, name if grows else "")
        return value
