"""Statements that must not have an effect, and statements that must work, on one small database."""

from __future__ import annotations

SETUP = """
CREATE EXTENSION dblink; CREATE EXTENSION tablefunc; CREATE EXTENSION lo; CREATE EXTENSION hstore;
CREATE EXTENSION "pg_trgm";
CREATE EXTENSION postgres_fdw;
SET ROLE owner;
CREATE TABLE items (id int PRIMARY KEY, name text, "update" text, price numeric(10, 2), data jsonb);
INSERT INTO items SELECT g, 'item ' || g, 'u' || g, g * 1.25,
    jsonb_build_object('size', g, 'tags', jsonb_build_array('a', g)) FROM generate_series(1, 50) g;
CREATE TABLE "Odd ""Table"".x" ("delete" int, "; DROP TABLE items; --" text);
INSERT INTO "Odd ""Table"".x" VALUES (1, 'x');
CREATE TABLE log (what text);
CREATE SEQUENCE numbers;
CREATE VIEW plain AS SELECT id, upper(name) AS name FROM items;
CREATE VIEW counting AS SELECT nextval('numbers') AS n;
CREATE VIEW nested AS SELECT * FROM counting;
CREATE VIEW sizes AS SELECT pg_total_relation_size('items') AS size, random() AS r;

CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('writes'); RETURN 1; END $$;
CREATE FUNCTION claims_stable() RETURNS int STABLE LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('claims'); RETURN 1; END $$;
CREATE FUNCTION claims_immutable() RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN RETURN nextval('numbers'); END $$;
CREATE FUNCTION body() RETURNS bigint STABLE LANGUAGE sql BEGIN ATOMIC
    SELECT nextval('numbers'); END;
CREATE FUNCTION definer() RETURNS int STABLE SECURITY DEFINER LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE 'INSERT INTO log VALUES (''definer'')'; RETURN 1; END $$;
CREATE FUNCTION touch(items) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('touch'); RETURN 1; END $$;
CREATE FUNCTION pair(int, int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('pair'); RETURN $1; END $$;
CREATE OPERATOR ==> (LEFTARG = int, RIGHTARG = int, FUNCTION = pair);
CREATE AGGREGATE collect(int) (SFUNC = pair, STYPE = int);
CREATE FUNCTION harmless(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION valid(int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('valid'); RETURN true; END $$;
CREATE DOMAIN checked AS int CHECK (valid(VALUE));
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE guarded (id int);
INSERT INTO guarded VALUES (1);
CREATE POLICY spying ON guarded USING (valid(id));
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE MATERIALIZED VIEW summary AS SELECT count(*) AS n FROM items;
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE PROCEDURE act() LANGUAGE sql AS $$ INSERT INTO log VALUES ('act') $$;

-- Everything below is labelled honestly, and calls `writes` or the like where nobody would look.
CREATE TYPE wrapped AS (inner_value checked, note text);
CREATE TABLE holding (id int, value checked, many checked[], row wrapped);
CREATE TABLE valued (id int, value checked);
CREATE TYPE checked_range AS RANGE (subtype = checked);
CREATE TABLE ranged (r checked_range);
CREATE DOMAIN checked_items AS items CHECK (valid((VALUE).id));
CREATE FUNCTION takes_checked(checked) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION gives_checked(int) RETURNS checked IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN RETURN $1; END $$;
CREATE FUNCTION gives_rows() RETURNS TABLE (a checked) STABLE LANGUAGE sql AS 'SELECT 5';
CREATE FUNCTION default_argument(a int DEFAULT writes()) RETURNS int IMMUTABLE LANGUAGE sql
    AS 'SELECT $1';
CREATE FUNCTION spread(VARIADIC items[]) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('spread'); RETURN 1; END $$;
CREATE TYPE odd AS (v int);
CREATE FUNCTION odd_text(odd) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('odd_text'); RETURN 'x'; END $$;
CREATE CAST (odd AS text) WITH FUNCTION odd_text(odd) AS IMPLICIT;
CREATE FUNCTION odd_json(odd) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES ('odd_json'); RETURN '1'; END $$;
CREATE CAST (odd AS json) WITH FUNCTION odd_json(odd);
CREATE TABLE odds (v odd);
INSERT INTO odds VALUES ('(1)');
CREATE FUNCTION an_odd() RETURNS odd STABLE LANGUAGE sql AS 'SELECT ROW(1)::odd';
CREATE VIEW domain_inside AS SELECT id::checked AS v FROM items;
CREATE VIEW record_inside AS SELECT * FROM json_to_record('{"a": 1}') AS t(a checked);
CREATE VIEW table_inside AS SELECT * FROM JSON_TABLE('[5]', '$[*]' COLUMNS (a checked PATH '$'));
CREATE VIEW populated AS SELECT jsonb_populate_record(h, '{"value": 5}') FROM holding h;
CREATE VIEW array_inside AS SELECT '{5}'::int[]::checked[] AS v;
CREATE VIEW default_inside AS SELECT default_argument() AS v;
CREATE VIEW operator_inside AS SELECT id ==> 2 AS v FROM items;
CREATE VIEW named_type_inside AS SELECT pg_input_is_valid('5', 'checked') AS v;
CREATE TABLE guarded_by_domain (id int);
INSERT INTO guarded_by_domain VALUES (1);
CREATE POLICY checking ON guarded_by_domain USING (id::checked > 0);
ALTER TABLE guarded_by_domain ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded_by_domain FORCE ROW LEVEL SECURITY;
CREATE MATERIALIZED VIEW drawn AS SELECT nextval('numbers') AS n;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
GRANT ALL ON SEQUENCE numbers TO reader;
RESET ROLE;
CREATE FUNCTION crosstab_of_mine(text) RETURNS SETOF record STABLE LANGUAGE c
    AS '$libdir/tablefunc', 'crosstab';
SELECT lo_create(4242);
"""

