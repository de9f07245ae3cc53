"""Preview and convert workbooks, which are read as a whole into memory."""

from __future__ import annotations

from functools import partial

from datasources import (
    MAX_WORKBOOK,
    Preview,
    Workspace,
    convert_workbook,
    preview_workbook,
    run_in_thread,
)
from datasources_azure_blob.download import Download


async def preview_workbook_blob(download: Download, name: str, rows: int) -> Preview:
    """Return the first rows of a workbook.

    Raises:
        DataFetchError: It is no workbook or too large, or python-calamine is not installed.
    """
    content, _ = await download.head(MAX_WORKBOOK + 1)
    return await run_in_thread(preview_workbook, content, name, rows)


async def convert_workbook_blob(download: Download, workspace: Workspace, name: str) -> str:
    """Write the sheet of a workbook in the workspace's format; return the path of the file.

    Raises:
        DataFetchError: As `datasources.convert_workbook`.
    """
    content, version = await download.head(MAX_WORKBOOK + 1)
    mark = version.etag.strip('"')
    return await run_in_thread(partial(convert_workbook, content, workspace, name, version=mark))
