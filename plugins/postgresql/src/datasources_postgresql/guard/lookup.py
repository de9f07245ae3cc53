"""Questions of the catalog about functions, operators, types and relations, by object id.

They run under the search path of this package (`reading._OWN_PATH`), so that no name in them can mean
anything but PostgreSQL's own. Rows of functions, operators and types begin with the object's id and
the transaction that wrote the row, by which `evidence.py` sees that an object was replaced.
"""

from __future__ import annotations

# A change of the catalog is seen when its transaction has ended, and that changes the snapshot: it
# tells which transactions have ended, of every database of the server. While it is the same, no row
# has changed. On a standby it does not list them (GetSnapshotData in storage/ipc/procarray.c).
SNAPSHOT = b"""(
    SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text WHERE NOT pg_catalog.pg_is_in_recovery())
"""

# Functions of PostgreSQL's own: nothing of them can be another's.
SYSTEM_FUNCTIONS = b"""
SELECT p.oid, p.xmin::text, 'pg_catalog', p.proname, p.provolatile::text,
    p.proargtypes[0] IN (2275, 2281) AND (
        EXISTS (SELECT FROM pg_catalog.pg_type t WHERE p.oid IN (t.typinput, t.typreceive)))
    OR EXISTS (SELECT FROM pg_catalog.pg_language l WHERE p.oid = l.lanvalidator),
    p.prorettype = 2281 OR 2281 = ANY (p.proargtypes)
FROM pg_catalog.pg_proc p
WHERE p.oid = ANY (%s::pg_catalog.oid[])
"""

# 2275 and 2281 are the types cstring and internal. A function that takes or returns `internal` can be
# called by the server alone. Types of results: those of OUT parameters and of columns, too.
USER_FUNCTIONS = b"""
SELECT p.oid, p.xmin::text, n.nspname, p.proname, p.provolatile::text,
    EXISTS (SELECT FROM pg_catalog.pg_type t WHERE p.oid IN (t.typinput, t.typreceive))
        OR EXISTS (SELECT FROM pg_catalog.pg_language l WHERE p.oid = l.lanvalidator),
    p.prosupport::pg_catalog.oid,
    p.pronargs,
    p.proargdefaults::text,
    p.prosqlbody::text,
    CASE WHEN p.proallargtypes IS NULL THEN ARRAY[p.prorettype] ELSE ARRAY(
        SELECT a.type
        FROM ROWS FROM (
            pg_catalog.unnest(p.proallargtypes), pg_catalog.unnest(p.proargmodes)) AS a(type, mode)
        WHERE a.mode IN ('o', 'b', 't')) END,
    EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
            AND d.deptype = 'e'),
    p.prorettype = 2281 OR 2281 = ANY (p.proargtypes),
    l.lanname IN ('c', 'internal'),
    CASE WHEN a.aggfnoid IS NOT NULL THEN ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
        a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]
        ::pg_catalog.oid[] END,
    a.aggsortop,
    ARRAY[CASE WHEN a.agginitval IS NOT NULL THEN a.aggtranstype END,
        CASE WHEN a.aggminitval IS NOT NULL THEN a.aggmtranstype END]
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
WHERE p.oid = ANY (%s::pg_catalog.oid[])
"""

# For functions of libraries: the functions that are the same code under another name.
SAME_CODE = b"""
SELECT p.oid, same.oid < 16384, same.proname, same.provolatile::text
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_proc same ON same.prosrc = p.prosrc AND same.oid <> p.oid
    AND pg_catalog.regexp_replace(coalesce(same.probin, ''), '^.*/|\\.so$', '', 'g')
        = pg_catalog.regexp_replace(coalesce(p.probin, ''), '^.*/|\\.so$', '', 'g')
WHERE p.oid = ANY (%s::pg_catalog.oid[])
UNION ALL
SELECT p.oid, false, p.prosrc, p.provolatile::text
FROM pg_catalog.pg_proc p
WHERE p.oid = ANY (%s::pg_catalog.oid[])
"""

# The types of a function's arguments: as SQL writes them, and with the names of the catalog.
SIGNATURES = b"""
SELECT p.oid, ARRAY(
        SELECT pg_catalog.format_type(a.type, NULL)
        FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS a(type, position)
        ORDER BY a.position),
    ARRAY(
        SELECT t.typname::text
        FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS a(type, position)
        JOIN pg_catalog.pg_type t ON t.oid = a.type
        ORDER BY a.position)
FROM pg_catalog.pg_proc p
WHERE p.oid = ANY (%s::pg_catalog.oid[])
"""