# {pid} is a session of the same role, {busy} one of them with a query under way, {dsn} a way in.
NOT_READS = [
    "INSERT INTO log VALUES ('x')",
    "INSERT INTO log VALUES ('x') RETURNING what",
    "UPDATE items SET name = 'x'",
    "UPDATE items SET name = 'x' RETURNING id",
    "DELETE FROM items",
    "DELETE FROM items RETURNING *",
    "MERGE INTO items USING (SELECT 1 AS i) s ON id = s.i WHEN MATCHED THEN DELETE",
    "MERGE INTO items USING (SELECT 1 AS i) s ON id = s.i WHEN MATCHED THEN DELETE RETURNING id",
    "TRUNCATE items",
    "DROP TABLE items",
    "DROP SCHEMA public CASCADE",
    "DROP DATABASE postgres",
    "CREATE TABLE made (id int)",
    "CREATE TEMP TABLE made (id int)",
    "CREATE TABLE made AS SELECT 1",
    "CREATE UNLOGGED TABLE made AS SELECT 1",
    "CREATE VIEW made AS SELECT 1",
    "CREATE TEMP VIEW made AS SELECT 1",
    "CREATE MATERIALIZED VIEW made AS SELECT 1",
    "CREATE INDEX made ON items (name)",
    "CREATE SCHEMA made",
    "CREATE SEQUENCE made",
    "CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE made",
    "CREATE EXTENSION citext",
    "CREATE TYPE made AS (a int)",
    "CREATE RULE made AS ON SELECT TO items DO INSTEAD SELECT 1",
    "CREATE TRIGGER made AFTER INSERT ON items EXECUTE FUNCTION touch()",
    "CREATE PUBLICATION made FOR ALL TABLES",
    "CREATE DATABASE made",
    "ALTER TABLE items ADD COLUMN made int",
    "ALTER TABLE items OWNER TO reader",
    "ALTER ROLE reader PASSWORD 'x'",
    "ALTER ROLE reader SET work_mem = '64kB'",
    "ALTER SYSTEM SET work_mem = '64kB'",
    "ALTER DATABASE postgres SET work_mem = '64kB'",
    "ALTER SEQUENCE numbers RESTART 100",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "GRANT ALL ON items TO PUBLIC",
    "REVOKE ALL ON items FROM reader",
    "COMMENT ON TABLE items IS 'x'",
    "SECURITY LABEL ON TABLE items IS 'x'",
    "REFRESH MATERIALIZED VIEW summary",
    "REINDEX TABLE items",
    "CLUSTER items USING items_pkey",
    "VACUUM items",
    "ANALYZE items",
    "CHECKPOINT",
    "LOAD 'plpgsql'",
    "LOCK TABLE items",
    "NOTIFY channel, 'x'",
    "LISTEN channel",
    "UNLISTEN *",
    "CALL act()",
    "DO $$ BEGIN INSERT INTO log VALUES ('do'); END $$",
    "COPY items TO STDOUT",
    "COPY items FROM STDIN",
    "COPY items TO '/tmp/datasources-effect'",
    "COPY items TO PROGRAM 'touch /tmp/datasources-effect'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/datasources-effect'",
    "COPY log FROM PROGRAM 'echo x'",
    "SET work_mem = '64kB'",
    "SET LOCAL work_mem = '64kB'",
    "SET transaction_read_only = off",
    "SET TRANSACTION READ WRITE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET ROLE owner",
    "SET SESSION AUTHORIZATION owner",
    "RESET ALL",
    "BEGIN",
    "BEGIN READ WRITE",
    "COMMIT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "END",
    "ABORT",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "PREPARE TRANSACTION 'x'",
    "PREPARE p AS DELETE FROM items",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DECLARE c CURSOR FOR SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "FETCH 1 FROM c",
    "CLOSE ALL",
    "IMPORT FOREIGN SCHEMA public FROM SERVER s INTO public",
    "SELECT 1 INTO made",
    "SELECT * INTO TEMP made FROM items",
    "SELECT * INTO UNLOGGED made FROM items",
    "(SELECT 1 INTO made)",
    "SELECT 1 INTO made UNION SELECT 2",
    "(SELECT 1 INTO made) UNION SELECT 2",
    "WITH w AS (SELECT 1) SELECT * INTO made FROM w",
    "EXPLAIN ANALYZE DELETE FROM items",
    "EXPLAIN ANALYZE SELECT writes()",
    "EXPLAIN (ANALYZE) SELECT writes()",
    "EXPLAIN (ANALYZE TRUE, VERBOSE) SELECT writes()",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN DELETE FROM items",
    "EXPLAIN CREATE TABLE made AS SELECT 1",
    "EXPLAIN EXECUTE p",
    "EXPLAIN ANALYZE CREATE TABLE made AS SELECT 1",
]

WRITING_INSIDE = [
    "SELECT * FROM items FOR UPDATE",
    "SELECT * FROM items FOR NO KEY UPDATE",
    "SELECT * FROM items FOR SHARE",
    "SELECT * FROM items FOR KEY SHARE SKIP LOCKED",
    "SELECT * FROM (SELECT * FROM items FOR UPDATE) q",
    "WITH q AS (SELECT * FROM items FOR UPDATE) SELECT * FROM q",
    "SELECT (SELECT id FROM items LIMIT 1 FOR UPDATE)",
    "WITH d AS (DELETE FROM items RETURNING *) SELECT * FROM d",
    "WITH d AS (DELETE FROM items) SELECT 1",
    "WITH i AS (INSERT INTO log VALUES ('x') RETURNING *) SELECT * FROM i",
    "WITH u AS (UPDATE items SET name = 'x' RETURNING *) SELECT * FROM u",
    (
        "WITH m AS (MERGE INTO items USING (SELECT 1 i) s ON id = i WHEN MATCHED THEN DELETE"
        " RETURNING 1) SELECT * FROM m"
    ),
    "WITH a AS (SELECT 1), d AS MATERIALIZED (DELETE FROM items RETURNING 1) TABLE a",
    "SELECT * FROM (WITH d AS (DELETE FROM items RETURNING 1) SELECT * FROM d) q",
    "WITH d AS (SELECT 1) DELETE FROM items",
    "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT * FROM r), d AS (DELETE FROM log) SELECT 1",
    "EXPLAIN WITH d AS (DELETE FROM items RETURNING *) SELECT * FROM d",
]

SEVERAL = [
    "SELECT 1; DELETE FROM items",
    "SELECT 1; SELECT 2",
    "SELECT 1;; DROP TABLE items;",
    ";DELETE FROM items",
    "SELECT 1;\nCOMMIT; DELETE FROM items",
    "SELECT 1 /* ; */ ; DELETE FROM items",
    "COMMIT; DELETE FROM items",
    "ROLLBACK; BEGIN; DELETE FROM items; COMMIT",
    "SELECT 1 \\; DELETE FROM items",
]

