"""Bound what planning a query tree takes: no timeout ends it while its memory grows.

The planner puts the expressions of a subquery, a view or a CTE that is not materialized in place of
each reference to its columns. So `SELECT x + x AS x FROM (…)` in itself twenty times is a million
additions. The tree has all that this depends on, so its size after that is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator

from datasources_postgresql.guard.tree import Node, UnreadableTreeError

MAX_NODES = 300_000
"""Nodes of expressions after subqueries are put in place. Planning takes about 1 kB for each."""
MAX_TABLES = 2_000
"""Tables, subqueries and functions that are planned. Planning takes about 140 kB for each. The text
alone may have 1,000 (`bounds.MAX_PARTS`), and its views as many."""
MAX_COPIES = 4_000_000
"""Copies of nodes that putting subqueries in place makes. Each time, the planner copies all expressions
of the query around it, of about 90 bytes a node, and keeps the copies until it ends."""
_MAX_QUERIES = 100  # queries within each other
# RTEKind in nodes/parsenodes.h
_SUBQUERY, _JOIN, _FUNCTION, _VALUES, _CTE, _GROUP = 1, 2, 3, 5, 6, 9
_NEVER, _DEFAULT = 2, 0  # CTEMaterialize


class TooLargeError(Exception):
    """A query unfolds to more than can be planned."""


class Query:
    """A query of a tree, within others, with the sizes of its parts.

    Args:
        node: The query.
        outer: The queries that it is in, the nearest last.
    """

    def __init__(self, node: Node, outer: tuple[Query, ...]) -> None:
        if len(outer) > _MAX_QUERIES:
            raise TooLargeError(f"more than {_MAX_QUERIES} queries within each other")
        self.queries = (*outer, self)
        self.entries = node.nodes("rtable")
        self.common_tables = {cte.text("ctename"): cte for cte in node.nodes("cteList")}
        self.tables = len(self.entries)
        self.node = node
        self.nodes = 0
        self.sublinks: dict[int, Query] = {}
        """The queries of SubLinks, by the identity of their nodes."""
        self._planned: dict[str, Query] = {}
        self._subqueries: dict[int, Query] = {}
        self._columns: dict[tuple[int, int], int] = {}
        self._add_subqueries()
        self.targets = [t for t in node.nodes("targetList") if t.text("resjunk") != "true"]
        self._add_expressions()
        self._check()
        self._check_copies()

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

    def _add_expressions(self) -> None:
        for expression in self.expressions():
            self.nodes += self.size(expression)
        for entry in self.entries:
            self.nodes += len(entry.nodes("joinaliasvars"))

    def expressions(self) -> Iterator[Node]:
        """Yield the expressions of the query, but those of its subqueries."""
        for name, child in self.node.children:
            if name not in {"cteList", "rtable"}:
                yield child
        for entry in self.entries:
            for name, child in entry.children:
                if name not in {"subquery", "joinaliasvars"}:
                    yield child

    def inner_queries(self) -> Iterator[Query]:
        """Yield the queries directly in this one."""
        yield from self._planned.values()
        yield from self._subqueries.values()
        yield from self.sublinks.values()

    def size(self, node: Node) -> int:
        """Return the number of nodes of an expression after columns are put in place."""
        total = 0
        stack = [node]
        while stack:
            part = stack.pop()
            total += 1
            if part.label == "VAR":
                total += self._column(part)
            elif part.label == "QUERY":  # of a SubLink
                total += self._sublink(part)
            else:
                stack.extend(child for _, child in part.children)
            if total > MAX_NODES:
                raise TooLargeError(f"expressions of more than {MAX_NODES} nodes")
        return total

    def _sublink(self, node: Node) -> int:
        if id(node) not in self.sublinks:
            self.sublinks[id(node)] = self._inner(node)
            self._count(self.sublinks[id(node)])
        return self.sublinks[id(node)].nodes

    def _column(self, var: Node) -> int:
        """Return the size of what a column stands for."""
        return self.query_of(var).column(var.number("varno"), var.number("varattno"))

    def query_of(self, var: Node) -> Query:
        """Return the query, this or one around it, that a column belongs to."""
        level = var.number("varlevelsup")
        if level >= len(self.queries):
            raise UnreadableTreeError("a column of a query that is not there")
        return self.queries[-1 - level]

    def column(self, number: int, attribute: int) -> int:
        """Return the size of one column of a table, or of the whole row for the attribute 0."""
        key = (number, attribute)
        if key not in self._columns:
            self._columns[key] = 0
            self._columns[key] = sum(
                query.size(node) for query, node in self.sources(number, attribute)
            )
        return self._columns[key]

    def sources(self, number: int, attribute: int) -> Iterator[tuple[Query, Node]]:
        """Yield the expressions that the planner may put in place of a column, and their queries.

        There are several for a column of a UNION, which stands for one of each branch, and for a
        whole row. There is none for a column of a table.
        """
        if attribute < 0 or not 0 < number <= len(self.entries):
            return
        entry = self.entries[number - 1]
        kind = entry.number("rtekind")
        if kind in {_JOIN, _GROUP}:
            columns = entry.nodes("joinaliasvars" if kind == _JOIN else "groupexprs")
            yield from ((self, node) for node in _chosen(columns, attribute))
        elif kind == _VALUES:
            rows = entry["values_lists"]
            for row in rows if isinstance(rows, list) else ():
                nodes = [n for n in row if isinstance(n, Node)] if isinstance(row, list) else []
                yield from ((self, node) for node in _chosen(nodes, attribute))
        elif kind == _FUNCTION:
            yield from ((self, node) for node in entry.nodes("functions"))
        else:
            planned = self._subqueries.get(number)
            if planned is None and kind == _CTE:
                planned = self._inlined(entry)
            if planned is not None:
                for branch in planned.branches():
                    yield from ((branch, node) for node in _chosen(branch.targets, attribute))

    def branches(self) -> Iterator[Query]:
        """Yield this query, or the branches of a UNION or the like."""
        if self.node["setOperations"] is None:
            yield self
            return
        for subquery in self._subqueries.values():
            yield from subquery.branches()

    def _inlined(self, entry: Node) -> Query | None:
        """Return the query of a CTE that the planner puts in place of a reference to it."""
        level, name = entry.number("ctelevelsup"), entry.text("ctename")
        if level >= len(self.queries):
            raise UnreadableTreeError("a CTE of a query that is not there")
        query = self.queries[-1 - level]
        cte = query.common_tables.get(name)
        if cte is None or not _is_inlined(cte):
            return None
        return query._planned.get(name)

    def _inner(self, node: Node | None) -> Query:
        if node is None or node.label != "QUERY":
            raise UnreadableTreeError("a subquery that is no query")
        return Query(node, self.queries)

    def _count(self, inner: Query) -> None:
        self.tables += inner.tables
        self.nodes += inner.nodes
        self._check()

    def _check(self) -> None:
        if self.tables > MAX_TABLES:
            raise TooLargeError(f"more than {MAX_TABLES} tables and subqueries")
        if self.nodes > MAX_NODES:
            raise TooLargeError(f"expressions of more than {MAX_NODES} nodes")

    def _check_copies(self) -> None:
        if self.node["setOperations"] is not None:
            return  # nothing but its branches would be copied
        moved = {_SUBQUERY, _FUNCTION, _VALUES, _CTE}
        count = sum(entry.number("rtekind") in moved for entry in self.entries)
        if self.nodes * count > MAX_COPIES:
            raise TooLargeError(f"{count} subqueries in a query of {self.nodes} nodes")


def _chosen(columns: list[Node], attribute: int) -> list[Node]:
    return columns[attribute - 1 : attribute] if attribute else columns


def _is_inlined(cte: Node) -> bool:
    if cte.text("cterecursive") == "true":
        return False
    materialized = cte.number("ctematerialized")
    return materialized == _NEVER or (materialized == _DEFAULT and cte.number("cterefcount") == 1)


def check(queries: list[Node]) -> list[Query]:
    """Check what queries unfold to, and return them with the sizes of their parts.

    Raises:
        TooLargeError: It is too much to plan.
    """
    return [Query(query, ()) for query in queries]
