"""Preview a blob by its first bytes: text from as few of them as hold the rows, or Parquet."""

from __future__ import annotations

from functools import partial

from datasources import Preview, is_parquet, preview_text, run_in_thread
from datasources_azure_blob.download import Download
from datasources_azure_blob.parquet import preview_parquet_blob

_FIRST_READ = 64 * 1024  # bytes of the first request; holds ten rows of most files
_GROWTH = 4  # each further request multiplies the bytes read, while rows are missing
_MAX_READ = 4 * 1024 * 1024  # bytes read


async def preview_text_blob(download: Download, name: str, rows: int) -> Preview:
    """Return the first rows of a text blob, or of one that turns out to be Parquet.

    Raises:
        DataFetchError: It is neither text nor Parquet, or pyarrow is not installed.
    """
    head, version = await download.head(_FIRST_READ)
    if is_parquet("", head[:4]):
        return await preview_parquet_blob(download, name, version.size, rows, head)
    limit = min(_MAX_READ, version.size)
    while True:
        read_all = len(head) >= limit
        preview = await run_in_thread(
            partial(
                preview_text,
                name,
                head,
                rows,
                complete=len(head) == version.size,
                more=not read_all,
                content_encoding=version.encoding,
            )
        )
        if len(preview.rows) >= rows or read_all:
            return preview
        head += await download.part(len(head), min(_GROWTH * len(head), limit))