# Out of the wrapping that the connector puts around a query.
BREAK_OUTS = [
    "SELECT 1) TO PROGRAM 'touch /tmp/datasources-effect' --",
    "SELECT 1) TO '/tmp/datasources-effect' --",
    "SELECT 1) TO STDOUT; DELETE FROM items --",
    "SELECT 1) AS q) TO PROGRAM 'touch /tmp/datasources-effect' --",
    "SELECT 1) AS q LIMIT 1) TO STDOUT; DELETE FROM items; --",
    "SELECT 1) AS q; DELETE FROM items; SELECT * FROM (SELECT 1",
    "SELECT 1 --\r) TO PROGRAM 'touch /tmp/datasources-effect' --",
    "SELECT 1 --\r; DELETE FROM items",
    "SELECT 1 --\n) TO STDOUT; DELETE FROM items --",
    "SELECT 1 --\x0b; DELETE FROM items\r; DELETE FROM items",
    "SELECT 1 /* /* */ ) TO STDOUT; DELETE FROM items --",
    "SELECT 1 /* */ */ ) TO STDOUT; DELETE FROM items",
    "SELECT 1 /*",
    "SELECT 1)",
    "(SELECT 1",
    "SELECT 'a",
    "SELECT 'it\\'; DELETE FROM items; --'",
    "SELECT E'\\'); DELETE FROM items; --'); DELETE FROM items; --",
    "SELECT $$x$$); DELETE FROM items; --",
    "SELECT $a$ $b$ $a$; DELETE FROM items",
    "SELECT U&'\\0027'; DELETE FROM items",
    'SELECT "a"" ; DELETE FROM items',
    "SELECT 1\0; DELETE FROM items",
    "SELECT 1\ufeff; DELETE FROM items",
    "\ufeffDELETE FROM items",
    "SELECT 1\u2028; DELETE FROM items",
    "SELECT 1 TO STDOUT",
    "TABLE items TO PROGRAM 'touch /tmp/datasources-effect'",
    "SELECT $1; DELETE FROM items",
    "SELECT * FROM items WHERE id = $1",
]

# Functions of the server.
SERVER_FUNCTIONS = [
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 100)",
    "SELECT pg_catalog.nextval('numbers')",
    "SELECT \"nextval\"('numbers')",
    "SELECT U&\"next\\0076al\"('numbers')",
    "SELECT NEXTVAL ( 'numbers' )",
    "SELECT * FROM nextval('numbers')",
    "SELECT * FROM ROWS FROM (nextval('numbers'))",
    "SELECT 1 WHERE nextval('numbers') > 0",
    "SELECT 1 ORDER BY nextval('numbers')",
    "SELECT 1 LIMIT nextval('numbers')",
    "SELECT 1 GROUP BY nextval('numbers')",
    "SELECT sum(id) FILTER (WHERE nextval('numbers') > 0) FROM items",
    "SELECT sum(id) OVER (ORDER BY nextval('numbers')) FROM items",
    "SELECT sum(id) OVER w FROM items WINDOW w AS (PARTITION BY nextval('numbers'))",
    "SELECT CASE WHEN true THEN nextval('numbers') END",
    "SELECT ARRAY[nextval('numbers')]",
    "SELECT (ARRAY[1])[nextval('numbers')]",
    "SELECT ROW(nextval('numbers'))",
    "SELECT COALESCE(NULL, nextval('numbers'))",
    "SELECT GREATEST(1, nextval('numbers'))",
    "SELECT nextval('numbers')::text",
    "SELECT (SELECT nextval('numbers'))",
    "SELECT 1 WHERE EXISTS (SELECT nextval('numbers'))",
    "SELECT * FROM items, LATERAL (SELECT nextval('numbers')) l",
    "SELECT * FROM items JOIN plain ON nextval('numbers') > 0",
    "WITH w AS (SELECT nextval('numbers')) SELECT * FROM w",
    "VALUES (nextval('numbers'))",
    "SELECT 1 UNION ALL SELECT nextval('numbers')",
    "SELECT json_object('a': nextval('numbers'))",
    "SELECT json_arrayagg(nextval('numbers'))",
    "SELECT JSON_VALUE('{}', '$.a' DEFAULT nextval('numbers') ON EMPTY)",
    (
        "SELECT * FROM JSON_TABLE('[1]', '$[*]' PASSING nextval('numbers') AS x"
        " COLUMNS (a int PATH '$'))"
    ),
    "SELECT * FROM items TABLESAMPLE SYSTEM (nextval('numbers'))",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY nextval('numbers'))",
    "SELECT sum(id ORDER BY nextval('numbers')) FROM items",
    "SELECT DISTINCT ON (nextval('numbers')) 1",
    "SELECT 1 FETCH FIRST (nextval('numbers')) ROWS ONLY",
    "SELECT 1 GROUP BY GROUPING SETS ((nextval('numbers')), ())",
    "EXPLAIN SELECT writes()",
    "SELECT pg_terminate_backend({pid})",
    "SELECT pg_cancel_backend({busy})",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT f(pid) FROM (SELECT {pid}) s(pid), LATERAL pg_terminate_backend(pid) f(pid)",
    "SELECT pg_sleep(20)",
    "SELECT pg_sleep_for('20 s')",
    "SELECT pg_sleep_until(now() + interval '20 s')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "SELECT pg_advisory_lock_shared(1, 2)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_advisory_unlock_all()",
    "SELECT pg_notify('channel', 'x')",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('work_mem', '64kB', false)",
    "SELECT set_config('role', 'owner', true), writes()",
    "SELECT setseed(0.5)",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT pg_logical_emit_message(true, 'a', 'b')",
    "SELECT txid_current()",
    "SELECT pg_current_xact_id()",
    "SELECT pg_export_snapshot()",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('x')",
    "SELECT pg_stat_reset()",
    "SELECT pg_stat_clear_snapshot()",
    "SELECT pg_promote()",
    "SELECT pg_backup_start('x')",
    "SELECT pg_create_physical_replication_slot('x')",
    "SELECT pg_create_logical_replication_slot('x', 'test_decoding')",
    "SELECT pg_drop_replication_slot('x')",
    "SELECT pg_replication_origin_create('x')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_read_binary_file('PG_VERSION')",
    "SELECT * FROM pg_ls_dir('.')",
    "SELECT * FROM pg_ls_waldir()",
    "SELECT pg_stat_file('PG_VERSION')",
    "SELECT pg_log_backend_memory_contexts({pid})",
    "SELECT pg_import_system_collations('public')",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_unlink(4242)",
    "SELECT lo_put(4242, 0, 'x')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(4242, '/tmp/datasources-effect')",
    "SELECT lo_open(4242, 131072)",
    "SELECT lowrite(0, 'x')",
    "SELECT brin_summarize_new_values('items_pkey')",
    "SELECT gin_clean_pending_list('items_pkey')",
    "SELECT currtid2('items', '(0,1)')",
    "SELECT binary_upgrade_set_next_pg_type_oid(1)",
    # They run SQL given as text, or reach out.
    "SELECT query_to_xml('DELETE FROM items', true, true, '')",
    "SELECT query_to_xml('SELECT nextval(''numbers'')', true, true, '')",
    "SELECT table_to_xml('counting', true, true, '')",
    "SELECT schema_to_xml('public', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT query_to_xml_and_xmlschema('SELECT writes()', true, true, '')",
    "SELECT cursor_to_xml('c', 1, true, true, '')",
    "SELECT * FROM ts_stat('SELECT writes()::text::tsvector')",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT writes()::text::tsquery, ''a''::tsquery')",
    "SELECT * FROM crosstab('SELECT ''a''::text, ''b''::text, writes()') AS t(a text, b int)",
    "SELECT * FROM connectby('items', 'id', 'writes()', '1', 0) AS t(a int, b int, c int)",
    "SELECT * FROM dblink('{dsn}', 'DELETE FROM items RETURNING 1') AS t(a int)",
    "SELECT dblink_exec('{dsn}', 'DELETE FROM items')",
    "SELECT dblink_connect('{dsn}')",
    "SELECT dblink_connect_u('x', '{dsn}')",
    "SELECT postgres_fdw_disconnect_all()",
    "SELECT * FROM crosstab_of_mine('SELECT ''a''::text, ''b''::text, writes()') AS t(a text, b int)",
]

