"""Part files and their locks: on file systems without locks, and against cleaning at any moment."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from datasources import DataFetchError, Workspace
from datasources.workspace.locking import lock
from datasources.workspace.paths import TEMPORARY
from tests.descriptors import descriptors_below

LEFTOVER = TEMPORARY.format("0" * 16)


def is_writable(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_locks_files_are_written_and_never_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / LEFTOVER).touch()
    with Workspace(tmp_path).create("x") as file:
        file.write(b"content")
    assert (tmp_path / "x").read_bytes() == b"content"
    assert Workspace(tmp_path).clean() == []
    assert sorted(os.listdir(tmp_path)) == [LEFTOVER, "x"]


def test_a_leftover_is_cleaned_where_locking_demands_a_writable_descriptor_as_on_nfs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def flock_of_nfs(descriptor: int, operation: int) -> None:
        if not is_writable(descriptor):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    (tmp_path / LEFTOVER).touch()
    with Workspace(tmp_path).create("x") as file:
        file.write(b"content")
        assert Workspace(tmp_path).clean() == [LEFTOVER]
    assert os.listdir(tmp_path) == ["x"]


def test_a_leftover_that_may_not_be_deleted_is_left_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    (tmp_path / LEFTOVER).touch()
    os.utime(tmp_path / LEFTOVER, (0, 0))
    monkeypatch.setattr(os, "unlink", unlink)
    assert Workspace(tmp_path).clean() == []


def test_a_file_that_is_cleaned_before_it_is_locked_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[str] = []

    def lock_late(descriptor: int, *, wait: bool = True) -> bool:
        if wait and not cleaned:
            cleaned.extend(Workspace(tmp_path).clean())
        return lock(descriptor, wait=wait)

    monkeypatch.setattr("datasources.workspace.partfiles.lock", lock_late)
    with Workspace(tmp_path).create("x") as file:
        file.write(b"content")
    assert len(cleaned) == 1
    assert (tmp_path / "x").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_that_cannot_be_locked_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    opened = descriptors_below(tmp_path)
    with (
        pytest.raises(
            DataFetchError, match="cannot write 'x' to the workspace: Input/output error"
        ),
        Workspace(tmp_path).create("x"),
    ):
        pytest.fail("entered")
    assert os.listdir(tmp_path) == []
    assert descriptors_below(tmp_path) == opened
