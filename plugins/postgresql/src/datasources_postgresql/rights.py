"""Tell what a role may do besides reading, so that an administrator can take it away."""

from __future__ import annotations

from datasources_postgresql.guard import Execute

# Attributes and memberships of the role and of all roles that it may become by SET ROLE.
_ROLES = b"""
SELECT r.rolname, r.rolname = current_user,
    pg_catalog.array_remove(ARRAY[
        CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
        CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END], NULL)
FROM pg_catalog.pg_roles r
WHERE r.rolname = current_user OR pg_catalog.pg_has_role(r.oid, 'MEMBER')
    AND r.rolname <> ALL (%s)
ORDER BY r.rolname <> current_user, r.rolname
"""
# The roles of PostgreSQL with which one reads and nothing else.
_READING_ROLES = [
    "pg_database_owner", "pg_monitor", "pg_read_all_data", "pg_read_all_settings",
    "pg_read_all_stats", "pg_stat_scan_tables",
]  # fmt: skip

# For each kind of right: how many objects it is for, and the first of them.
_GRANTS = b"""
SELECT kind, pg_catalog.count(*), min(name)
FROM (
    SELECT 'write', pg_catalog.concat(n.nspname, '.', c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= '16384'::pg_catalog.oid AND c.relkind IN ('r', 'p', 'v', 'f')
        AND (pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
            OR pg_catalog.has_any_column_privilege(c.oid, 'INSERT, UPDATE'))
  UNION ALL
    SELECT 'change', pg_catalog.concat(n.nspname, '.', c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE CASE WHEN c.relkind = 'S'
        THEN pg_catalog.has_sequence_privilege(c.oid, 'USAGE, UPDATE') END
  UNION ALL
    SELECT 'objects', n.nspname FROM pg_catalog.pg_namespace n
    WHERE n.nspname !~ '^pg_(temp|toast)' AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')
  UNION ALL
    SELECT 'schemas', d.datname FROM pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()
        AND pg_catalog.has_database_privilege(d.oid, 'CREATE')
  UNION ALL
    SELECT 'temporary', d.datname FROM pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()
        AND pg_catalog.has_database_privilege(d.oid, 'TEMPORARY')
  UNION ALL
    SELECT 'definer', pg_catalog.concat(n.nspname, '.', p.proname)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prosecdef AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')) AS granted(kind, name)
GROUP BY kind
ORDER BY kind
"""
_KINDS = {
    "write": ("write to", "tables"),
    "change": ("change", "sequences"),
    "objects": ("create objects in", "schemas"),
    "schemas": ("create schemas in", "databases"),
    "temporary": ("create temporary tables in", "databases"),
    "definer": ("act with the rights of others by calling", "functions"),
}
"""The verb and the objects of each kind of right."""

# What no READ ONLY transaction stops: it ends or holds up sessions, runs SQL given as text, reaches
# files or other servers, or changes what is not in a transaction.
_EFFECTS = [
    "dblink", "dblink_connect", "dblink_exec", "lo_export", "lo_import", "pg_advisory_lock",
    "pg_cancel_backend", "pg_create_restore_point", "pg_logical_emit_message", "pg_ls_dir",
    "pg_promote", "pg_read_binary_file", "pg_read_file", "pg_reload_conf", "pg_rotate_logfile",
    "pg_stat_reset", "pg_switch_wal", "pg_terminate_backend", "pg_try_advisory_lock", "query_to_xml",
    "ts_rewrite", "ts_stat",
]  # fmt: skip
_FUNCTIONS = b"""
SELECT DISTINCT p.proname::pg_catalog.text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = ANY (%s) AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1
"""


async def excess_rights(execute: Execute) -> list[str]:
    """Return a sentence for each kind of right that the session's role has besides reading.

    Args:
        execute: Runs a question of this package.
    """
    (own, *others) = await execute(_ROLES, [_READING_ROLES])
    name, _, attributes = own
    subject = f"the role {name!r}"
    if "SUPERUSER" in attributes:
        return [f"{subject} is a superuser, which may do everything"]
    sentences = [f"{subject} has {', '.join(attributes)}"] if attributes else []
    for other, _, gained in others:
        sentences.append(
            f"{subject} may act as {other!r}"
            + (f", which has {', '.join(gained)}" if gained else "")
        )
    for kind, count, example in await execute(_GRANTS, []):
        verb, objects = _KINDS[kind]
        what = repr(example) if count == 1 else f"{count} {objects}, such as {example!r}"
        sentences.append(f"{subject} may {verb} {what}")
    if names := [function for (function,) in await execute(_FUNCTIONS, [_EFFECTS])]:
        sentences.append(
            f"{subject} may call {', '.join(names)}, which have effects in spite of READ ONLY"
        )
    return sentences