# Functions of the database's own, wherever they hide.
OWN_FUNCTIONS = [
    "SELECT writes()",
    "SELECT public.writes()",
    "SELECT * FROM writes()",
    "SELECT body()",
    "SELECT touch(items) FROM items",
    "SELECT items.touch FROM items",
    "SELECT i.touch FROM items i",
    "SELECT (i).touch FROM items i",
    "SELECT (SELECT i FROM items i LIMIT 1).touch",
    "SELECT 1 FROM items i WHERE i.touch > 0",
    "SELECT public.items.touch FROM public.items",
    "SELECT 1 ==> 2",
    "SELECT 1 OPERATOR(public.==>) 2",
    "SELECT * FROM items WHERE id ==> 2 > 0",
    "SELECT 1 ==> ANY (ARRAY[1])",
    "SELECT id FROM items ORDER BY id ==> 1",
    "SELECT collect(id) FROM items",
    "SELECT collect(id) OVER () FROM items",
    "SELECT 5::checked",
    "SELECT CAST(id AS public.checked) FROM items",
    "SELECT * FROM json_to_record('{\"a\": 1}') AS t(a checked)",
    "SELECT * FROM counting",
    "SELECT * FROM nested",
    "TABLE nested",
    "SELECT * FROM items WHERE id IN (SELECT n FROM nested)",
    "WITH w AS (TABLE counting) SELECT * FROM w",
    "SELECT * FROM guarded",
    "nested",
    "counting",
    "public.counting",
    "guarded",
    # The ORDER BY of an aggregate is no argument; an array of rows can be the argument of `row.f`.
    "SELECT collect(id ORDER BY id) FROM items",
    "SELECT i.spread FROM items i",
    "SELECT default_argument()",
    # Checks of domains.
    "SELECT checked('5')",
    "SELECT checked(5)",
    "SELECT public.checked(id) FROM items",
    "SELECT i.checked_items FROM items i",
    "SELECT checked_items(i) FROM items i",
    "SELECT '(5,x)'::wrapped",
    "SELECT ROW(5, 'x')::wrapped",
    "SELECT '{\"(5,x)\"}'::wrapped[]",
    "SELECT '(1,5,{},)'::holding",
    "SELECT '[1,5]'::checked_range",
    "SELECT checked_range(1, 5)",
    "SELECT '{[1,5]}'::checked_multirange",
    "SELECT jsonb_populate_record(NULL::wrapped, '{\"inner_value\": 5}')",
    "SELECT jsonb_populate_record(h, '{\"value\": 5}') FROM holding h",
    "SELECT jsonb_populate_record(row, '{\"inner_value\": 5}') FROM holding",
    "SELECT json_populate_recordset(h, '[{\"value\": 5}]') FROM holding h",
    "SELECT populate_record(h, 'value=>5') FROM holding h",
    "SELECT h #= hstore('value', '5') FROM holding h",
    # Text that becomes what is beside it.
    "SELECT coalesce(h, '(1,5,{},)') FROM valued h",
    "SELECT coalesce(valued, '(1,5)') FROM valued",
    "SELECT array_append(ARRAY[h.*], '(1,5)') FROM valued h",
    "SELECT jsonb_populate_record(public.valued, '{\"value\": 5}') FROM public.valued",
    "SELECT many || '{5}' FROM holding",
    "SELECT many = '{5}' FROM holding",
    "SELECT row FROM holding UNION ALL SELECT '(5,x)'",
    "SELECT lag(row, 1, '(5,x)') OVER () FROM holding",
    "SELECT * FROM ranged WHERE r && '[1,5]'",
    "SELECT r FROM ranged UNION ALL SELECT '[1,5]'",
    "SELECT takes_checked(5)",
    "SELECT gives_checked(5)",
    "SELECT * FROM gives_rows()",
    "SELECT pg_input_is_valid('5', 'checked')",
    "SELECT pg_input_is_valid(name, 'public.checked[]') FROM items",
    "SELECT * FROM pg_input_error_info('5', E'check\\145d')",
    "SELECT pg_input_is_valid('5', 'check' || 'ed')",
    "SELECT * FROM domain_inside",
    "SELECT * FROM record_inside",
    "SELECT * FROM table_inside",
    "SELECT * FROM populated",
    "SELECT * FROM array_inside",
    "SELECT * FROM default_inside",
    "SELECT * FROM operator_inside",
    "SELECT * FROM named_type_inside",
    "guarded_by_domain",
    # Casts that nobody wrote.
    "SELECT upper(v) FROM odds",
    "SELECT v || 'x' FROM odds",
    "SELECT to_json(v) FROM odds",
    "SELECT row_to_json(o) FROM odds o",
    "SELECT json_agg(o) FROM odds o",
    "SELECT (v).upper FROM odds",
    "SELECT upper(an_odd())",
    "SELECT an_odd()::text",
]

