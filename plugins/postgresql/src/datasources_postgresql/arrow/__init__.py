"""Results as Parquet files and Arrow tables.

Importing this package does not import pyarrow; `import_arrow` does.
"""

from datasources_postgresql.arrow.parquet import import_arrow, load_table, write_parquet

__all__ = ["import_arrow", "load_table", "write_parquet"]
