"""Items as tables of pyarrow or pandas, whichever is installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from datasources_client.defaults import fetch
from datasources_client.errors import OptionError

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".csv.gz")


def table(
    source: str,
    item: str,
    *,
    format: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """Fetch an item or a query, and read it as a `pyarrow.Table`, or a `pandas.DataFrame`.

    pandas is used where pyarrow is not installed.

    Args:
        source: The id of the source.
        item: The path of an item, or a query.
        format: `parquet` or `csv`. By default a file of one of these is taken as it is stored, and
            anything else is fetched as Parquet where pyarrow is installed, else as CSV.
        parameters: As for `preview`.

    Raises:
        OptionError: No library that reads the file is installed, or it is neither Parquet nor CSV.
        DataSourceError: As `fetch`.
    """
    library = next((name for name in ("pyarrow", "pandas") if find_spec(name)), None)
    if library is None:
        raise OptionError(
            "a table needs pyarrow or pandas, and neither is installed here; `fetch` gives a file, "
            "and `preview` the first rows"
        )
    is_stored = item.lower().endswith(_PARQUET + _CSV)
    default = None if is_stored else "parquet" if library == "pyarrow" else "csv"
    path = fetch(source, item, format=format or default, parameters=parameters).path
    if path.lower().endswith(_PARQUET):
        return _read(library, "parquet", path)
    if path.lower().endswith(_CSV):
        return _read(library, "csv", path)
    name = os.path.basename(path)
    raise OptionError(f"{name!r} is neither Parquet nor CSV; open the file that `fetch` gives")


def _read(library: str, format: str, path: str) -> Any:
    if library == "pandas":
        try:
            return getattr(importlib.import_module("pandas"), f"read_{format}")(path)
        except ImportError:  # of what pandas reads Parquet with
            name = os.path.basename(path)
            raise OptionError(
                f"{name!r} is Parquet, and pyarrow, which reads it, is not installed here"
            ) from None
    reader = importlib.import_module(f"pyarrow.{format}")
    return reader.read_table(path) if format == "parquet" else reader.read_csv(path)
