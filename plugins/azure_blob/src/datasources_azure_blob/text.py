"""The first rows of a text blob, from as little of its beginning as holds them."""

from __future__ import annotations

import zlib

from datasources import DataFetchError, Preview, preview_text, run_in_thread
from datasources_azure_blob.download import Download, Version

_FIRST = 64 * 1024  # bytes asked for at first
_GROWTH = 4  # times as many in all, while rows are missing
_MOST = 4 * 1024 * 1024  # bytes read, and bytes decompressed


async def preview_delimited(download: Download, name: str, rows: int) -> Preview:
    """Return the first rows of a delimited or plain text blob.

    Raises:
        DataFetchError: It is not text.
    """
    head, version = await download.head(_FIRST)
    most = min(_MOST, version.size)
    while True:
        # One row more than asked for: what the last one seems to be may have been cut.
        found = await run_in_thread(_preview, name, head, version, rows + 1)
        if len(found.rows) > rows or len(head) >= most:
            return Preview(found.columns, found.rows[:rows], _is_cut(found, rows))
        head += await download.part(len(head), min(_GROWTH * len(head), most))


def _is_cut(found: Preview, rows: int) -> bool:
    return found.truncated or len(found.rows) > rows


def _preview(name: str, head: bytes, version: Version, rows: int) -> Preview:
    complete = len(head) == version.size
    if version.encoding.lower() in ("gzip", "x-gzip", "deflate"):
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either, by its header
        try:
            head = decompressor.decompress(head, _MOST)
        except zlib.error as exc:
            raise DataFetchError(f"{name!r} is not {version.encoding}, as it should be") from exc
        complete = complete and decompressor.eof and not decompressor.unused_data
    return preview_text(name, head, rows, complete=complete)
