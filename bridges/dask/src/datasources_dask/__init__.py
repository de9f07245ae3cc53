"""Sources as Dask dataframes: a cluster reads the splits of an item, and writes Parquet files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_dask.environment import open_registry as open_registry
    from datasources_dask.reading import read_source as read_source, splits_of as splits_of
    from datasources_dask.writing import write_to as write_to

# Workers of other engines open the registry only: importing Dask would take them seconds.
__getattr__ = lazy_exports(
    __name__,
    {
        "open_registry": "environment",
        "read_source": "reading",
        "splits_of": "reading",
        "write_to": "writing",
    },
)

__all__ = ["open_registry", "read_source", "splits_of", "write_to"]
