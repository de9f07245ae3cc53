"""Write a Dask dataframe to a source that takes uploads, one Parquet file for each partition."""

from __future__ import annotations

import os
import tempfile

import dask.dataframe as dd
import pandas as pd
from dask.base import compute
from dask.delayed import delayed

from datasources import DataItem, ItemExistsError, ItemNotFoundError
from datasources_dask.environment import open_for_one_connection, settings_of_environment
from datasources_dask.slots import Slots


def write_to(frame: dd.DataFrame, source_id: str, folder: str) -> list[DataItem]:
    """Compute a dataframe, and store its partitions as Parquet files below a folder of a source.

    Each worker stores `FOLDER/part-00000.parquet` and so on, without the index, through the source
    in the store that its environment names. Each file is whole or absent. If a partition fails,
    the files of others stay. A folder has one writer at a time.

    Args:
        frame: The dataframe.
        source_id: The source.
        folder: A folder that has no items yet.

    Returns:
        The stored items in the order of the partitions.

    Raises:
        ItemExistsError: The folder has items.
        UnsupportedError: The source takes no uploads.
        DataSourceError: As `DataSourceRegistry.upload`.
    """
    folder = folder.rstrip("/")
    _check_empty(source_id, folder)
    slots = Slots(source_id, settings_of_environment().pool.max_size)
    write = delayed(_write_partition, pure=False)
    parts = [
        write(partition, slots, f"{folder}/part-{number:05}.parquet")
        for number, partition in enumerate(frame.to_delayed())
    ]
    return list(compute(*parts))


def _check_empty(source_id: str, folder: str) -> None:
    with open_for_one_connection() as registry:
        try:
            item = next(registry.iter_items(source_id, f"{folder}/"), None)
        except ItemNotFoundError:
            return
    if item is not None:
        raise ItemExistsError(f"the folder {folder!r} of source {source_id!r} has items already")


def _write_partition(partition: pd.DataFrame, slots: Slots, name: str) -> DataItem:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "part.parquet")
        partition.to_parquet(path, index=False)
        with slots.hold(), open_for_one_connection() as registry:
            # A task that runs again, as its worker was lost, replaces its own file.
            return registry.upload(slots.source_id, path, name)
