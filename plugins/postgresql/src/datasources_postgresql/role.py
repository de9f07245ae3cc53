"""The SQL of a role that reads and does nothing else."""

ROLE = """\
-- A role that can read, and nothing else. Replace the names reader, sales (the database) and public
-- (the schema) and the password; run it in that database, as the role that makes its tables.

CREATE ROLE reader LOGIN PASSWORD 'change this'
    CONNECTION LIMIT 20
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

-- What holds unless a session says otherwise.
ALTER ROLE reader SET default_transaction_read_only = on;
ALTER ROLE reader SET statement_timeout = '5min';
ALTER ROLE reader SET lock_timeout = '10s';
ALTER ROLE reader SET idle_in_transaction_session_timeout = '1min';

GRANT CONNECT ON DATABASE sales TO reader;

-- Once for each schema. The third line is about tables to come, of the role that runs it: repeat it
-- with FOR ROLE for every other role that makes tables.
GRANT USAGE ON SCHEMA public TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;

-- Grant it no membership in pg_read_server_files, pg_write_server_files, pg_execute_server_program
-- or pg_signal_backend, with which the connector refuses it, nor in roles that may write.

-- What everybody may do, this role included, unless you take it away; others may need it. The
-- second is so already in databases made by PostgreSQL 15 or newer.
-- REVOKE TEMPORARY ON DATABASE sales FROM PUBLIC;
-- REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Functions that every role may call, and that no read-only transaction stops. Each line is for this
-- database, and takes the function from everybody who is no superuser and has no grant of it.
-- Sessions of the same role can end each other; afterwards an administrator ends them:
-- REVOKE EXECUTE ON FUNCTION pg_terminate_backend(int, bigint), pg_cancel_backend(int) FROM PUBLIC;
-- Locks that outlast a transaction; migration tools and job queues take them, so grant it to their roles:
-- REVOKE EXECUTE ON FUNCTION pg_advisory_lock(bigint), pg_advisory_lock(int, int),
--     pg_try_advisory_lock(bigint), pg_try_advisory_lock(int, int) FROM PUBLIC;
-- SQL given as text, in which nobody sees what it calls; exports to XML and text search tools use it:
-- REVOKE EXECUTE ON FUNCTION query_to_xml(text, bool, bool, text), ts_stat(text), ts_stat(text, text),
--     ts_rewrite(tsquery, text) FROM PUBLIC;
"""
