"""The bound on all files of a workspace together."""

from __future__ import annotations

import os
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


def test_a_recount_does_not_forget_what_is_reserved_and_not_yet_written(tmp_path: Path) -> None:
    quota = Quota(str(tmp_path), 10)
    quota.reserve(6, "large")
    quota.recount()
    assert quota.used == 6
    with pytest.raises(LimitExceededError):
        quota.reserve(6, "other")


def test_a_recount_in_mid_write_counts_each_byte_once(tmp_path: Path) -> None:
    quota = Quota(str(tmp_path), 100)
    workspace = Workspace(tmp_path, quota=quota)
    (tmp_path / "of another program").write_bytes(bytes(5))
    with workspace.create("a") as file:
        for written in (10, 20):
            file.write(bytes(10))
            quota.recount()
            assert quota.used == 5 + written
    quota.recount()
    assert quota.used == 25
    with workspace.create("a") as file:
        file.write(bytes(3))
        quota.recount()
        assert quota.used == 28  # the old file and the new one
    assert quota.used == 8
    quota.recount()
    assert quota.used == 8


def test_a_file_put_in_place_during_a_recount_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = Quota(str(tmp_path), 100)
    file = Workspace(tmp_path, quota=quota).create("a")
    file.__enter__()
    file.write(bytes(10))
    scan = os.scandir

    def scan_and_commit(path: str) -> list[os.DirEntry[str]]:
        with scan(path) as entries:
            seen = list(entries)
        file.__exit__(None, None, None)
        return seen

    class Scanned:
        def __init__(self, path: str) -> None:
            self._entries = scan_and_commit(path)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self._entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("datasources.workspace.quota.os.scandir", Scanned)
    quota.recount()
    assert quota.used == 10
