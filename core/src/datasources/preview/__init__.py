"""Show the first rows of a file: delimited and plain text of any encoding, and Parquet."""

from __future__ import annotations

from datasources.preview.files import preview_file as preview_file
from datasources.preview.parquet import (
    is_parquet as is_parquet,
    preview_parquet as preview_parquet,
)
from datasources.preview.text import preview_text as preview_text
