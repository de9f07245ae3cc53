"""The command line where file names and output are ASCII: a locale of C that Python is told to obey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def datasources(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    # The variables of the caller that could name a store, a key or settings are left out.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DATASOURCE")}
    return subprocess.run(
        [sys.executable, "-m", "datasources", *arguments],
        env={**inherited, "DATASOURCES_STORE": str(folder / "s.db"), **environ},
        cwd=folder,
        check=False,
        capture_output=True,
        encoding="utf-8",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "grün").mkdir()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.csv").write_text("ä\n1\n", encoding="utf-8")
    for source_id, path in (("green", "grün"), ("plain", "plain")):
        options = ["--id", source_id, "--name", "Größe", "-o", f"path={tmp_path / path}"]
        added = datasources(tmp_path, "add", "local_file", *options, PYTHONUTF8="1")
        assert added.returncode == 0, added.stderr
    return tmp_path


def test_what_cannot_be_printed_is_escaped(folder: Path) -> None:
    listed = datasources(folder, "list", **ASCII)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert r"Gr\xf6\xdfe" in listed.stdout
    as_json = datasources(folder, "list", "--json", **ASCII)
    assert [each["name"] for each in json.loads(as_json.stdout)] == ["Größe", "Größe"]


def test_files_are_read_as_utf_8(folder: Path) -> None:
    preview = datasources(folder, "preview", "plain", "a.csv", "--json", **ASCII)
    assert json.loads(preview.stdout)["columns"] == ["ä"]
    (folder / "settings.toml").write_text(
        '[sources.x]\ntype = "local_file"\nname = "Größe"\noptions = {path = "plain"}\n', "utf-8"
    )
    listed = datasources(folder, "--config=settings.toml", "list", "--json", **ASCII)
    assert [each["name"] for each in json.loads(listed.stdout)] == ["Größe"] * 3


@pytest.mark.parametrize("command", [("test", "green"), ("items", "green")])
def test_a_path_that_no_file_can_have_there_is_an_error_that_says_so(
    folder: Path, command: tuple[str, ...]
) -> None:
    failed = datasources(folder, *command, **ASCII)
    assert failed.returncode == 1
    assert "is no path where file names are ascii; set a UTF-8 locale" in failed.stderr
    assert "unexpected" not in failed.stderr
