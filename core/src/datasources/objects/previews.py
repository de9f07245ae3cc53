"""Preview an object by its first bytes: text from as few of them as hold the rows, or Parquet.

Workbooks are read as a whole into memory.
"""

from __future__ import annotations

from functools import partial

from datasources.models import Preview
from datasources.objects.download import Download
from datasources.objects.parquet import preview_parquet_object
from datasources.preview import MAX_WORKBOOK, is_parquet, preview_text, preview_workbook
from datasources.threads import run_in_thread
from datasources.workbooks import convert_workbook
from datasources.workspace import Workspace

_FIRST_READ = 64 * 1024  # bytes of the first request; holds ten rows of most files
_GROWTH = 4  # each further request multiplies the bytes read, while rows are missing
_MAX_READ = 4 * 1024 * 1024  # bytes read


async def preview_text_object(
    download: Download, name: str, rows: int, *, distribution: str
) -> Preview:
    """Return the first rows of an object of text, or of one that turns out to be Parquet.

    Raises:
        DataFetchError: It is neither text nor Parquet, or pyarrow is not installed.
    """
    head, info = await download.head(_FIRST_READ)
    if is_parquet("", head[:4]):
        return await preview_parquet_object(
            download, name, info.size, rows, head=head, distribution=distribution
        )
    limit = min(_MAX_READ, info.size)
    while True:
        read_all = len(head) >= limit
        preview = await run_in_thread(
            partial(
                preview_text,
                name,
                head,
                rows,
                complete=len(head) == info.size,
                more=not read_all,
                content_encoding=info.encoding,
            )
        )
        if len(preview.rows) >= rows or read_all:
            return preview
        head += await download.part(len(head), min(_GROWTH * len(head), limit))


async def preview_workbook_object(download: Download, name: str, rows: int) -> Preview:
    """Return the first rows of a workbook.

    Raises:
        DataFetchError: It is no workbook or too large, or python-calamine is not installed.
    """
    content, _ = await download.head(MAX_WORKBOOK + 1)
    return await run_in_thread(preview_workbook, content, name, rows)


async def convert_workbook_object(download: Download, workspace: Workspace, name: str) -> str:
    """Write the sheet of a workbook in the workspace's format; return the path of the file.

    Raises:
        DataFetchError: As `datasources.convert_workbook`.
    """
    content, info = await download.head(MAX_WORKBOOK + 1)
    return await run_in_thread(
        partial(convert_workbook, content, workspace, name, version=info.etag)
    )