OPERATORS = b"""
SELECT o.oid, o.xmin::text, o.oprcode::pg_catalog.oid, o.oprrest::pg_catalog.oid,
    o.oprjoin::pg_catalog.oid, o.oprnegate, o.oprcom
FROM pg_catalog.pg_operator o
WHERE o.oid = ANY (%s::pg_catalog.oid[])
"""

# The families in which operators are, and those of the default operator classes of types, or of what
# types become by a cast without a function (GetDefaultOpClass in commands/indexcmds.c).
# A family that is not PostgreSQL's own gets an operator that is by an index or a partition key, whose
# families `RELATIONS` tells, or if the server finds it first: see `FAMILIES_FOUND_FIRST`.
# Of each family, the members that are not PostgreSQL's own: support functions and operators.
FAMILIES = b"""
SELECT f.family, member.*
FROM (
    SELECT ao.amopfamily
    FROM pg_catalog.pg_amop ao
    WHERE ao.amopopr = ANY (%s::pg_catalog.oid[])
        AND (ao.amopopr >= 16384 OR ao.amopfamily < 16384)
  UNION
    SELECT opc.opcfamily
    FROM pg_catalog.pg_opclass opc
    WHERE opc.opcdefault AND (opc.opcintype = ANY (%s::pg_catalog.oid[]) OR opc.opcintype IN (
        SELECT c.casttarget FROM pg_catalog.pg_cast c
        WHERE c.castsource = ANY (%s::pg_catalog.oid[]) AND c.castmethod = 'b'))
  UNION
    SELECT pg_catalog.unnest(%s::pg_catalog.oid[])) AS f(family)
LEFT JOIN LATERAL (
    SELECT ap.oid, ap.xmin::text, true, ap.amproc::pg_catalog.oid
    FROM pg_catalog.pg_amproc ap
    WHERE ap.amprocfamily = f.family AND ap.oid >= 16384
  UNION ALL
    SELECT ao.oid, ao.xmin::text, false, ao.amopopr
    FROM pg_catalog.pg_amop ao
    WHERE ao.amopfamily = f.family AND ao.oid >= 16384
) AS member(oid, writer, is_function, called) ON true
"""

# The families that the server finds for types and operators of PostgreSQL's own, though somebody else
# has made them. A type has none of its own in PostgreSQL, or that of another type. An operator stands
# for less, greater or equal in no family of PostgreSQL's own. From several families the server takes
# the one of the lowest id, which is PostgreSQL's (get_ordering_op_properties and
# get_op_hash_functions in utils/cache/lsyscache.c; the index of pg_amop has the family in its key).
# Sorting and hashing use the access methods btree (403) and hash (405). btree looks
# for 1 or 5 (less and greater) to sort and for 3 to compare, hash for 1; a comparison of rows, which
# uses 2 and 4 too, has its families in the tree. A family of PostgreSQL's own counts if somebody
# else has added to it.
FAMILIES_FOUND_FIRST = b"""
SELECT opc.opcfamily
FROM pg_catalog.pg_opclass opc
WHERE opc.oid >= 16384 AND opc.opcdefault AND opc.opcmethod IN (403, 405)
    AND (opc.opcintype < 16384 OR opc.opcintype IN (
        SELECT c.casttarget FROM pg_catalog.pg_cast c
        WHERE c.oid >= 16384 AND c.castsource < 16384 AND c.castmethod = 'b'))
UNION ALL
SELECT ao.amopfamily
FROM pg_catalog.pg_amop ao
WHERE ao.oid >= 16384 AND ao.amopopr < 16384 AND ao.amopmethod IN (403, 405)
    AND ao.amopstrategy IN (1, 3, 5) AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_amop first
        WHERE first.amopopr = ao.amopopr AND first.amopmethod = ao.amopmethod
            AND first.amopfamily < 16384
            AND (first.amopstrategy = ao.amopstrategy
                OR first.amopstrategy IN (1, 5) AND ao.amopstrategy IN (1, 5)))
UNION ALL
SELECT ao.amopfamily
FROM pg_catalog.pg_amop ao
WHERE ao.oid >= 16384 AND ao.amopfamily < 16384
UNION ALL
SELECT ap.amprocfamily
FROM pg_catalog.pg_amproc ap
WHERE ap.oid >= 16384 AND ap.amprocfamily < 16384
"""