# Functions that say they change nothing: only the transaction stops them.
LIARS = ["SELECT claims_stable()", "SELECT claims_immutable()", "SELECT definer()"]

DANGEROUS = [
    *NOT_READS,
    *WRITING_INSIDE,
    *SEVERAL,
    *BREAK_OUTS,
    *SERVER_FUNCTIONS,
    *OWN_FUNCTIONS,
    *LIARS,
]

SYSTEM_VIEWS = """
    information_schema.tables information_schema.views pg_available_extensions pg_cursors
    pg_database pg_extension pg_indexes pg_matviews pg_policies pg_prepared_statements
    pg_publication_tables pg_replication_slots pg_roles pg_rules pg_sequences
    pg_stat_bgwriter pg_stat_database pg_stat_io pg_stat_progress_vacuum pg_stat_replication
    pg_stat_slru pg_stat_ssl pg_stat_user_functions pg_stat_user_indexes pg_stat_wal
    pg_stat_xact_user_tables pg_statio_user_tables pg_stats pg_stats_ext pg_timezone_names
    pg_user pg_wait_events
"""

LEGITIMATE = [
    "SELECT 1",
    "SELECT 1;",
    "  SELECT 1 ; -- a comment",
    "/* a comment */ SELECT 1 /* another; DELETE FROM items */",
    "SELECT 1 -- ) TO PROGRAM 'x'",
    "SELECT 1 --",
    "(SELECT 1)",
    "((SELECT 1)) LIMIT 1",
    "VALUES (1, 'a'), (2, 'b')",
    "TABLE items",
    "SELECT FROM items",
    "SELECT * FROM items",
    'SELECT "update" FROM items',
    'SELECT "delete", "; DROP TABLE items; --" FROM "Odd ""Table"".x"',
    '"Odd ""Table"".x"',
    "SELECT 'DELETE FROM items; DROP TABLE items' AS \"insert into\"",
    "SELECT $$; DELETE FROM items$$",
    "SELECT E'\\'; DELETE FROM items; --'",
    "SELECT replace(name, 'item', 'update') FROM items",
    'SELECT name AS "create", id AS "grant" FROM items',
    "SELECT 'nextval(''numbers'')'",
    "SELECT id AS nextval FROM items",
    "SELECT q.nextval FROM (SELECT 1 AS nextval) q",
    "SELECT count(*), sum(price), avg(price), min(name), max(id) FROM items",
    "SELECT id % 3 AS g, count(*) FROM items GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC",
    "SELECT id, row_number() OVER (ORDER BY price DESC) FROM items",
    (
        "SELECT id, sum(price) OVER (PARTITION BY id % 3 ORDER BY id ROWS BETWEEN 2 PRECEDING AND"
        " CURRENT ROW) FROM items"
    ),
    "SELECT id, lag(price) OVER w, lead(price, 2) OVER w FROM items WINDOW w AS (ORDER BY id)",
    "SELECT ntile(4) OVER (ORDER BY id), rank() OVER (ORDER BY id % 2) FROM items",
    "WITH a AS (SELECT * FROM items WHERE id < 10) SELECT count(*) FROM a",
    (
        "WITH a AS MATERIALIZED (SELECT 1 AS x), b AS NOT MATERIALIZED (SELECT 2 AS x)"
        " SELECT * FROM a UNION ALL SELECT * FROM b"
    ),
    (
        "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100)"
        " SELECT sum(n) FROM t"
    ),
    (
        "WITH RECURSIVE t(n, p) AS (SELECT 1, 0 UNION ALL SELECT n + 1, n FROM t WHERE n < 5)"
        " SEARCH DEPTH FIRST BY n SET o CYCLE n SET c USING path SELECT * FROM t ORDER BY o"
    ),
    "SELECT * FROM items i, LATERAL (SELECT count(*) FROM items j WHERE j.id < i.id) l",
    "SELECT * FROM items i JOIN plain p USING (id) LEFT JOIN parts ON parts.id = i.id",
    "SELECT * FROM items NATURAL JOIN plain",
    "SELECT * FROM items a FULL OUTER JOIN items b ON a.id = b.id + 10",
    "SELECT * FROM items CROSS JOIN generate_series(1, 3) g",
    "SELECT * FROM generate_series('2024-01-01'::date, '2024-02-01', interval '1 day') d",
    "SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) WITH ORDINALITY AS t(a, b, n)",
    "SELECT id FROM items UNION SELECT id FROM plain INTERSECT SELECT 1 EXCEPT SELECT 2",
    "SELECT DISTINCT ON (id % 3) * FROM items ORDER BY id % 3, id DESC",
    "SELECT * FROM items ORDER BY price DESC NULLS LAST OFFSET 5 FETCH FIRST 3 ROWS WITH TIES",
    (
        "SELECT a, b, count(*) FROM (SELECT id % 2 a, id % 3 b FROM items) q"
        " GROUP BY GROUPING SETS ((a), (b), ())"
    ),
    "SELECT id % 2, count(*), grouping(id % 2) FROM items GROUP BY ROLLUP (id % 2)",
    "SELECT id % 2, id % 3, count(*) FROM items GROUP BY CUBE (id % 2, id % 3)",
    (
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price), mode() WITHIN GROUP (ORDER BY id)"
        " FROM items"
    ),
    "SELECT string_agg(name, ', ' ORDER BY id), array_agg(DISTINCT id % 3) FROM items",
    "SELECT count(*) FILTER (WHERE id > 10) FROM items",
    "SELECT corr(id, price), stddev(price), var_pop(id), regr_slope(price, id) FROM items",
    "SELECT bool_and(id > 0), every(id > 1), bit_or(id) FROM items",
    "SELECT data->'size', data->>'size', data #>> '{tags,0}', data @> '{\"size\": 1}' FROM items",
    "SELECT jsonb_path_query(data, '$.tags[*] ? (@ > 10)') FROM items",
    "SELECT jsonb_path_exists(data, '$.size ? (@ > $x)', '{\"x\": 3}') FROM items",
    "SELECT * FROM items, jsonb_array_elements(data->'tags') t, jsonb_each_text(data) e",
    "SELECT jsonb_agg(data), json_object_agg(id, name), jsonb_build_object('a', 1) FROM items",
    "SELECT data['size'], data['tags'][0] FROM items",
    (
        "SELECT JSON_VALUE(data, '$.size' RETURNING int), JSON_QUERY(data, '$.tags'),"
        " JSON_EXISTS(data, '$.size') FROM items"
    ),
    (
        "SELECT * FROM items, JSON_TABLE(data, '$' COLUMNS (size int PATH '$.size',"
        " NESTED PATH '$.tags[*]' COLUMNS (tag text PATH '$'))) j"
    ),
    "SELECT JSON_OBJECT('a': 1), JSON_ARRAY(1, 2), '{}' IS JSON OBJECT, JSON_SCALAR(1)",
    "SELECT jsonb_set(data, '{size}', '0'), data - 'size', data || '{}' FROM items",
    (
        "SELECT CASE id WHEN 1 THEN 'a' ELSE 'b' END, coalesce(name, 'x'), nullif(id, 1),"
        " greatest(1, id), least(1, id) FROM items"
    ),
    (
        "SELECT id BETWEEN 1 AND 5, id NOT IN (1, 2), name LIKE 'i%', name ILIKE 'I%',"
        " name SIMILAR TO 'i%', name ~ '^i' FROM items"
    ),
    "SELECT id IS DISTINCT FROM 1, name IS NULL, (id > 1) IS TRUE FROM items",
    "SELECT EXISTS (SELECT 1 FROM items), 1 = ANY (ARRAY[1]), 1 < ALL (SELECT id FROM items)",
    "SELECT ARRAY(SELECT id FROM items), (ARRAY[1, 2, 3])[2:3], ARRAY[1] || 2",
    "SELECT ROW(1, 'a'), (ROW(1, 2)).f1 FROM items",
    "SELECT (i).name, (i).* FROM items i",
    "SELECT i FROM items i",
    "SELECT public.items.id FROM public.items",
    "SELECT extract(year FROM now()), date_trunc('month', now()), now() AT TIME ZONE 'UTC'",
    "SELECT current_date, current_timestamp, localtime, current_user, session_user, current_schema",
    "SELECT clock_timestamp(), statement_timestamp(), timeofday()",
    "SELECT to_char(now(), 'YYYY-MM-DD'), to_date('2024', 'YYYY'), age(now()), make_date(2024, 1, 1)",
    "SELECT interval '1 day' * 3, date '2024-02-28' + 1, tsrange(now()::timestamp, NULL)",
    (
        "SELECT overlay('abc' placing 'x' from 2), substring('abc' from 2 for 1), trim(both 'x' from 'x'),"
        " position('b' in 'abc')"
    ),
    (
        "SELECT upper(name), length(name), split_part(name, ' ', 2), regexp_replace(name, 'm', 'n'),"
        " format('%s-%I', 1, 'a b'), md5(name), left(name, 2) FROM items"
    ),
    "SELECT * FROM regexp_matches('a1b2', '[0-9]', 'g'), string_to_table('a,b', ',')",
    "SELECT '%s %% %(x)s', 5 % 3",
    "SELECT random() < 2, random(1, 2000000000), gen_random_uuid() IS NOT NULL",
    (
        "SELECT width_bucket(price, 0, 100, 5), round(price, 1), trunc(price), sqrt(id), power(2, id / 10),"
        " ln(id), abs(-id), mod(id, 3) FROM items"
    ),
    "SELECT encode('abc', 'base64'), decode('00', 'hex'), sha256('a'), '\\x00'::bytea || 'a'",
    (
        "SELECT to_tsvector('english', name) @@ to_tsquery('item'), ts_rank(to_tsvector(name), 'item')"
        " FROM items"
    ),
    "SELECT name % 'item', similarity(name, 'item 1') FROM items",
    "SELECT 'a=>1'::hstore -> 'a', 'a'::text COLLATE \"C\" < 'b'",
    "SELECT 5::positive, harmless(1)",
    "SELECT harmless(id) FROM items WHERE harmless(id) > 3",
    "SELECT * FROM plain",
    "SELECT * FROM sizes",
    "SELECT * FROM summary",
    "SELECT * FROM drawn",
    "SELECT * FROM valued",
    "valued",
    "SELECT v.*, coalesce(value, 5), value = '5', value + 1 FROM valued v",
    "SELECT pg_input_is_valid(name, 'integer'), pg_input_is_valid('5', 'positive') FROM items",
    "SELECT * FROM parts",
    "SELECT * FROM ONLY items",
    "SELECT * FROM items TABLESAMPLE BERNOULLI (50) REPEATABLE (1)",
    "SELECT tableoid::regclass, ctid, xmin FROM items",
    "SELECT * FROM pg_class WHERE relname = 'items'",
    "SELECT * FROM information_schema.columns WHERE table_name = 'items'",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_locks",
    "SELECT * FROM pg_stat_user_tables",
    "SELECT * FROM pg_settings WHERE name = 'work_mem'",
    "SELECT * FROM pg_tables, pg_views LIMIT 5",
    "SELECT pg_size_pretty(pg_database_size(current_database())), pg_relation_size('items')",
    "SELECT version(), current_setting('server_version'), current_database(), pg_backend_pid() > 0",
    "SELECT pg_get_viewdef('plain'), obj_description('items'::regclass), 'items'::regclass",
    "SELECT has_table_privilege('items', 'SELECT'), pg_typeof(1)",
    "SELECT * FROM items WHERE name = 'x' OR id IN (SELECT id FROM items WHERE price > 10) LIMIT 10",
    "SELECT '1'::int::text::varchar(5), CAST('1.5' AS numeric(3, 1)), int '5', 'a'::char(3)",
    "SELECT 1 AS a, 2 AS a",
    "SELECT NULL, '', ' '",
    "EXPLAIN SELECT * FROM items",
    "EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT * FROM items JOIN plain USING (id)",
    "EXPLAIN (SETTINGS, SUMMARY) TABLE items",
    "SHOW server_version",
    "SHOW ALL",
    "SHOW TIME ZONE",
    "items",
    "public.plain",
    " ITEMS ",
    "SELECT * FROM items WHERE (id, name) IN ((1, 'item 1'), (2, 'x'))",
    "SELECT * FROM (VALUES (1, 'one'), (2, 'two')) AS t(num, letter)",
    "SELECT * FROM items AS t(a, b, c, d, e) WHERE a < 3",
    "SELECT * FROM json_to_recordset('[{\"a\": 1}]') AS x(a int, b text)",
    "SELECT * FROM jsonb_populate_record(NULL::items, '{\"id\": 1}')",
    "SELECT lower(r), upper(r), r * int4range(5, 20) FROM (SELECT int4range(1, 10) r) q",
    "SELECT point(1, 2) <-> point(3, 4), box '((0,0),(1,1))' && box '((1,1),(2,2))'",
    "SELECT host(inet '10.0.0.1/8'), network(inet '10.0.0.1/8'), inet '10.0.0.1' << '10.0.0.0/8'",
    "SELECT U&'\\0061', U&\"\\0061\" FROM (SELECT 1 AS a) q",
    "SELECT 1_000, 0xFF, 0o17, 0b11, 1e3, .5",
    "SELECT 'a'\n'b'",
    "SELECT any_value(name), min(ARRAY[id]) FROM items",
    "SELECT 'Größe', '表', '🎉' AS \"ünïcode 🎉\"",
    "SELECT id, avg(price) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM items",
    "SELECT id, sum(price) OVER (ORDER BY id RANGE BETWEEN 5 PRECEDING AND 5 FOLLOWING) FROM items",
    "SELECT id, sum(price) OVER (ORDER BY id GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) FROM items",
    "SELECT first_value(id) OVER w, last_value(id) OVER w, nth_value(id, 2) OVER w, cume_dist() OVER w, percent_rank() OVER w, dense_rank() OVER w FROM items WINDOW w AS (PARTITION BY id % 3 ORDER BY id)",
    "SELECT id % 2 AS a, id % 3 AS b, count(*), grouping(id % 2, id % 3) FROM items GROUP BY GROUPING SETS ((1, 2), (1), ()), CUBE (1) ORDER BY 1, 2",
    "SELECT id % 2 a, count(*) FROM items GROUP BY DISTINCT ROLLUP (1), CUBE (1)",
    "SELECT * FROM JSON_TABLE('[{\"a\": 1, \"b\": {\"c\": [1, 2]}}]', '$[*]' COLUMNS (n FOR ORDINALITY, a int PATH '$.a' DEFAULT 0 ON EMPTY, e bool EXISTS PATH '$.x', j json FORMAT JSON PATH '$.b', NESTED PATH '$.b.c[*]' COLUMNS (c int PATH '$')))",
    "SELECT JSON_QUERY('{\"a\": [1]}', '$.a' WITH WRAPPER), JSON_VALUE('{\"a\": \"2024-01-01\"}', '$.a' RETURNING date)",
    "SELECT JSON_ARRAYAGG(id ORDER BY id ABSENT ON NULL), JSON_OBJECTAGG(id: name) FROM items WHERE id < 4",
    "WITH RECURSIVE t(n, p) AS (SELECT 1, 0 UNION ALL SELECT n + 1, n FROM t WHERE n < 5) CYCLE n SET c TO true DEFAULT false USING path SELECT * FROM t",
    "WITH RECURSIVE t AS (SELECT id, name FROM items WHERE id = 1 UNION SELECT i.id, i.name FROM items i JOIN t ON i.id = t.id + 1 WHERE i.id < 5) SEARCH BREADTH FIRST BY id SET o SELECT * FROM t ORDER BY o",
    "SELECT i.id, l.n FROM items i CROSS JOIN LATERAL (SELECT count(*) AS n FROM items j WHERE j.id <= i.id) l",
    "SELECT i.id, g FROM items i LEFT JOIN LATERAL generate_series(1, i.id % 3) g ON true",
    "SELECT date_trunc('week', d), date_part('dow', d), date_bin('15 minutes', d, '2024-01-01'), to_char(d, 'IYYY-IW') FROM generate_series('2024-01-01'::timestamp, '2024-01-03', '6 hours') d",
    "SELECT regexp_count(name, 'e'), regexp_like(name, '^i'), regexp_substr(name, '\\d+'), regexp_instr(name, 'm'), regexp_split_to_array(name, ' '), substring(name from '\\d+'), (regexp_match(name, '(\\d)'))[1] FROM items",
    "SELECT percentile_cont(ARRAY[0.25, 0.5, 0.75]) WITHIN GROUP (ORDER BY price), percentile_disc(0.9) WITHIN GROUP (ORDER BY id) FROM items",
    "SELECT rank(10) WITHIN GROUP (ORDER BY id), dense_rank(10) WITHIN GROUP (ORDER BY id), percent_rank(10) WITHIN GROUP (ORDER BY id), cume_dist(10) WITHIN GROUP (ORDER BY id) FROM items",
    "SELECT id % 3, sum(price) FILTER (WHERE id % 2 = 0) AS even, sum(price) FILTER (WHERE id % 2 = 1) AS odd, max(CASE WHEN id > 5 THEN price END) FROM items GROUP BY 1 ORDER BY 1",
    "SELECT array_agg(id ORDER BY id DESC), string_agg(name, ',' ORDER BY name), array_length(ARRAY[1, 2], 1), ARRAY[1, 2] @> ARRAY[1], ARRAY[1, 2] && ARRAY[2], cardinality(ARRAY[1]), array_position(ARRAY[1, 2], 2), unnest(ARRAY[1, 2]), array_to_string(ARRAY[1, 2], ','), trim_array(ARRAY[1, 2], 1) FROM items",
    "SELECT int4range(1, 10) @> 5, daterange('2024-01-01', '2024-02-01') && daterange('2024-01-15', NULL), range_agg(int4range(id, id + 1)), upper(int4range(1, 3)), range_merge(int4range(1, 2), int4range(5, 6)) FROM items",
    "SELECT ts_headline('english', name, to_tsquery('item')), plainto_tsquery('a b'), phraseto_tsquery('a b'), websearch_to_tsquery('a -b'), setweight(to_tsvector(name), 'A') FROM items",
    "SELECT now(), current_user, session_user, current_catalog, current_schema(), localtimestamp, transaction_timestamp()::date",
    "SELECT pg_size_pretty(pg_total_relation_size('items')), pg_size_pretty(sum(pg_relation_size(oid))) FROM pg_class WHERE relkind = 'r'",
    "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
    "SELECT tc.table_name, kcu.column_name FROM information_schema.table_constraints tc JOIN information_schema.key_column_usage kcu USING (constraint_name)",
    "SELECT width_bucket(price, ARRAY[1, 5, 10]), count(*) FROM items GROUP BY 1",
    "SELECT corr(id, price), covar_pop(id, price), regr_r2(id, price), stddev_samp(id), variance(id) FROM items",
    "SELECT id, price - lag(price) OVER (ORDER BY id) AS delta, 100 * price / sum(price) OVER () FROM items",
    "SELECT * FROM items TABLESAMPLE SYSTEM (50) REPEATABLE (3)",
    "SELECT DISTINCT ON (id % 5) id, name FROM items ORDER BY id % 5, price DESC",
    "SELECT * FROM ROWS FROM (generate_series(1, 3), unnest(ARRAY['a', 'b'])) WITH ORDINALITY AS t(a, b, n)",
    "SELECT * FROM (SELECT id FROM items EXCEPT ALL SELECT 3) q INTERSECT ALL SELECT 4",
    "SELECT (SELECT max(id) FROM items), EXISTS (TABLE items), ARRAY(SELECT id FROM items ORDER BY 1 LIMIT 2)",
    "SELECT data #> '{tags}', data ? 'size', data ?| ARRAY['a'], data @? '$.size', data @@ '$.size > 1', jsonb_pretty(data), jsonb_typeof(data), jsonb_object_keys(data) FROM items",
    "SELECT jsonb_path_query_array(data, '$.tags[*].type()'), jsonb_strip_nulls(data), jsonb_array_length(data->'tags') FROM items",
    "SELECT initcap(name), lpad(name, 20, '.'), translate(name, 'e', '3'), reverse(name), concat_ws('-', id, name), ascii(name), chr(65), to_hex(255), strpos(name, 'e'), starts_with(name, 'i'), repeat('a', 3), quote_ident(name), unistr('\\0061') FROM items",
    "SELECT ('x', 1) = ('x', 1), ROW(1, 2) < ROW(1, 3), (id, name) IN (SELECT id, name FROM items) FROM items",
    "SELECT CAST(NULL AS int), id::bigint, '{1,2}'::int[], '1 day'::interval, price::text, 'true'::bool, id::numeric(10, 2) FROM items",
    "SELECT inet '10.0.0.1' <<= cidr '10.0.0.0/8', '08:00:2b:01:02:03'::macaddr, '(1,2)'::point, 'a'::\"char\", '12.34'::money, '1'::bit(3)",
    "SELECT xmin, ctid, tableoid::regclass FROM items",
    "SELECT to_json(i), row_to_json(i), to_jsonb(i) - 'name' FROM items i",
    "SELECT json_agg(i ORDER BY id) FROM items i",
    "SELECT jsonb_populate_record(i, '{\"id\": 5}') FROM items i",
    "SELECT hstore(i) FROM items i",
    "SELECT (each(hstore(i))).* FROM items i",
    "SELECT i.*, (i).id, i.data['size'] FROM items i",
    'SELECT "left"(name, 1), "right"(name, 1), pg_catalog.lower(name) COLLATE "C" FROM items',
    "SELECT count(DISTINCT id), count(DISTINCT (id, name)), sum(DISTINCT id) FROM items",
    "SELECT make_interval(days => 3), make_timestamptz(2024, 1, 1, 0, 0, 0)",
    "SELECT justify_interval('36 hours'), isfinite(now()), age(timestamp '2024-01-01', timestamp '2023-01-01'), extract(epoch FROM now()) > 0",
    "SELECT setseed IS NULL FROM (SELECT 1 AS setseed) q",
    "SELECT * FROM items WHERE name ~* 'ITEM' AND name !~ 'x' AND name NOT SIMILAR TO 'x%' AND name LIKE 'i\\%' ESCAPE '!'",
    'SELECT * FROM items ORDER BY name COLLATE "C" DESC NULLS FIRST LIMIT ALL OFFSET 2 ROWS',
    "SELECT * FROM items FETCH NEXT ROW ONLY",
    "SELECT GREATEST(id, 2), LEAST(id, 3), COALESCE(name, '-'), NULLIF(id, 1), id IS NOT DISTINCT FROM 1 FROM items",
    "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) v(id, x) FULL JOIN items USING (id) AS j",
    "SELECT j.id FROM items a JOIN items b USING (id) AS j",
    "SELECT pg_input_is_valid('1', 'integer'), pg_input_is_valid('1', 'public.positive')",
    "SELECT id, sum(sum(price)) OVER (ORDER BY id) FROM items GROUP BY id",
    "SELECT crc32('a'), sha512('a'), md5('a'), encode(sha256('a'), 'hex')",
    "SELECT string_to_array('a,b', ','), array_remove(ARRAY[1, 2], 1), array_sort(ARRAY[2, 1]), array_reverse(ARRAY[1, 2]), array_shuffle(ARRAY[1, 2]) IS NOT NULL, array_sample(ARRAY[1, 2], 1) IS NOT NULL",
    "SELECT num_nulls(1, NULL), num_nonnulls(1), format('%2$s %1$L', 'a', 'b')",
    "SELECT bit_count('abc'::bytea), get_byte('abc', 1), factorial(5), gcd(12, 8), lcm(4, 6), erf(1), cbrt(27), degrees(pi()), atan2(1, 2), log(2, 8), sign(-1), scale(1.50), trim_scale(1.50), min_scale(1.50), div(7, 2)",
    *(f"SELECT * FROM {view} LIMIT 3" for view in SYSTEM_VIEWS.split()),
]
