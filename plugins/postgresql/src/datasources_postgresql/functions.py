"""The second layer of read-only: look up every function that a statement would call.

A function is refused if it is denied, or volatile and neither harmless nor allowed; the labels STABLE
and IMMUTABLE are believed. If a name fits several functions, one that is refused is enough. Functions inside
views, row security policies, virtual columns, domain checks, aggregates, defaults of arguments and
SQL-standard function bodies are found in the parse trees that the catalog keeps of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from datasources import PolicyError
from datasources_postgresql.grammar import Statement
from datasources_postgresql.options import PostgreSQLOptions

# Volatile functions of PostgreSQL that change nothing.
HARMLESS = frozenset(
    """array_sample array_shuffle clock_timestamp current_query gen_random_uuid lo_get
    pg_blocking_pids pg_collation_actual_version pg_current_wal_flush_lsn
    pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_collation_actual_version
    pg_database_size pg_get_multixact_members pg_indexes_size pg_is_in_recovery
    pg_is_wal_replay_paused pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status
    pg_notification_queue_usage pg_partition_ancestors pg_partition_tree pg_prepared_xact
    pg_relation_size pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_table_size
    pg_tablespace_size pg_total_relation_size pg_xact_commit_timestamp pg_xact_status random
    random_normal timeofday txid_status uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4
    gen_random_bytes gen_salt normal_rand pg_stat_statements pg_stat_statements_info uuidv4
    uuidv7""".split()  # noqa: SIM905  # a list would be three times as long
)
# Functions that are not volatile, or not always, and yet run SQL given as text, call what checks
# the values of a type given as text, use up a transaction id, reach out of the database, or leave
# something in the session.
DENIED = frozenset(
    """connectby crosstab crosstab2 crosstab3 crosstab4 crosstabn cursor_to_xml
    cursor_to_xmlschema database_to_xml database_to_xml_and_xmlschema database_to_xmlschema
    dblink dblink_connect dblink_connect_u dblink_exec dblink_fetch dblink_get_result
    dblink_open dblink_send_query isn_weak pg_current_xact_id pg_input_error_info
    pg_input_is_valid query_to_xml query_to_xml_and_xmlschema query_to_xmlschema
    schema_to_xml schema_to_xml_and_xmlschema schema_to_xmlschema st_mapalgebra
    st_mapalgebraexpr st_mapalgebrafct st_mapalgebrafctngb table_to_xml
    table_to_xml_and_xmlschema table_to_xmlschema ts_rewrite ts_stat txid_current
    xpath_table""".split()  # noqa: SIM905  # a list would be three times as long
)

# Ids below 16384 are PostgreSQL's own (FirstNormalObjectId); its views are trusted. A 'type' is one
# that values may become, with what checks and converts them. A 'held' one is that of a column, whose
# values are there already: it matters what casts them to types of PostgreSQL's own, and, as text
# beside an array, a row or a range becomes another, what checks their parts.
FORBIDDEN = b"""
WITH RECURSIVE
asked AS MATERIALIZED (SELECT %s::pg_catalog.jsonb AS of),
path AS MATERIALIZED (SELECT pg_catalog.current_schemas(true) AS of),
named(kind, id) AS (
    SELECT 'relation', c.oid
    FROM asked, path,
        pg_catalog.jsonb_to_recordset(asked.of->'relations') AS r(schema text, name text)
        JOIN pg_catalog.pg_class c ON c.relname = r.name
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE CASE WHEN r.schema IS NULL THEN n.nspname = ANY (path.of) ELSE n.nspname = r.schema END
  UNION ALL
    SELECT 'function', p.oid
    FROM asked, path,
        pg_catalog.jsonb_to_recordset(asked.of->'functions')
            AS f(schema text, name text, arguments int)
        JOIN pg_catalog.pg_proc p ON p.proname = f.name
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE CASE WHEN f.schema IS NULL THEN n.nspname = ANY (path.of) ELSE n.nspname = f.schema END
        AND CASE WHEN f.arguments IS NULL THEN p.oid >= 16384
            ELSE f.arguments >= p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int
                AND (f.arguments <= p.pronargs OR p.provariadic <> 0) END
  UNION ALL
    SELECT 'function', p.oid
    FROM asked,
        pg_catalog.jsonb_array_elements_text(asked.of->'attributes') AS a(name)
        JOIN pg_catalog.pg_proc p ON p.proname = a.name
        JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
    WHERE p.pronargs - p.pronargdefaults <= 1
        AND (t.typtype IN ('c', 'd', 'p') OR p.provariadic <> 0)
  UNION ALL
    SELECT 'function', o.oprcode::pg_catalog.oid
    FROM asked,
        pg_catalog.jsonb_array_elements_text(asked.of->'operators') AS a(name)
        JOIN pg_catalog.pg_operator o ON o.oprname = a.name
    WHERE o.oid >= 16384
  UNION ALL
    SELECT 'type', t.oid
    FROM asked, path,
        pg_catalog.jsonb_to_recordset(asked.of->'types') AS y(schema text, name text)
        JOIN pg_catalog.pg_type t ON t.typname = y.name
        JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE t.oid >= 16384
        AND CASE WHEN y.schema IS NULL THEN n.nspname = ANY (path.of) ELSE n.nspname = y.schema END
  UNION ALL
    SELECT 'function', c.castfunc
    FROM pg_catalog.pg_cast c
    WHERE c.oid >= 16384 AND c.castcontext = 'i' AND c.castsource < 16384 AND c.casttarget < 16384
),
reached(kind, id) AS (
    SELECT * FROM named
  UNION
    SELECT CASE WHEN found[1] = 'relid' THEN 'relation' WHEN found[1] = 'held' THEN 'held'
            WHEN found[1] LIKE '%%typ%%' THEN 'type' ELSE 'function' END,
        pg_catalog.unnest(pg_catalog.string_to_array(pg_catalog.btrim(found[2]), ' '))
            ::pg_catalog.oid
    FROM reached
    CROSS JOIN LATERAL (
        SELECT r.ev_action::text
        FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
        WHERE kind = 'relation' AND id >= 16384 AND r.ev_class = id AND r.ev_type = '1'
            AND c.relkind = 'v'
      UNION ALL
        SELECT p.polqual::text FROM pg_catalog.pg_policy p
        WHERE kind = 'relation' AND p.polrelid = id
      UNION ALL
        SELECT pg_catalog.concat(':held ', a.atttypid) FROM pg_catalog.pg_attribute a
        WHERE kind = 'relation' AND id >= 16384 AND a.attrelid = id AND a.atttypid >= 16384
      UNION ALL
        SELECT d.adbin::text
        FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE kind = 'relation' AND a.attrelid = id AND a.attgenerated = 'v'
      UNION ALL
        SELECT pg_catalog.concat(p.prosqlbody::text, p.proargdefaults::text,
            ' :coltypes (o ', p.proargtypes, ' ', p.prorettype, ')')
        FROM pg_catalog.pg_proc p
        WHERE kind = 'function' AND id >= 16384 AND p.oid = id
      UNION ALL
        SELECT pg_catalog.concat(':funcid ', a.aggtransfn::pg_catalog.oid,
            ' :funcid ', a.aggfinalfn::pg_catalog.oid, ' :funcid ', a.aggcombinefn::pg_catalog.oid,
            ' :funcid ', a.aggmtransfn::pg_catalog.oid, ' :funcid ', a.aggmfinalfn::pg_catalog.oid,
            ' :funcid ', a.aggserialfn::pg_catalog.oid, ' :funcid ', a.aggdeserialfn::pg_catalog.oid,
            ' :funcid ', a.aggminvtransfn::pg_catalog.oid,
            ' :typid ', a.aggtranstype, ' :typid ', a.aggmtranstype)
        FROM pg_catalog.pg_aggregate a
        WHERE kind = 'function' AND id >= 16384 AND a.aggfnoid = id
      UNION ALL
        SELECT c.conbin::text FROM pg_catalog.pg_constraint c
        WHERE kind = 'type' AND c.contypid = id
      UNION ALL
        SELECT pg_catalog.concat(':funcid ', t.typinput::pg_catalog.oid)
        FROM pg_catalog.pg_type t
        WHERE kind = 'type' AND id >= 16384 AND t.oid = id
      UNION ALL
        SELECT pg_catalog.concat(CASE kind WHEN 'held' THEN ':held ' ELSE ':typid ' END, t.typbasetype)
        FROM pg_catalog.pg_type t
        WHERE kind IN ('type', 'held') AND id >= 16384 AND t.oid = id
      UNION ALL
        SELECT pg_catalog.concat(':typid ', part.id)
        FROM (
            SELECT t.oid, t.typelem FROM pg_catalog.pg_type t
          UNION ALL
            SELECT t.oid, a.atttypid
            FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid
            WHERE t.typtype = 'c' AND a.attnum > 0
          UNION ALL
            SELECT r.rngtypid, r.rngsubtype FROM pg_catalog.pg_range r
          UNION ALL
            SELECT r.rngmultitypid, r.rngtypid FROM pg_catalog.pg_range r
        ) AS part(of, id)
        WHERE kind IN ('type', 'held') AND reached.id >= 16384 AND part.of = reached.id
            AND part.id >= 16384
      UNION ALL
        SELECT pg_catalog.concat(':funcid ', c.castfunc) FROM pg_catalog.pg_cast c
        WHERE id >= 16384 AND c.oid >= 16384
            AND (kind = 'type' AND id IN (c.castsource, c.casttarget)
                OR kind = 'held' AND c.castsource = id AND c.casttarget < 16384)
    ) AS source(tree)
    CROSS JOIN LATERAL pg_catalog.regexp_matches(source.tree, ':(relid|typid|held|resulttype|'
        'funcresulttype|coltypes|funccoltypes|funcid|opfuncid|aggfnoid|winfnoid)'
        ' (?:\\(o )?([\\d ]+)', 'g') AS found
),
called AS (
    SELECT DISTINCT p.oid, p.proname, p.provolatile, n.nspname,
        pg_catalog.concat(n.nspname, '.', p.proname) AS full_name,
        CASE WHEN p.probin IS NOT NULL THEN p.prosrc END AS symbol
    FROM reached
    JOIN pg_catalog.pg_proc p ON kind = 'function' AND p.oid = id
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
)
SELECT CASE nspname WHEN 'pg_catalog' THEN proname ELSE full_name END, denied
FROM (
    SELECT called.*,
        proname = ANY (answer.denied) OR full_name = ANY (answer.denied)
            OR (symbol = ANY (answer.denied)) IS TRUE AND NOT full_name = ANY (answer.allowed)
            AS denied,
        proname = ANY (answer.harmless) AND (oid < 16384 OR EXISTS (
            SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                AND d.objid = called.oid AND d.deptype = 'e'))
        OR proname = ANY (answer.allowed) OR full_name = ANY (answer.allowed) AS harmless
    FROM called, (SELECT %s::text[], %s::text[], %s::text[]) AS answer(denied, harmless, allowed)
) AS judged
WHERE denied OR provolatile = 'v' AND NOT harmless
UNION ALL
SELECT name, true FROM pg_catalog.unnest(%s::text[]) AS name
WHERE pg_catalog.getdatabaseencoding() <> 'UTF8'
ORDER BY 1
LIMIT 1
"""


def question(statement: Statement, options: PostgreSQLOptions) -> tuple[object, ...]:
    """Return the parameters of `FORBIDDEN` for a statement."""
    asked = {
        "relations": _asked(statement.relations, "schema", "name"),
        "functions": _asked(statement.functions, "schema", "name", "arguments"),
        "attributes": sorted({*statement.attributes, *map(_folded, statement.attributes)}),
        "operators": sorted(statement.operators),
        "types": _asked(statement.types, "schema", "name"),
    }
    allowed = options.allowed_functions
    denied = [*(DENIED - set(allowed)), *options.denied_functions]
    named = {*statement.types, *statement.relations, *((s, n) for s, n, _ in statement.functions)}
    uncertain = {n for name in named for n in name if n and _may_be_cut(n)}
    # Not escaped: a database of another encoding than UTF-8 cannot read escapes in JSON.
    return (
        json.dumps(asked, ensure_ascii=False),
        denied,
        list(HARMLESS),
        list(allowed),
        sorted(uncertain),
    )


def _asked(names: Iterable[tuple[object, ...]], *keys: str) -> list[dict[str, object]]:
    spelt = {spelling for name in names for spelling in (name, tuple(map(_folded, name)))}
    return [dict(zip(keys, name, strict=True)) for name in sorted(spelt, key=str)]


def _folded(name: Any) -> Any:
    """Return a name as a server of a one-byte encoding folds it: not only letters of ASCII."""
    return name.lower() if isinstance(name, str) and not name.isascii() else name


def _may_be_cut(name: str) -> bool:
    """Tell whether a name may have been longer: it is cut after 63 bytes, in UTF-8 by the grammar."""
    return not name.isascii() and len(name.encode()) > 60


def refused(name: str, *, denied: bool) -> PolicyError:
    """Return the error for a function that may not be called."""
    if denied:
        return PolicyError(f"the source is read-only, and the function {name} may not be called")
    return PolicyError(
        f"the source is read-only, and the function {name} is volatile: it may change something; "
        "the option 'allowed_functions' of the source can admit it"
    )
