"""Notice that what was analysed is not what runs: catalog rows that came, went or changed between.

The locks of a transaction keep tables, views and policies as they were analysed. Nothing locks a
function, an operator, a cast, a check or an operator family, and a new one may match a statement
better than the old one did. So the rows of all that the names in the text may mean are read before
the analysis, and those that the tree leads to while it is followed (`Closure.rows`); the same question
must have the same answer right before the statement runs, and once more after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from datasources import DataFetchError
from datasources_postgresql.guard import lookup
from datasources_postgresql.guard.closure import Closure, Execute
from datasources_postgresql.guard.text import Statement

if TYPE_CHECKING:
    from datasources_postgresql.reading import Transaction

# The transaction that wrote a row is another one after any change of it. Relations are on the list
# for their names alone: one in a schema of the search path may hide another one. Views are there from
# all schemas. A plain table has no partitions, children or virtual columns. The rows that are called
# class are those from which `lookup.FAMILIES_FOUND_FIRST` follows, with the casts; a changed operator
# is one of PostgreSQL's own with something that is not.
_NAMED = (
    b"SELECT 'snapshot', 0::pg_catalog.oid, "
    + lookup.SNAPSHOT
    + b"""UNION ALL
SELECT 'function', p.oid, p.xmin::text FROM pg_catalog.pg_proc p
WHERE p.proname = ANY (%s::text[]) AND p.oid >= 16384
UNION ALL
SELECT 'operator', o.oid, o.xmin::text FROM pg_catalog.pg_operator o
WHERE o.oprname = ANY (%s::text[]) AND o.oid >= 16384
UNION ALL
SELECT 'type', t.oid, t.xmin::text FROM pg_catalog.pg_type t
WHERE t.typname = ANY (%s::text[]) AND t.oid >= 16384
    AND t.typnamespace IN (
        SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY (%s::text[]))
