"""More ways to a harmful function, each tried as a statement, with a probe that no rollback undoes.

`hostile.SETUP` makes `harm`, which writes a file of the server's machine. Everything else calls it
from a VOLATILE function, cast, operator or check, for which some statement leaves no other trace.
"""

from __future__ import annotations

SETUP = """
CREATE SCHEMA z; GRANT USAGE ON SCHEMA z TO reader, owner; SET search_path = z, public;
CREATE FUNCTION harm() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN COPY (SELECT 1) TO '{file}'; END $$;
CREATE FUNCTION bad(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM z.harm(); RETURN $1; END $$;
CREATE FUNCTION bad(int, int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN $1; END $$;
CREATE FUNCTION bad_bool(int, int) RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN true; END $$;
CREATE FUNCTION add(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + $2';
CREATE FUNCTION valid(text) RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN true; END $$;
CREATE FUNCTION valid(int) RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN true; END $$;
CREATE DOMAIN num AS int CHECK (valid(VALUE)); CREATE DOMAIN word AS text CHECK (valid(VALUE));
CREATE DOMAIN deep AS num; CREATE DOMAIN nums AS num[]; CREATE DOMAIN doc AS jsonb CHECK (valid(VALUE::text));
CREATE TYPE pair AS (a num, b text); CREATE DOMAIN pairs AS pair;
CREATE TYPE odd AS ENUM ('a', 'b', 'c');
CREATE FUNCTION odd_text(odd) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN 'x'; END $$;
CREATE CAST (odd AS text) WITH FUNCTION odd_text(odd);
CREATE FUNCTION odd_json(odd) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN '1'; END $$;
CREATE CAST (odd AS json) WITH FUNCTION odd_json(odd);
CREATE FUNCTION odd_int(odd) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN 1; END $$;
CREATE CAST (odd AS int) WITH FUNCTION odd_int(odd) AS IMPLICIT;
CREATE TYPE own AS ENUM ('a', 'b');
CREATE FUNCTION lt(own, own) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text < $2::text';
CREATE FUNCTION eq(own, own) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text = $2::text';
CREATE FUNCTION gt(own, own) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text > $2::text';
CREATE FUNCTION cmp(own, own) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN bttextcmp($1::text, $2::text); END $$;
CREATE OPERATOR <# (LEFTARG = own, RIGHTARG = own, FUNCTION = lt);
CREATE OPERATOR =# (LEFTARG = own, RIGHTARG = own, FUNCTION = eq);
CREATE OPERATOR ># (LEFTARG = own, RIGHTARG = own, FUNCTION = gt);
CREATE OPERATOR CLASS own_sorting DEFAULT FOR TYPE own USING btree AS OPERATOR 1 <#, OPERATOR 3 =#,
    OPERATOR 5 >#, FUNCTION 1 cmp(own, own);
CREATE TABLE owned WITH (autovacuum_enabled = off) AS SELECT ('{a,b}'::own[])[1 + g % 2] AS w FROM generate_series(1, 60) g; ANALYZE owned;
CREATE FUNCTION own_row() RETURNS record STABLE LANGUAGE sql AS $$ SELECT ROW('a'::z.own) $$;
CREATE TABLE t (i int, v num, w word, p pair, o odd, many num[], doc doc, day date, note text) WITH (autovacuum_enabled = off);
SET session_replication_role = replica;
INSERT INTO t (i, o, day, note) SELECT g % 3, ('{a,b,c}'::odd[])[1 + g % 3], '2024-01-01', 'n' || g FROM generate_series(1, 60) g;
ANALYZE t;
CREATE DOMAIN odd_again AS odd; CREATE TYPE with_odd AS (n int, o odd_again);
CREATE FUNCTION odds_text(odd[]) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN 'x'; END $$;
CREATE CAST (odd[] AS text) WITH FUNCTION odds_text(odd[]);
CREATE TABLE later (i int); INSERT INTO later VALUES (1); ALTER TABLE later ADD COLUMN o odd DEFAULT 'a';
CREATE FUNCTION two_rows(OUT r record, OUT n int) STABLE LANGUAGE sql AS $$ SELECT ROW('a'::z.odd), 1 $$;
CREATE FUNCTION any_row() RETURNS record STABLE LANGUAGE sql AS $$ SELECT ROW('a'::z.odd, 1) $$;
CREATE FUNCTION an_odd() RETURNS odd STABLE LANGUAGE sql AS $$ SELECT 'a'::z.odd $$;

CREATE AGGREGATE moving(int) (SFUNC = add, STYPE = int, MSFUNC = add, MINVFUNC = bad, MSTYPE = int,
    INITCOND = '0', MINITCOND = '0');
CREATE AGGREGATE moving_step(int) (SFUNC = add, STYPE = int, MSFUNC = bad, MINVFUNC = add, MSTYPE = int,
    INITCOND = '0', MINITCOND = '0');
CREATE AGGREGATE moving_end(int) (SFUNC = add, STYPE = int, MSFUNC = add, MINVFUNC = add, MSTYPE = int,
    MFINALFUNC = bad, INITCOND = '0', MINITCOND = '0');
CREATE AGGREGATE ending(int) (SFUNC = add, STYPE = int, FINALFUNC = bad, INITCOND = '0');
CREATE FUNCTION keep(num, int) RETURNS num IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE AGGREGATE starting(int) (SFUNC = keep, STYPE = num, INITCOND = '0');
CREATE AGGREGATE ordered(int ORDER BY int) (SFUNC = add, STYPE = int, FINALFUNC = bad, INITCOND = '0');

CREATE OPERATOR ### (RIGHTARG = int, FUNCTION = bad);
CREATE OPERATOR |=| (LEFTARG = int, RIGHTARG = int, FUNCTION = bad_bool, COMMUTATOR = |=|,
    RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE FUNCTION spy(int, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM z.harm(); RETURN true; END $$;
CREATE FUNCTION public.upper(int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM z.harm(); RETURN 'x'; END $$;
CREATE FUNCTION many(VARIADIC int[]) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM z.harm(); RETURN 1; END $$;
CREATE FUNCTION poly(anyelement) RETURNS anyelement LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN $1; END $$;
CREATE FUNCTION named(a int, b int DEFAULT bad(1)) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN a; END';
CREATE FUNCTION atomic() RETURNS SETOF int STABLE LANGUAGE sql BEGIN ATOMIC
    WITH w AS (SELECT 1 AS x UNION SELECT z.bad(2)) SELECT x FROM w ORDER BY x; END;
CREATE FUNCTION of_type() RETURNS SETOF z.pair STABLE LANGUAGE sql AS $$ SELECT 1, 'x' $$;
CREATE FUNCTION hash(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM z.harm(); RETURN 1; END $$;
CREATE FUNCTION hash(int, bigint) RETURNS bigint LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN 1; END $$;
CREATE FUNCTION cmp(int, int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM z.harm(); RETURN btint4cmp($1, $2); END $$;
CREATE OPERATOR CLASS hashing FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hash(int),
    FUNCTION 2 hash(int, bigint);
CREATE OPERATOR CLASS sorting FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,
    OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 cmp(int, int);
CREATE TABLE hashed (i int) PARTITION BY HASH (i hashing);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE listed (i int) PARTITION BY LIST (i sorting);
CREATE TABLE listed_1 PARTITION OF listed FOR VALUES IN (1);
CREATE TABLE listed_2 PARTITION OF listed FOR VALUES IN (2);
CREATE TABLE ranged (i int) PARTITION BY RANGE (i sorting);
CREATE TABLE ranged_1 PARTITION OF ranged FOR VALUES FROM (0) TO (10);
CREATE TABLE ranged_2 PARTITION OF ranged FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (i sorting);
CREATE TABLE ranged_3 PARTITION OF ranged_2 FOR VALUES FROM (10) TO (15);
CREATE TABLE inside (i int); CREATE TABLE below () INHERITS (inside); INSERT INTO below VALUES (1);
CREATE POLICY p ON below USING (bad(i) > 0); ALTER TABLE below ENABLE ROW LEVEL SECURITY;
ALTER TABLE below FORCE ROW LEVEL SECURITY;

CREATE VIEW barrier WITH (security_barrier) AS SELECT i FROM t WHERE bad(i) > 0;
CREATE VIEW invoking AS SELECT (SELECT bad(1)) AS x;
CREATE RECURSIVE VIEW steps (n) AS VALUES (1) UNION ALL SELECT bad(n) + 1 FROM steps WHERE n < 3;
CREATE VIEW grouped AS SELECT i, count(*) FROM t GROUP BY i HAVING bad(i) > 0;
CREATE VIEW checked WITH (check_option = local) AS SELECT i FROM t WHERE i |=| 1;
CREATE VIEW above AS SELECT b.i FROM barrier b LEFT JOIN (SELECT 1 AS x) q ON q.x = b.i;
CREATE TABLE protected (i int); INSERT INTO protected VALUES (1);
CREATE POLICY p ON protected USING (EXISTS (SELECT FROM barrier b WHERE b.i = protected.i OR true));
ALTER TABLE protected ENABLE ROW LEVEL SECURITY; ALTER TABLE protected FORCE ROW LEVEL SECURITY;
GRANT SELECT ON ALL TABLES IN SCHEMA z TO reader, owner;
RESET session_replication_role;
"""

