"""Show the first rows of a file that can be read at any place."""

from __future__ import annotations

from typing import BinaryIO

from datasources.models import Preview
from datasources.preview.parquet import is_parquet, preview_parquet
from datasources.preview.text import preview_text
from datasources.preview.workbook import MAX_WORKBOOK, is_workbook, preview_workbook

_TEXT_BYTES = 1024 * 1024  # read for a preview of text


def preview_file(file: BinaryIO, name: str, rows: int = 10) -> Preview:
    """Return the first rows of a file of text, Parquet, or a workbook. This blocks.

    Args:
        file: A file at its beginning; a Parquet file must be able to seek.
        name: Its name, whose extension tells what is in it.
        rows: Rows at most.

    Raises:
        DataFetchError: It is none of these, is damaged, or pyarrow or python-calamine is needed and
            not installed.
    """
    if is_workbook(name):
        return preview_workbook(_read(file, MAX_WORKBOOK + 1), name, rows)
    head = _read(file, _TEXT_BYTES + 1)
    if is_parquet(name, head[:4]):
        file.seek(0)
        return preview_parquet(file, name, rows)
    complete = len(head) <= _TEXT_BYTES
    return preview_text(name, head[:_TEXT_BYTES], rows, complete=complete)


def _read(file: BinaryIO, size: int) -> bytes:
    """Read up to `size` bytes, also from a file without a buffer, whose reads may bring fewer."""
    content = bytearray()
    while len(content) < size and (data := file.read(size - len(content))):
        content += data
    return bytes(content)
