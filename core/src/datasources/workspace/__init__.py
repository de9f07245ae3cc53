"""Workspaces: the directories that fetched data is written to, and what keeps them in bounds."""

from datasources.workspace.directory import (
    Progress as Progress,
    Workspace as Workspace,
    WorkspaceFile as WorkspaceFile,
    WrittenFile as WrittenFile,
)
from datasources.workspace.quota import Quota as Quota
from datasources.workspace.receipts import Receipts as Receipts
