"""Convert workbooks of spreadsheets to CSV or Parquet files of a workspace."""

from __future__ import annotations

import io

from datasources.errors import DataFetchError
from datasources.preview import as_columns, read_sheet
from datasources.tabular import csv_file, distinct_names
from datasources.workspace import Workspace

FORMATS = ("csv", "parquet")
"""Values of `Workspace.file_format` that a workbook can be converted to."""


def convert_workbook(
    content: bytes, workspace: Workspace, name: str, *, version: str | None = None
) -> str:
    """Write the sheet of a workbook to `<name>.csv` or `<name>.parquet`; return the path.

    The format is that of the workspace. The first row that is not empty gives the columns, and
    cells with errors such as `#DIV/0!` are empty. In Parquet, a column whose cells have several
    types is text, and columns of one name get numbers, `total` and `total_2`; one without a name is
    `column_3`, by its place. This blocks; call it in a thread.

    Args:
        content: The workbook, `MAX_WORKBOOK` bytes at most.
        workspace: The workspace; its limit on rows cuts the table.
        name: The workbook's name.
        version: The source's mark of this content.

    Raises:
        OptionError: The format is none of `FORMATS`.
        DataFetchError: It is no workbook, has several sheets with cells, has formulas whose values
            are not stored, or a package is missing.
        LimitExceededError: The file would grow over the limit on bytes.
    """
    workspace.require_format(*FORMATS)
    columns, rows = read_sheet(content, name)
    if workspace.file_format == "parquet":
        return _write_parquet(columns, rows, workspace, name, version)
    with csv_file(workspace, name, columns, version=version) as file:
        file.write_rows(rows)
    return file.path


def _write_parquet(
    columns: list[str],
    rows: list[list[object]],
    workspace: Workspace,
    name: str,
    version: str | None,
) -> str:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as exc:
        raise DataFetchError(
            "writing Parquet needs pyarrow; pip install 'datasources[parquet]'"
        ) from exc
    limit = workspace.limits.max_rows
    written = rows if limit is None else rows[:limit]
    table = pa.Table.from_arrays(
        [pa.array(column) for column in as_columns(columns, written)],
        distinct_names(columns),
    )
    content = io.BytesIO()
    parquet.write_table(table, content)
    with workspace.create(f"{name}.parquet", flat=True) as file:
        file.rows, file.truncated, file.version = len(written), len(written) < len(rows), version
        file.write(content.getbuffer())
    return file.path
