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
from datasources_postgresql.arrow.ranges import block_range, copy_range

__all__ = [
    "block_range",
    "copy_range",
    "import_arrow",
    "iterate_batches",
    "layout_of",
    "load_table",
    "write_parquet",
]