OPERATORS = """
CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = text, FUNCTION = spy);
CREATE OPERATOR public.~~ (LEFTARG = int, RIGHTARG = text, FUNCTION = spy);
CREATE OPERATOR public.~ (LEFTARG = int, RIGHTARG = text, FUNCTION = spy);
"""
"""Operators in a schema that everybody has on the path; with them, no name is clear."""

STATEMENTS = [
    # Domains that a value becomes without a cast in the text, or by the grammar of JSON and XML.
    "SELECT greatest(many, '{5}') FROM t", "SELECT least(p, '(5,x)') FROM t",
    "SELECT greatest(1::num, 2)", "SELECT 5::deep", "SELECT '{5}'::nums", "SELECT ROW(5, 'x')::pairs",
    "SELECT pairs '(5,x)'", "SELECT ARRAY[ROW(5, 'x')::pair]", "SELECT '{\"(5,x)\"}'::pair[]",
    "SELECT ARRAY[5]::nums", "SELECT coalesce(many, '{5}') FROM t", "SELECT CASE WHEN i = 0 THEN p ELSE '(5,x)' END FROM t",
    "SELECT many FROM t UNION ALL SELECT '{5}'", "VALUES (NULL::num), ('5')", "SELECT lead(v, 1, '5') OVER () FROM t",
    "SELECT JSON_VALUE('{\"a\": 5}', '$.a' RETURNING num)", "SELECT JSON_QUERY('[5]', '$' RETURNING nums)",
    "SELECT JSON_VALUE('{}', '$.a' RETURNING word DEFAULT 'x' ON EMPTY)",
    "SELECT JSON_QUERY('{\"a\": 5}', '$' RETURNING pair)", "SELECT JSON_SERIALIZE('{}' RETURNING word)",
    "SELECT JSON_OBJECT('a': 1 RETURNING word)", "SELECT JSON_ARRAY(1 RETURNING doc)",
    "SELECT JSON_ARRAYAGG(i RETURNING word) FROM t", "SELECT JSON_OBJECTAGG(i: 1 RETURNING doc) FROM t",
    "SELECT * FROM JSON_TABLE('[5]', '$[*]' COLUMNS (a num PATH '$'))",
    "SELECT * FROM JSON_TABLE('[{}]', '$[*]' COLUMNS (a word PATH '$.x' DEFAULT 'q' ON EMPTY))",
    "SELECT * FROM JSON_TABLE('[{\"a\": 5}]', '$[*]' COLUMNS (NESTED PATH '$' COLUMNS (a pair PATH '$')))",
    "SELECT * FROM jsonb_to_recordset('[{\"a\": [5]}]') AS r(a num[])",
    "SELECT (jsonb_populate_record(NULL::pair, '{\"a\": 5}')).b", "SELECT * FROM json_populate_recordset(NULL::pair, '[{\"a\": 5}]')",
    "SELECT * FROM jsonb_populate_recordset(NULL::t, '[{\"v\": 5}]')",
    # Casts that functions of PostgreSQL look for when they run.
    "SELECT JSON_OBJECT('a': o) FROM t", "SELECT JSON_ARRAY(o) FROM t", "SELECT JSON_SCALAR(o) FROM t", "SELECT json_build_array(o) FROM t",
    "SELECT array_to_json(ARRAY[o]) FROM t", "SELECT jsonb_object_agg(i, o) FROM t", "SELECT row_to_json(ROW(o)) FROM t",
    "SELECT JSON_ARRAY(SELECT o FROM t)", "SELECT JSON_OBJECTAGG(i: o) FROM t WHERE i = 1 GROUP BY i", "SELECT to_json(ARRAY[ROW(o)]) FROM t",
    "SELECT to_jsonb(an_odd())", "SELECT to_json(o::odd_again) FROM t", "SELECT to_jsonb(ROW(1, o)::with_odd) FROM t", "SELECT to_json(r) FROM two_rows()", "SELECT row_to_json(f) FROM two_rows() f",
    "SELECT to_json(attmissingval) FROM pg_attribute WHERE attrelid = 'later'::regclass AND attname = 'o'", "SELECT quote_literal(ARRAY[o]) FROM t", "SELECT quote_nullable(array_agg(o)) FROM t",
    "SELECT json_object_agg(i, r) FROM t, LATERAL (SELECT t.o, 1) r(o, n) GROUP BY i", "SELECT jsonb_build_object('a', q) FROM (SELECT o FROM t) q", "SELECT JSON_ARRAYAGG(q) FROM (SELECT ARRAY[o] FROM t) q", "SELECT to_json(any_row())", "SELECT json_agg(any_row())", "SELECT row_to_json(any_row())",
    "SELECT to_json(r) FROM any_row() AS r(o odd, n int)", "SELECT json_agg(r) FROM any_row() AS r(o odd, n int)",
    "SELECT quote_literal(o) FROM t", "SELECT quote_nullable(o) FROM t", "SELECT quote_literal(an_odd())", "SELECT (o).quote_literal FROM t",
    "SELECT array_to_json(most_common_vals) FROM pg_stats WHERE schemaname = 'z' AND attname = 'o'",
    "SELECT to_json(most_common_vals) FROM pg_stats WHERE schemaname = 'z' AND attname = 'o'",
    "SELECT row_to_json(s) FROM pg_stats s WHERE schemaname = 'z' AND attname = 'o'",
    "SELECT json_agg(s) FROM pg_stats s WHERE schemaname = 'z' AND attname = 'o'",
    "SELECT o || 'x' FROM t", "SELECT 'x' || o FROM t", "SELECT an_odd() || note FROM t",
    "SELECT own_row() < own_row()",
    "SELECT max(most_common_vals) FROM pg_stats, generate_series(1, 2) WHERE attname = 'w'",
    "SELECT abs(o) FROM t", "SELECT o + 1 FROM t", "SELECT o::text FROM t", "SELECT i = o FROM t", "SELECT sum(o) FROM t", "SELECT o IN (1, 2) FROM t",
    "SELECT repeat('x', o) FROM t", "SELECT * FROM generate_series(1, an_odd())", "SELECT i FROM t LIMIT an_odd()::int", "SELECT (ARRAY[1])[o] FROM t",
    # Aggregates.
    "SELECT moving(i) OVER (ORDER BY i ROWS 1 PRECEDING) FROM t", "SELECT moving_step(i) OVER (ORDER BY i ROWS 1 PRECEDING) FROM t",
    "SELECT moving_end(i) OVER (ORDER BY i ROWS 1 PRECEDING) FROM t", "SELECT ending(i) FROM t", "SELECT ending(i) FILTER (WHERE i > 0) OVER () FROM t",
    "SELECT starting(i) FROM t", "SELECT ordered(1) WITHIN GROUP (ORDER BY i) FROM t", "SELECT count(*) FROM t HAVING ending(i) > 0",
    # Operators that stand for words.
    "SELECT ### i FROM t", "SELECT i |=| 1 FROM t", "SELECT 1 |=| ALL (SELECT i FROM t)", "SELECT t.i FROM t JOIN t u ON t.i |=| u.i",
    "SELECT i = 'a'::text FROM t", "SELECT i IN ('a'::text, 'b'::text) FROM t", "SELECT CASE i WHEN 'a'::text THEN 1 END FROM t", "SELECT nullif(i, 'a'::text) FROM t",
    "SELECT i LIKE 'a' FROM t", "SELECT i SIMILAR TO 'a' FROM t", "SELECT i ~ 'a' FROM t", "SELECT i = ANY ('{a}'::text[]) FROM t", "SELECT i IN (SELECT note FROM t) FROM t",
    "SELECT i IS DISTINCT FROM 'a'::text FROM t",
    # Functions by other notations.
    "SELECT upper(1)", "SELECT (1).upper", "SELECT i.upper FROM generate_series(1, 2) i", "SELECT many(1, 2)", "SELECT many(VARIADIC ARRAY[1])", "SELECT named(a => 1)", "SELECT named(1)", "SELECT poly(day) FROM t",
    "SELECT t.poly FROM t", "SELECT * FROM atomic()", "SELECT * FROM of_type()", "SELECT (of_type()).b", "SELECT * FROM ROWS FROM (bad(1), generate_series(1, 2))",
    "SELECT i FROM t ORDER BY bad(i) OFFSET 1", "SELECT i FROM t TABLESAMPLE system (bad(50))", "SELECT i FROM t TABLESAMPLE bernoulli (100) REPEATABLE (bad(1))",
    "SELECT sum(i) OVER (ORDER BY i ROWS BETWEEN bad(1) PRECEDING AND CURRENT ROW) FROM t", "SELECT sum(i) OVER (ORDER BY i RANGE BETWEEN bad(1) PRECEDING AND CURRENT ROW) FROM t", "SELECT ('[1,2]'::jsonb)[bad(0)]",
    "SELECT JSON_EXISTS('{}', '$.a' PASSING bad(1) AS x)", "SELECT bad(i)::text IS JSON FROM (SELECT 1) q(i)",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT bad(n) + 1 FROM r WHERE n < 3) SEARCH DEPTH FIRST BY n SET o SELECT * FROM r",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) CYCLE n SET c USING path SELECT bad(n) FROM r",
    # Views, policies and partition keys.
    "barrier", "invoking", "steps", "grouped", "checked", "above", "SELECT count(*) FROM above", "SELECT * FROM protected", "below", "SELECT 1 WHERE EXISTS (TABLE barrier)",
    "SELECT * FROM hashed WHERE i = 1", "SELECT * FROM listed WHERE i = 1", "SELECT * FROM ranged WHERE i < 12", "SELECT * FROM ranged_2 WHERE i = 11", "SELECT * FROM listed WHERE i IN (1, 2)",
    "SELECT satisfies_hash_partition('hashed'::regclass, 2, 0, 5)", "SELECT satisfies_hash_partition('hashed'::regclass::oid, 2, 1, VARIADIC ARRAY[5])",
    "EXPLAIN SELECT * FROM ranged WHERE i < 12 OR i > 100", "EXPLAIN SELECT * FROM listed WHERE i = 1",
]  # fmt: skip
"""Statements with the search path `z, public`."""

