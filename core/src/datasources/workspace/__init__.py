"""Workspaces: directories for fetched data, with atomic files, checksums, a quota and receipts."""

from datasources.workspace.directory import (
    Authorize as Authorize,
    Progress as Progress,
    Workspace as Workspace,
    WorkspaceFile as WorkspaceFile,
    WrittenFile as WrittenFile,
)
from datasources.workspace.folders import (
    MANIFEST as MANIFEST,
    WorkspaceFolder as WorkspaceFolder,
)
from datasources.workspace.locking import lock as lock
from datasources.workspace.order import RequestOrder as RequestOrder
from datasources.workspace.quota import Quota as Quota
from datasources.workspace.receipts import Receipts as Receipts
from datasources.workspace.spilling import TextTable as TextTable
