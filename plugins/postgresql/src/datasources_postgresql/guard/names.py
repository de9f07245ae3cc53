"""Tell from its names alone that a query calls only functions that change nothing.

This asks less of the server than its analysis does, and sees less: it is for servers whose analysis
cannot be read, and for hosts whose database should not log each tree. An answer of 'clear' must be
certain. So a name counts for everything of that name in any schema, and these are never clear: views,
tables with row security, types of the database's own and tables with columns of them, and functions
and operators of its own that may bring others along. A cast that is not explicit, and an operator
family, make every query unclear if their function is volatile.
"""

from __future__ import annotations

from datasources_postgresql.guard.closure import Execute
from datasources_postgresql.guard.labels import CONVERTING, HARMLESS
from datasources_postgresql.guard.policy import FunctionPolicy
from datasources_postgresql.guard.text import Statement

_TYPE_AS_TEXT = ("pg_input_is_valid", "pg_input_error_info")

# The first thing of each kind that makes a query unclear. 2275 is the type cstring, of input functions.
_UNCLEAR = b"""
SELECT pg_catalog.concat('function ', n.nspname, '.', p.proname)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = ANY (%s::text[]) AND p.proname <> ALL (%s::text[])
    AND pg_catalog.concat(n.nspname, '.', p.proname) <> ALL (%s::text[])
    AND (p.provolatile = 'v' AND (p.oid >= 16384 OR p.proname <> ALL (%s::text[]))
        OR p.proname = ANY (%s::text[])
        OR p.proargtypes[0] = 2275
        OR p.oid >= 16384 AND (p.prokind <> 'f' OR p.prosqlbody IS NOT NULL
            OR p.proargdefaults IS NOT NULL OR p.proallargtypes IS NOT NULL
            OR p.prosupport <> 0 OR p.probin IS NOT NULL
            OR p.prolang = 12 OR p.prorettype >= 16384 OR EXISTS (
                SELECT FROM pg_catalog.unnest(p.proargtypes) AS a(type) WHERE a.type >= 16384)))
UNION ALL
SELECT pg_catalog.concat('operator ', o.oprname)
FROM pg_catalog.pg_operator o
LEFT JOIN pg_catalog.pg_operator negator ON negator.oid = o.oprnegate
JOIN pg_catalog.pg_proc p ON p.oid IN (o.oprcode, negator.oprcode)
WHERE o.oprname = ANY (%s::text[]) AND o.oid >= 16384
    AND (p.provolatile = 'v' OR p.prosqlbody IS NOT NULL)
UNION ALL
SELECT pg_catalog.concat('type ', t.typname)
FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
WHERE t.typname = ANY (%s::text[]) AND t.oid >= 16384 AND coalesce(c.relkind, 'c') = 'c'
UNION ALL
SELECT pg_catalog.concat('relation ', c.relname)
FROM pg_catalog.pg_class c
WHERE c.relname = ANY (%s::text[]) AND c.oid >= 16384
    AND (c.relkind = 'v' OR c.relrowsecurity OR EXISTS (
        SELECT FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND (a.atttypid >= 16384 OR a.attgenerated = 'v')))
UNION ALL
SELECT pg_catalog.concat('cast to ', pg_catalog.format_type(c.casttarget, NULL))
FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
WHERE c.oid >= 16384 AND c.castsource < 16384 AND c.casttarget < 16384 AND p.provolatile = 'v'
    AND (c.castcontext <> 'e' OR t.typname = ANY (%s::text[]))
UNION ALL
SELECT pg_catalog.concat('operator family of ', pg_catalog.format_type(ap.amproclefttype, NULL))
FROM pg_catalog.pg_amproc ap JOIN pg_catalog.pg_proc p ON p.oid = ap.amproc
WHERE ap.oid >= 16384 AND p.provolatile = 'v' AND p.prorettype <> 2281
    AND NOT 2281 = ANY (p.proargtypes)
UNION ALL
SELECT 'encoding' WHERE %s AND pg_catalog.getdatabaseencoding() <> 'UTF8'
LIMIT 1
"""


async def unclear(execute: Execute, statement: Statement, policy: FunctionPolicy) -> str | None:
    """Return the first thing in a query that may call more than its name tells; None if all is clear."""
    names = sorted(statement.names)
    denied = [*policy.denied_names, *CONVERTING, *_TYPE_AS_TEXT]
    allowed = sorted(policy.allowed_names)
    parameters = [
        *(names, allowed, allowed, sorted(HARMLESS), denied),
        *(sorted(statement.operators), names, names, names),
        any(not name.isascii() for name in names),
    ]
    rows = await execute(_UNCLEAR, parameters)
    return str(rows[0][0]) if rows else None
