"""The bound on all files of a workspace together."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources import LimitExceededError, Workspace
from datasources.workspace import Quota


def write(workspace: Workspace, name: str, *pieces: int) -> None:
    """Write a file in pieces of so many bytes."""
    with workspace.create(name) as file:
        for size in pieces:
            file.write(bytes(size))


def test_the_error_of_a_quota_does_not_count_the_file_that_does_not_fit(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, quota=Quota(str(tmp_path), 10))
    write(workspace, "small", 1)
    message = (
        r"^'large' does not fit: the other files of the workspace have 1 bytes, and may have 10 "
        r"together with it; delete files, or raise the quota$"
    )
    with pytest.raises(LimitExceededError, match=message):
        write(workspace, "large", 8, 8)
    (tmp_path / "large").write_bytes(bytes(16))
    with pytest.raises(LimitExceededError, match=message):
        workspace.adopt(f"{workspace}/large")


def test_what_did_not_fit_is_not_counted(tmp_path: Path) -> None:
    quota = Quota(str(tmp_path), 10)
    with pytest.raises(LimitExceededError):
        write(Workspace(tmp_path, quota=quota), "large", 8, 8)
    assert quota.used == 0
