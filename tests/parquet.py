"""Parquet files for tests."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import parquet as pq


def parquet(*, row_group_size: int | None = None, **columns: Sequence[object]) -> bytes:
    """Return a Parquet file of these columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), file, row_group_size=row_group_size)
    return file.getvalue()
