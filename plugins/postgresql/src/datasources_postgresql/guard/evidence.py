"""Notice that what was analysed is not what runs: catalog rows that came, went or changed between.

The locks of a transaction keep tables, views and policies as they were analysed. Nothing locks a
function, an operator, a cast, a check or an operator family, and a new one may match a statement
better than the old one did. So their rows are read before the statement is analysed, by the names in
its text, and while it is analysed, by their ids (`Closure.rows`); the same question must have the
same answer right before the statement runs, and once more after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasources import DataFetchError
from datasources_postgresql.guard.closure import Closure, Execute
from datasources_postgresql.guard.text import Statement

# The transaction that wrote a row is another one after any change of it. Relations are on the list
# for their names alone: one in a schema of the search path may hide another one.
_ROWS = b"""
SELECT 'function', p.oid, p.xmin::text FROM pg_catalog.pg_proc p
WHERE p.oid = ANY (%s::pg_catalog.oid[]) OR p.proname = ANY (%s::text[]) AND p.oid >= 16384
UNION ALL
SELECT 'operator', o.oid, o.xmin::text FROM pg_catalog.pg_operator o
WHERE o.oid = ANY (%s::pg_catalog.oid[]) OR o.oprname = ANY (%s::text[]) AND o.oid >= 16384
UNION ALL
SELECT 'type', t.oid, t.xmin::text FROM pg_catalog.pg_type t
WHERE t.oid = ANY (%s::pg_catalog.oid[]) OR t.typname = ANY (%s::text[]) AND t.oid >= 16384
    AND t.typnamespace IN (
        SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY (%s::text[]))
UNION ALL
SELECT 'check', c.oid, c.xmin::text FROM pg_catalog.pg_constraint c
WHERE c.contypid = ANY (%s::pg_catalog.oid[]) AND c.conbin IS NOT NULL
UNION ALL
SELECT 'member', ap.oid, ap.xmin::text FROM pg_catalog.pg_amproc ap
WHERE ap.amprocfamily = ANY (%s::pg_catalog.oid[]) AND ap.oid >= 16384
UNION ALL
SELECT 'member', ao.oid, ao.xmin::text FROM pg_catalog.pg_amop ao
WHERE ao.amopfamily = ANY (%s::pg_catalog.oid[]) AND ao.oid >= 16384
UNION ALL
SELECT 'cast', c.oid, c.xmin::text FROM pg_catalog.pg_cast c WHERE c.oid >= 16384
UNION ALL
SELECT 'relation', c.oid, '' FROM pg_catalog.pg_class c
WHERE c.relname = ANY (%s::text[]) AND c.relnamespace IN (
    SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY (%s::text[]))
"""


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

    @classmethod
    async def before_analysis(
        cls, execute: Execute, statement: Statement, schemas: Sequence[str]
    ) -> Evidence:
        """Read the rows of all that the names in a statement may mean."""
        evidence = cls(sorted(statement.names), sorted(statement.operators), schemas)
        evidence.rows = await evidence._read(execute)
        return evidence

    def add(self, closure: Closure) -> None:
        """Add the rows that were read while the statement was analysed."""
        self._closure = closure
        self.rows |= closure.rows

    async def check(self, execute: Execute) -> None:
        """Read the rows again.

        Raises:
            DataFetchError: One has changed, or there are others. Nothing must be delivered.
        """
        if await self._read(execute) != self.rows:
            raise DataFetchError(
                "a function, operator, cast, type or table that the query uses was replaced or added "
                "meanwhile; run it again"
            )

    async def _read(self, execute: Execute) -> set[tuple[str, int, str]]:
        def oids(catalog: str) -> list[int]:
            return self._closure.oids(catalog) if self._closure else []

        types = oids("type")
        families = sorted(self._closure.families) if self._closure else []
        parameters: list[Any] = [
            *(oids("function"), self.names, oids("operator"), self.operators),
            *(types, self.names, self.schemas, types, families, families),
            *(self.names, self.schemas),
        ]
        return {(catalog, oid, xmin) for catalog, oid, xmin in await execute(_ROWS, parameters)}