POLICIES = {"below", "SELECT * FROM protected"}
"""Those that reach harm by a row security policy, which does not count for a superuser."""

XML = [
    "SELECT * FROM XMLTABLE('/a' PASSING XMLPARSE(CONTENT '<a>5</a>') COLUMNS v num PATH '.')",
    "SELECT * FROM XMLTABLE('/a' PASSING XMLPARSE(CONTENT '<a/>') COLUMNS v text PATH 'x' DEFAULT bad(1)::text)",
    "SELECT XMLSERIALIZE(CONTENT '<a/>'::xml AS word)",
    "SELECT xmlelement(name a, xmlattributes(bad(1) AS b))",
    "SELECT xmlforest(bad(1) AS a)",
]
"""The same for servers that are built with libxml."""

SERVER = [
    "SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', 't', 'relpages', 5)", "SELECT pg_clear_relation_stats('public', 't')",
    "SELECT pg_restore_attribute_stats('schemaname', 'public')", "SELECT ('channel'::text).pg_notify", "SELECT pg_replication_slot_advance('x', '0/0')",
    "SELECT pg_copy_logical_replication_slot('a', 'b')", "SELECT * FROM pg_logical_slot_get_changes('x', NULL, NULL)", "SELECT pg_replication_origin_session_setup('x')",
    "SELECT pg_replication_origin_advance('x', '0/0')", "SELECT pg_sync_replication_slots()", "SELECT pg_ls_logdir()", "SELECT (pg_stat_file('PG_VERSION')).size",
    "SELECT lo_truncate(0, 0)", "SELECT lo_creat(1)", "SELECT loread(lo_open(1, 131072), 1)", "SELECT lo_import('/etc/hostname', 4711)", "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
    "SELECT pg_advisory_unlock(1)", "SELECT ('work_mem'::text).set_config", "SELECT set_config(name, setting, false) FROM pg_settings", "UPDATE pg_settings SET setting = '64kB' WHERE name = 'work_mem'",
    "SELECT plpgsql_call_handler()", "SELECT plpgsql_validator(0)", "SELECT fmgr_c_validator(0)", "SELECT ri_fkey_check_ins", "SELECT pg_nextoid('pg_class', 'oid', 'pg_class_oid_index')",
    "SELECT pg_stat_reset_shared('wal')", "SELECT pg_stat_reset_slru()", "SELECT pg_stat_force_next_flush()", "SELECT pg_wal_replay_pause()", "SELECT pg_backup_stop()",
    "SELECT pg_filenode_relation(0, 0), pg_relation_filepath('t'), pg_read_file('postgresql.conf', 0, 10)", "SELECT pg_xact_status('1'), pg_current_xact_id_if_assigned(), txid_current()",
    "SELECT currval('s'), lastval()", "SELECT schema_to_xml('public', true, false, '')", "SELECT database_to_xml_and_xmlschema(true, false, '')", "SELECT (t.*)::text, pg_sleep(1) FROM (SELECT 1) t",
    "MERGE INTO t USING t u ON t.i = u.i WHEN MATCHED THEN DO NOTHING", "WITH m AS (MERGE INTO t USING t u ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES RETURNING t.i) TABLE m",
    "SELECT * FROM t WHERE i = (SELECT i FROM t LIMIT 1 FOR SHARE OF t NOWAIT)", "EXPLAIN (ANALYZE, BUFFERS OFF) TABLE t", "EXPLAIN (GENERIC_PLAN, ANALYZE ON) TABLE t",
]  # fmt: skip
"""Statements that write, or call functions of the server that do more than read."""
