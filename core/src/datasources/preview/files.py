"""Show the first rows of a file that can be read at any place."""

from __future__ import annotations

from typing import BinaryIO

from datasources.models import Preview
from datasources.preview.parquet import is_parquet, preview_parquet
from datasources.preview.text import preview_text

_TEXT_BYTES = 1024 * 1024  # read for a preview of text


def preview_file(file: BinaryIO, name: str, rows: int = 10) -> Preview:
    """Return the first rows of a text or Parquet file. This blocks; call it in a thread.

    Args:
        file: A file at its beginning; a Parquet file must be able to seek.
        name: Its name, whose extension tells what is in it.
        rows: Rows at most.

    Raises:
        DataFetchError: It is neither, is damaged, or is Parquet and pyarrow is not installed.
    """
    head = bytearray()
    while len(head) <= _TEXT_BYTES and (data := file.read(_TEXT_BYTES + 1 - len(head))):
        head += data
    if is_parquet(name, bytes(head[:4])):
        file.seek(0)
        return preview_parquet(file, name, rows)
    complete = len(head) <= _TEXT_BYTES
    return preview_text(name, bytes(head[:_TEXT_BYTES]), rows, complete=complete)
