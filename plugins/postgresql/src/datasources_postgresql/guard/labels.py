"""Name the functions whose labels do not tell whether a read may call them."""

from __future__ import annotations

# Volatile functions of PostgreSQL that change nothing.
HARMLESS = frozenset({
    "array_sample", "array_shuffle", "clock_timestamp", "current_query", "gen_random_uuid",
    "lo_get", "pg_blocking_pids", "pg_collation_actual_version", "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_database_collation_actual_version",
    "pg_database_size", "pg_get_multixact_members", "pg_indexes_size", "pg_is_in_recovery",
    "pg_is_wal_replay_paused", "pg_jit_available", "pg_last_committed_xact",
    "pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp",
    "pg_lock_status", "pg_notification_queue_usage", "pg_partition_ancestors", "pg_partition_tree",
    "pg_prepared_xact", "pg_relation_size", "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value", "pg_table_size", "pg_tablespace_size", "pg_total_relation_size",
    "pg_xact_commit_timestamp", "pg_xact_status", "random", "random_normal", "timeofday",
    "txid_status", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4",
    "gen_random_bytes", "gen_salt", "normal_rand", "pg_stat_statements", "pg_stat_statements_info",
    "uuidv4", "uuidv7", "pg_buffercache_pages", "pg_buffercache_summary",
    "pg_buffercache_usage_counts", "pgstattuple", "pgstattuple_approx", "pgstatindex",
    "pgstatginindex", "pgstathashindex", "pg_relpages", "st_generatepoints", "pg_freespace",
    "pg_visibility", "pg_visibility_map", "pg_visibility_map_summary", "pgrowlocks",
    "postgres_fdw_get_connections", "pg_get_aios", "pg_get_backend_memory_contexts",
    "pg_get_shmem_allocations", "pg_get_wait_events", "pg_hba_file_rules",
    "pg_ident_file_mappings", "pg_show_all_file_settings", "pg_show_replication_origin_status",
    "pg_stat_get_io", "pg_stat_get_recovery_prefetch", "pg_stat_get_xact_function_calls",
    "pg_stat_get_xact_function_self_time", "pg_stat_get_xact_function_total_time",
    "pg_stat_get_xact_numscans", "pg_stat_get_xact_tuples_deleted",
    "pg_stat_get_xact_tuples_fetched", "pg_stat_get_xact_tuples_hot_updated",
    "pg_stat_get_xact_tuples_inserted", "pg_stat_get_xact_tuples_newpage_updated",
    "pg_stat_get_xact_tuples_returned", "pg_stat_get_xact_tuples_updated",
})  # fmt: skip
# Functions that are not volatile, or not always, and yet run SQL given as text, call what checks
# the values of a type given as text, use up a transaction id, reach out of the database, or leave
# something in the session. `satisfies_hash_partition` calls the hash functions of a table given by id.
DENIED = frozenset({
    "connectby", "crosstab", "crosstab2", "crosstab3", "crosstab4", "crosstabn", "cursor_to_xml",
    "cursor_to_xmlschema", "database_to_xml", "database_to_xml_and_xmlschema",
    "database_to_xmlschema", "dblink", "dblink_connect", "dblink_connect_u", "dblink_exec",
    "dblink_fetch", "dblink_get_result", "dblink_open", "dblink_record", "dblink_send_query",
    "isn_weak", "pg_current_xact_id", "query_to_xml", "query_to_xml_and_xmlschema",
    "query_to_xmlschema", "schema_to_xml", "schema_to_xml_and_xmlschema", "schema_to_xmlschema",
    "satisfies_hash_partition", "st_mapalgebra", "st_mapalgebraexpr", "st_mapalgebrafct", "st_mapalgebrafctngb",
    "table_to_xml", "table_to_xml_and_xmlschema", "table_to_xmlschema", "ts_rewrite", "ts_stat",
    "txid_current", "xpath_table",
})  # fmt: skip
# The input function of text does nothing but copy; queries of this package call it.
PLAIN_INPUT = "textin"
# The functions of PostgreSQL whose body casts an argument of any type to text when it runs; the first
# two are the operator `||`.
CASTING_TO_TEXT = frozenset({"anytextcat", "textanycat", "quote_literal", "quote_nullable"})
# The functions of PostgreSQL that make values of a type which the query gives, from text or JSON.
CONVERTING = frozenset({
    "json_populate_record", "json_populate_recordset", "json_to_record", "json_to_recordset",
    "jsonb_populate_record", "jsonb_populate_record_valid", "jsonb_populate_recordset",
    "jsonb_to_record", "jsonb_to_recordset",
})  # fmt: skip
