"""Results as Parquet files and Arrow tables.

Importing this package does not import pyarrow; `import_arrow` does.
"""

from datasources_postgresql.arrow.batches import iterate_batches
from datasources_postgresql.arrow.parquet import (
    import_arrow,
    layout_of,
    load_table,
    write_parquet,
)

__all__ = ["import_arrow", "iterate_batches", "layout_of", "load_table", "write_parquet"]
