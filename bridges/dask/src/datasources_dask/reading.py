"""Read an item of a source as a Dask dataframe, one partition for each split."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from dask.dataframe.dask_expr.io import FromMap
from dask.dataframe.extensions import make_scalar
from distributed import Client, get_client

from datasources import DataFetchError, OptionError, Split
from datasources_dask.plans import SplitReader, plan_in_store, plan_on_server

# Without this, Dask cannot plan `sum` of decimals, and `max` of decimals, dates and times.
for _scalar in (Decimal, dt.date, dt.time):
    make_scalar.register(_scalar, lambda value: value)


@contextmanager
def read_source(
    source_id: str,
    identifier: str,
    *,
    columns: Sequence[str] | None = None,
    target_bytes: int = 128 << 20,
    max_splits: int = 64,
    key: str | None = None,
    consistent: bool = True,
    max_age: float = 3600.0,
    url: str | None = None,
    token: str | None = None,
    client: Client | None = None,
) -> Iterator[dd.DataFrame]:
    """Plan the splits of an item, and yield a dataframe whose partitions the workers read.

    The plan belongs to the `with` block: compute in it. What is computed after it fails, where the
    splits share a state of the source. This process and the workers find the source in the store
    that their own environment names, see `open_registry`; the graph has its id and the splits. With
    `url`, a server has the source. The workers then need no store and no key, and the graph has the
    address and a token of the plan, which reads these splits only, until the block ends.

    Every column has the type `pandas.ArrowDtype` of its type in the plan's schema, so that integers
    with missing values, decimals and dates are exact. Only columns that the computation uses are
    read. The index means nothing: each partition counts from 0.

    Args:
        source_id: The source.
        identifier: As for `DataSourceRegistry.plan`, and so are the arguments without a line here.
        columns: The columns of the dataframe, in this order; None is all.
        target_bytes: Bytes that a partition should have at the source; a worker holds as many
            partitions in memory as it has threads.
        max_splits: The most partitions.
        key: A column whose ranges divide a query or a view.
        consistent: False to accept partitions of different states of the source.
        max_age: Seconds that the plan may last.
        url: The address of a server, as for `datasources_client.Client`, which the workers reach.
        token: Of a principal that may read the item. By default it is that of the environment of
            this process; no worker gets it.
        client: The cluster's; None is the current client. It must not be asynchronous.

    Raises:
        OptionError: There is no such column; the environment names no store; or the pool of the
            source has one connection only.
        PoolTimeoutError: Other plans and readers of the cluster have all connections of the source.
        DataSourceError: As `DataSourceRegistry.plan`; with `url`, that of `datasources_client`.
    """
    client = client or get_client()
    options: dict[str, Any] = {
        "target_bytes": target_bytes,
        "max_splits": max_splits,
        "key": key,
        "consistent": consistent,
        "max_age": max_age,
    }
    planning = (
        plan_in_store(client, source_id, identifier, **options)
        if url is None
        else plan_on_server(url, token, source_id, identifier, **options)
    )
    with planning as plan:
        schema = plan.schema.remove_metadata()
        yield dd.from_map(
            read_partition,
            plan.splits,
            # Two plans can have equal splits, but not rows of the same moment.
            args=(uuid.uuid4().hex, plan.reader, schema),
            columns=_checked(columns, schema),
            meta=_frame(schema.empty_table()),
            label="read-source",
        )


def splits_of(frame: dd.DataFrame) -> list[Split]:
    """Return the split that each partition of a dataframe is read from, in their order.

    A split has the rows and the bytes that the plan estimates, of all columns.

    Args:
        frame: A dataframe of `read_source`, or one made of it that has the same partitions.

    Raises:
        OptionError: The dataframe is not read from one item.
    """
    # The optimizer says which partitions of the source are left.
    sources = list(frame.optimize(fuse=False).expr.find_operations(FromMap))
    if len(sources) != 1 or sources[0].operand("func") is not read_partition:
        raise OptionError("the dataframe is not read from one item by `read_source`")
    splits = sources[0].operand("iterables")[0]
    return [splits[number] for number in sources[0]._partitions]


def read_partition(
    split: Split, _plan_id: str, reader: SplitReader, schema: Any, *, columns: list[str]
) -> pd.DataFrame:
    """Read a split on a worker.

    Args:
        split: The split.
        _plan_id: Makes the keys of the tasks those of one plan.
        reader: That of the plan.
        schema: `pyarrow.Schema` of all columns.
        columns: The columns to read. None of them counts rows.
    """
    # Something has to be read to count rows.
    names = columns or schema.names[:1]
    read = reader.read(split, names)
    expected = pa.schema([schema.field(name) for name in names])
    if any(not batch.schema.equals(expected) for batch in read):
        raise DataFetchError(f"the columns of {split.identifier!r} have changed; plan again")
    return _frame(pa.Table.from_batches(read, expected))[columns]


def _checked(columns: Sequence[str] | None, schema: Any) -> list[str]:
    names: list[str] = schema.names
    if unknown := [name for name in columns or () if name not in names]:
        raise OptionError(
            f"there is no column {unknown[0]!r}; the columns are {', '.join(map(repr, names))}"
        )
    return names if columns is None else list(columns)


def _frame(table: Any) -> pd.DataFrame:
    return table.to_pandas(types_mapper=pd.ArrowDtype)
