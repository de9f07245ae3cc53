"""Show the first rows of a file: text of any encoding, Parquet, workbooks."""

from __future__ import annotations

from datasources.preview.compression import open_decompressed as open_decompressed
from datasources.preview.encodings import DIVISIBLE_ENCODINGS as DIVISIBLE_ENCODINGS
from datasources.preview.files import preview_file as preview_file
from datasources.preview.parquet import (
    is_parquet as is_parquet,
    parquet_statistics as parquet_statistics,
    preview_parquet as preview_parquet,
)
from datasources.preview.text import (
    find_layout as find_layout,
    is_delimited as is_delimited,
    preview_text as preview_text,
)
from datasources.preview.workbook import (
    MAX_WORKBOOK as MAX_WORKBOOK,
    as_columns as as_columns,
    is_workbook as is_workbook,
    preview_workbook as preview_workbook,
    read_sheet as read_sheet,
)
