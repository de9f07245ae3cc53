"""Files of a job are put in place all together, and undone without a change to those of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasources_server.workspace_files import Staging


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace/a").mkdir(parents=True)
    (tmp_path / "workspace/a/replaced").write_text("old")
    (tmp_path / "workspace/other").write_text("of a program")
    return tmp_path / "workspace"


@pytest.fixture
def staging(workspace: Path) -> Staging:
    """The staging of two files, one of which replaces another."""
    staging = Staging(str(workspace), "job")
    staging.make()
    for name in ("a/replaced", "b/added"):
        path = Path(staging.new, name)
        path.parent.mkdir()
        path.write_text("new")
    return staging


def contents(workspace: Path) -> dict[str, str]:
    return {
        str(path.relative_to(workspace)): path.read_text()
        for path in workspace.rglob("*")
        if path.is_file()
    }


BEFORE = {"a/replaced": "old", "other": "of a program"}
AFTER = {"a/replaced": "new", "b/added": "new", "other": "of a program"}


def test_files_are_put_in_place_and_restored(workspace: Path, staging: Staging) -> None:
    files = staging.files()
    staging.place(files)
    assert contents(workspace) == AFTER
    staging.restore(files)
    assert contents(workspace) == BEFORE
    staging.restore(files)  # by another worker, too
    assert contents(workspace) == BEFORE


@pytest.mark.parametrize("placed", [0, 1])
def test_what_was_not_put_in_place_is_left_alone(
    workspace: Path, staging: Staging, placed: int
) -> None:
    files = staging.files()
    staging.place(files[:placed])
    staging.restore(files)
    assert contents(workspace) == BEFORE


def test_process_that_dies_between_keeping_and_replacing_loses_nothing(
    workspace: Path, staging: Staging
) -> None:
    files = staging.files()
    old = Path(staging.new).with_name("old") / "a"
    old.mkdir()
    os.link(workspace / "a/replaced", old / "replaced")
    staging.restore(files)
    assert contents(workspace) == BEFORE


def test_files_that_others_have_written_since_stay(workspace: Path, staging: Staging) -> None:
    files = staging.files()
    staging.place(files)
    for name in ("a/replaced", "b/added"):
        other = workspace / f"{name}.new"
        other.write_text("by a program")
        other.replace(workspace / name)
    staging.restore(files)
    assert contents(workspace) == {
        "a/replaced": "by a program",
        "b/added": "by a program",
        "other": "of a program",
    }


def test_links_are_not_followed(workspace: Path, staging: Staging, tmp_path: Path) -> None:
    files = staging.files()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "added").write_text("outside")
    (workspace / "b").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        staging.place(files)
    staging.restore(files)
    assert (outside / "added").read_text() == "outside"
    assert (workspace / "a/replaced").read_text() == "old"


def test_links_that_are_replaced_are_put_back(workspace: Path, staging: Staging) -> None:
    (workspace / "a/replaced").unlink()
    (workspace / "a/replaced").symlink_to("/etc/hostname")
    files = staging.files()
    staging.place(files)
    assert (workspace / "a/replaced").read_text() == "new"
    staging.restore(files)
    assert (workspace / "a/replaced").readlink() == Path("/etc/hostname")