# `parts` are the types that a value consists of: of elements, attributes, bounds. A range compares
# its bounds by the operator class that it names.
TYPES = b"""
SELECT t.oid, t.xmin::text, t.typbasetype, t.typinput::pg_catalog.oid,
    ARRAY[t.typoutput::pg_catalog.oid, t.typsend::pg_catalog.oid,
        t.typsubscript::pg_catalog.oid],
    ARRAY(
        SELECT t.typelem WHERE t.typelem <> 0
      UNION ALL
        SELECT a.atttypid FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL
        SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
      UNION ALL
        SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid),
    ARRAY(
        SELECT function
        FROM pg_catalog.pg_range r,
            pg_catalog.unnest(ARRAY[r.rngcanonical, r.rngsubdiff]::pg_catalog.oid[]) AS function
        WHERE r.rngtypid = t.oid AND function <> 0),
    ARRAY(SELECT c.conbin::text FROM pg_catalog.pg_constraint c
        WHERE c.contypid = t.oid AND c.conbin IS NOT NULL),
    ARRAY(SELECT ARRAY[c.oid::text, c.xmin::text] FROM pg_catalog.pg_constraint c
        WHERE c.contypid = t.oid AND c.conbin IS NOT NULL),
    pg_catalog.format_type(t.oid, NULL),
    ARRAY(
        SELECT opc.opcfamily
        FROM pg_catalog.pg_range r JOIN pg_catalog.pg_opclass opc ON opc.oid = r.rngsubopc
        WHERE r.rngtypid = t.oid)
FROM pg_catalog.pg_type t
WHERE t.oid = ANY (%s::pg_catalog.oid[])
"""

# The casts of the database's own between types: the functions that make JSON look for one to json,
# and `||` for one to text.
CASTS = b"""
SELECT c.castfunc::pg_catalog.oid
FROM pg_catalog.pg_cast c
WHERE c.castsource = ANY (%s::pg_catalog.oid[]) AND c.casttarget = ANY (%s::pg_catalog.oid[])
    AND c.oid >= 16384 AND c.castfunc <> 0
"""

# The types of the database's own that bring more along, inside a value of unknown type, than output
# functions of PostgreSQL: a cast to json, which does not count for rows (json_categorize_type in
# utils/adt/jsonfuncs.c), a default operator class, or output functions of their own.
TYPES_WITH_MORE = b"""
SELECT c.castsource
FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t ON t.oid = c.castsource
WHERE c.oid >= 16384 AND c.casttarget = 114 AND t.typtype <> 'c'
UNION
SELECT opc.opcintype FROM pg_catalog.pg_opclass opc WHERE opc.oid >= 16384 AND opc.opcdefault
UNION
SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngsubopc >= 16384
UNION
SELECT t.oid FROM pg_catalog.pg_type t
WHERE t.typoutput::pg_catalog.oid >= 16384 OR t.typsend::pg_catalog.oid >= 16384
"""

# True if `RELATIONS` may have rows for tables.
HAS_MORE = b"""
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
        WHERE c.oid = ANY (%s::pg_catalog.oid[]) AND (c.relkind = 'p' OR c.relhassubclass))
    OR EXISTS (SELECT FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = ANY (%s::pg_catalog.oid[]) AND a.attgenerated = 'v')
    OR EXISTS (SELECT FROM pg_catalog.pg_opclass opc WHERE opc.oid >= 16384)
"""

# Of tables and what they consist of: the expressions of partition keys and of virtual columns, and
# the families of the database's own operator classes in partition keys and indexes.
RELATIONS = b"""
WITH RECURSIVE tables(oid) AS (
    SELECT oid FROM pg_catalog.unnest(%s::pg_catalog.oid[]) AS given(oid)
  UNION
    SELECT i.inhrelid FROM tables JOIN pg_catalog.pg_inherits i ON i.inhparent = tables.oid)
SELECT p.partexprs::text, NULL::pg_catalog.oid
FROM tables JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = tables.oid
WHERE p.partexprs IS NOT NULL
UNION ALL
SELECT d.adbin::text, NULL
FROM tables
JOIN pg_catalog.pg_attribute a ON a.attrelid = tables.oid AND a.attgenerated = 'v'
JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT NULL, opc.opcfamily
FROM (
    SELECT class FROM tables
    JOIN pg_catalog.pg_index i ON i.indrelid = tables.oid, pg_catalog.unnest(i.indclass) AS class
  UNION ALL
    SELECT class FROM tables
    JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = tables.oid,
        pg_catalog.unnest(p.partclass) AS class) AS used
JOIN pg_catalog.pg_opclass opc ON opc.oid = used.class
WHERE opc.oid >= 16384
"""

# How many tables, partitions and inheritance children planning has for given tables.
COUNT_OF_CHILDREN = b"""
WITH RECURSIVE tables(oid) AS (
    SELECT oid FROM pg_catalog.unnest(%s::pg_catalog.oid[]) AS given(oid)
  UNION
    SELECT i.inhrelid FROM tables JOIN pg_catalog.pg_inherits i ON i.inhparent = tables.oid)
SELECT pg_catalog.count(*) FROM tables
"""
