"""Bound what planning a query tree takes: no timeout ends it while its memory grows.

The planner puts the expressions of a subquery, a view or a CTE that is not materialized in place of
each reference to its columns. So `SELECT x + x AS x FROM (…)` in itself twenty times is a million
additions. The tree has all that this depends on, so its size after that is computed here.
"""

from __future__ import annotations

from datasources_postgresql.guard.tree import Node, UnreadableTreeError

MAX_NODES = 300_000
"""Nodes of expressions after subqueries are put in place. Planning takes about 1 kB for each."""
MAX_TABLES = 2_000
"""Tables, subqueries and functions that are planned. Planning takes about 140 kB for each. The text
alone may have 1,000 (`bounds.MAX_PARTS`), and its views as many."""
_MAX_QUERIES = 100  # queries within each other
_SUBQUERY, _JOIN, _CTE, _GROUP = 1, 2, 6, 9  # RTEKind in nodes/parsenodes.h
_NEVER, _DEFAULT = 2, 0  # CTEMaterialize


class TooLargeError(Exception):
    """A query unfolds to more than can be planned."""


class _Query:
    """A query of a tree, within others, with the sizes of its parts.

    Args:
        node: The query.
        outer: The queries that it is in, the nearest last.
    """

    def __init__(self, node: Node, outer: tuple[_Query, ...]) -> None:
        if len(outer) > _MAX_QUERIES:
            raise TooLargeError(f"more than {_MAX_QUERIES} queries within each other")
        self.queries = (*outer, self)
        self.entries = node.nodes("rtable")
        self.common_tables = {cte.text("ctename"): cte for cte in node.nodes("cteList")}
        self.tables = len(self.entries)
        self.nodes = 0
        self._inner_queries: dict[int, _Query] = {}
        """The queries of SubLinks, by the identity of their nodes."""
        self._planned: dict[str, _Query] = {}
        self._subqueries: dict[int, _Query] = {}
        self._columns: dict[tuple[int, int], int] = {}
        self._add_subqueries()
        targets = [t for t in node.nodes("targetList") if t.text("resjunk") != "true"]
        self.targets = [self.size(target) for target in targets]
        self._add_expressions(node)
        self._check()

    def _add_subqueries(self) -> None:
        for name, cte in self.common_tables.items():
            self._planned[name] = self._inner(cte.node("ctequery"))
            if not _is_inlined(cte):
                self._count(self._planned[name])
        for number, entry in enumerate(self.entries, 1):
            if (subquery := entry.node("subquery")) is not None:
                self._subqueries[number] = self._inner(subquery)
                self._count(self._subqueries[number])
            elif entry.number("rtekind") == _CTE and (inlined := self._inlined(entry)):
                self._count(inlined)

    def _add_expressions(self, node: Node) -> None:
        for name, child in node.children():
            if name not in {"cteList", "rtable"}:
                self.nodes += self.size(child)
        for entry in self.entries:
            for name, child in entry.children():
                if name not in {"subquery", "joinaliasvars"}:
                    self.nodes += self.size(child)

    def size(self, node: Node) -> int:
        """Return the number of nodes of an expression after columns are put in place."""
        total = 0
        stack = [node]
        while stack:
            found = stack.pop()
            total += 1
            if found.label == "VAR":
                total += self._column(found)
            elif found.label == "QUERY":  # of a SubLink
                total += self._sublink(found)
            else:
                stack.extend(child for _, child in found.children())
            if total > MAX_NODES:
                raise TooLargeError(f"expressions of more than {MAX_NODES} nodes")
        return total

    def _sublink(self, node: Node) -> int:
        if id(node) not in self._inner_queries:
            self._inner_queries[id(node)] = self._inner(node)
            self._count(self._inner_queries[id(node)])
        return self._inner_queries[id(node)].nodes

    def _column(self, var: Node) -> int:
        """Return the size of what a column stands for."""
        level = var.number("varlevelsup")
        if level >= len(self.queries):
            raise UnreadableTreeError("a column of a query that is not there")
        query = self.queries[-1 - level]
        return query.column(var.number("varno"), var.number("varattno"))

    def column(self, number: int, attribute: int) -> int:
        """Return the size of one column of a table, or of the whole row for the attribute 0."""
        key = (number, attribute)
        if key not in self._columns:
            self._columns[key] = 0
            self._columns[key] = self._column_size(number, attribute)
        return self._columns[key]

    def _column_size(self, number: int, attribute: int) -> int:
        if not 0 < number <= len(self.entries):
            return 0
        entry = self.entries[number - 1]
        kind = entry.number("rtekind")
        if kind in {_JOIN, _GROUP}:
            columns = entry.nodes("joinaliasvars" if kind == _JOIN else "groupexprs")
            chosen = columns[attribute - 1 : attribute] if attribute > 0 else columns
            return sum(map(self.size, chosen))
        planned = self._subqueries.get(number)
        if planned is None and kind == _CTE:
            planned = self._inlined(entry)
        if planned is None or attribute < 0:
            return 0
        return sum(planned.targets[attribute - 1 : attribute] if attribute else planned.targets)

    def _inlined(self, entry: Node) -> _Query | None:
        """Return the query of a CTE that the planner puts in place of a reference to it."""
        level, name = entry.number("ctelevelsup"), entry.text("ctename")
        if level >= len(self.queries):
            raise UnreadableTreeError("a CTE of a query that is not there")
        query = self.queries[-1 - level]
        cte = query.common_tables.get(name)
        if cte is None or not _is_inlined(cte):
            return None
        return query._planned.get(name)

    def _inner(self, node: Node | None) -> _Query:
        if node is None or node.label != "QUERY":
            raise UnreadableTreeError("a subquery that is no query")
        return _Query(node, self.queries)

    def _count(self, inner: _Query) -> None:
        self.tables += inner.tables
        self.nodes += inner.nodes
        self._check()

    def _check(self) -> None:
        if self.tables > MAX_TABLES:
            raise TooLargeError(f"more than {MAX_TABLES} tables and subqueries")
        if self.nodes > MAX_NODES:
            raise TooLargeError(f"expressions of more than {MAX_NODES} nodes")


def _is_inlined(cte: Node) -> bool:
    if cte.text("cterecursive") == "true":
        return False
    materialized = cte.number("ctematerialized")
    return materialized == _NEVER or (materialized == _DEFAULT and cte.number("cterefcount") == 1)


def check(queries: list[Node]) -> None:
    """Check what queries unfold to.

    Raises:
        TooLargeError: It is too much to plan.
    """
    for query in queries:
        _Query(query, ())