UNION ALL
SELECT 'cast', c.oid, c.xmin::text FROM pg_catalog.pg_cast c WHERE c.oid >= 16384
UNION ALL
SELECT CASE WHEN c.relkind = 'v' AND c.oid >= 16384 THEN 'view'
    WHEN c.relkind <> 'r' OR c.relhassubclass OR EXISTS (
        SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v')
    THEN 'relation' ELSE 'plain table' END, c.oid, ''
FROM pg_catalog.pg_class c
WHERE c.relname = ANY (%s::text[]) AND (c.relkind = 'v' AND c.oid >= 16384 OR c.relnamespace IN (
    SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY (%s::text[])))
UNION ALL
SELECT 'changed operator', o.oid, o.xmin::text FROM pg_catalog.pg_operator o
WHERE o.oid < 16384 AND (o.oprnegate >= 16384 OR o.oprcom >= 16384
    OR o.oprrest::pg_catalog.oid >= 16384 OR o.oprjoin::pg_catalog.oid >= 16384)
UNION ALL
SELECT CASE WHEN opc.opcdefault AND opc.opcmethod IN (403, 405) THEN 'class' ELSE 'other class' END,
    opc.oid, opc.xmin::text
FROM pg_catalog.pg_opclass opc WHERE opc.oid >= 16384
UNION ALL
SELECT 'class', ao.oid, ao.xmin::text FROM pg_catalog.pg_amop ao
WHERE ao.oid >= 16384 AND (ao.amopfamily < 16384 OR ao.amopopr < 16384)
UNION ALL
SELECT 'class', ap.oid, ap.xmin::text FROM pg_catalog.pg_amproc ap
WHERE ap.oid >= 16384 AND ap.amprocfamily < 16384
"""
)
_BY_ID = b"""
UNION ALL
SELECT 'function', p.oid, p.xmin::text FROM pg_catalog.pg_proc p
WHERE p.oid = ANY (%s::pg_catalog.oid[])
UNION ALL
SELECT 'operator', o.oid, o.xmin::text FROM pg_catalog.pg_operator o
WHERE o.oid = ANY (%s::pg_catalog.oid[])
UNION ALL
SELECT 'type', t.oid, t.xmin::text FROM pg_catalog.pg_type t
WHERE t.oid = ANY (%s::pg_catalog.oid[])
UNION ALL
SELECT 'check', c.oid, c.xmin::text FROM pg_catalog.pg_constraint c
WHERE c.contypid = ANY (%s::pg_catalog.oid[]) AND c.conbin IS NOT NULL
UNION ALL
SELECT 'member', ap.oid, ap.xmin::text FROM pg_catalog.pg_amproc ap
WHERE ap.amprocfamily = ANY (%s::pg_catalog.oid[]) AND ap.oid >= 16384
UNION ALL
SELECT 'member', ao.oid, ao.xmin::text FROM pg_catalog.pg_amop ao
WHERE ao.amopfamily = ANY (%s::pg_catalog.oid[]) AND ao.oid >= 16384
"""
_ALL = _NAMED + _BY_ID


@dataclass(slots=True)
class Evidence:
    """The catalog rows on which the permission to run a statement rests.

    Args:
        names: The identifiers in the statement's text.
        operators: The operators in it, and those that it implies.
        schemas: The schemas on the search path.
    """

    names: Sequence[str]
    operators: Sequence[str]
    schemas: Sequence[str]
    rows: set[tuple[str, int, str]] = field(default_factory=set)
    _closure: Closure | None = None
    _snapshot: str | None = None
    """The snapshot of the last time that the rows were read; None on a standby."""

    families: list[int] = field(default_factory=list)
    """The operator families that count for every statement, whatever it calls."""

    def oids(self, catalog: str) -> list[int]:
        """Return the ids of the rows of one kind."""
        return sorted(oid for name, oid, _ in self.rows if name == catalog)

    def plain_tables(self) -> list[int]:
        """Return the ids of the tables that bring nothing more along than their columns."""
        if self.oids("class") or self.oids("other class"):
            return []  # an index may use one of them
        return self.oids("plain table")

    @classmethod
    async def before_analysis(
        cls, execute: Execute, statement: Statement, schemas: Sequence[str]
    ) -> Evidence:
        """Read the rows of all that the names in a statement may mean."""
        evidence = cls(sorted(statement.names), sorted(statement.operators), schemas)
        await evidence._read_anew(execute)
        return evidence

    async def refresh(self, transaction: Transaction, then: Literal["own", "tree"]) -> None:
        """Read the rows anew, unless nothing has changed: the server may have waited for a lock.

        Args:
            transaction: The transaction of the statement.
            then: The settings that are needed next.
        """
        if not self._is_unchanged(await transaction.snapshot(then)):
            await self._read_anew(transaction.execute)

    def with_closure(self, closure: Closure) -> Evidence:
        """Return the evidence with the rows that were read while the statement was analysed."""
        return replace(self, rows=self.rows | closure.rows, _closure=closure)

    async def check(self, execute: Execute, snapshot: str | None) -> None:
        """Read the rows of the evidence again, unless nothing has changed, and compare.

        Args:
            execute: Runs a question of this package.
            snapshot: The server's snapshot of this moment.

        Raises:
            DataFetchError: A row has changed, or others have come. Nothing must be delivered.
        """
        if self._is_unchanged(snapshot):
            return
        if await self._read(execute) != self.rows:
            raise DataFetchError(
                "a function, operator, cast, type or table that the query uses was replaced or added "
                "meanwhile; run it again"
            )

    def _is_unchanged(self, snapshot: str | None) -> bool:
        """Return True if no transaction has ended since the rows were read."""
        return snapshot is not None and snapshot == self._snapshot

    async def _read_anew(self, execute: Execute) -> None:
        self.rows = await self._read(execute)
        self.families = []
        if self.oids("class"):
            rows = await execute(lookup.FAMILIES_FOUND_FIRST, [])
            self.families = sorted({family for (family,) in rows})

    async def _read(self, execute: Execute) -> set[tuple[str, int, str]]:
        names, schemas = self.names, self.schemas
        parameters: list[Any] = [names, self.operators, names, schemas, names, schemas]
        query = _NAMED
        if self._closure is not None:
            query = _ALL
            types, families = self._closure.oids("type"), sorted(self._closure.families)
            parameters += [self._closure.oids("function"), self._closure.oids("operator")]
            parameters += [types, types, families, families]
        (_, _, self._snapshot), *rows = sorted(
            await execute(query, parameters), key=lambda row: row[0] != "snapshot"
        )
        return {(catalog, oid, xmin) for catalog, oid, xmin in rows}
