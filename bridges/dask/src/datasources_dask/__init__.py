"""Sources as Dask dataframes: a cluster reads the splits of an item, and writes Parquet files."""

from datasources_dask.environment import open_registry
from datasources_dask.reading import read_source, splits_of
from datasources_dask.writing import write_to

__all__ = ["open_registry", "read_source", "splits_of", "write_to"]
