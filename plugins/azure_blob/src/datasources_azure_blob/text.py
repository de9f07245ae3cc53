"""Preview a text blob from as few of its first bytes as hold the rows."""

from __future__ import annotations

import zlib

from datasources import DataFetchError, Preview, preview_text, run_in_thread
from datasources_azure_blob.download import Download, Version

_FIRST_READ = 64 * 1024  # bytes of the first request; holds ten rows of most files
_GROWTH = 4  # each further request multiplies the bytes read, while rows are missing
_MAX_READ = 4 * 1024 * 1024  # bytes read, and bytes decompressed


async def preview_delimited(download: Download, name: str, rows: int) -> Preview:
    """Return the first rows of a delimited or plain text blob.

    Raises:
        DataFetchError: It is not text.
    """
    head, version = await download.head(_FIRST_READ)
    limit = min(_MAX_READ, version.size)
    while True:
        # One row more than requested: the last one may be a row that the end of `head` cuts.
        preview = await run_in_thread(_preview_head, name, head, version, rows + 1)
        if len(preview.rows) > rows or len(head) >= limit:
            truncated = preview.truncated or len(preview.rows) > rows
            return Preview(preview.columns, preview.rows[:rows], truncated)
        head += await download.part(len(head), min(_GROWTH * len(head), limit))


def _preview_head(name: str, head: bytes, version: Version, rows: int) -> Preview:
    complete = len(head) == version.size
    if version.encoding.lower() in ("gzip", "x-gzip", "deflate"):
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by its header
        try:
            head = decompressor.decompress(head, _MAX_READ)
        except zlib.error as exc:
            raise DataFetchError(f"{name!r} is not {version.encoding}, as it should be") from exc
        complete = complete and decompressor.eof and not decompressor.unused_data
    return preview_text(name, head, rows, complete=complete)
