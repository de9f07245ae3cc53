"""The command line where file names and output are ASCII: a locale of C that Python is told to obey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = "import sys; from datasources.cli.app import cli; sys.exit(cli.run())"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def datasources(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "datasources", *arguments, **environ)


def python(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    # The variables of the caller that could name a store, a key or settings are left out.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DATASOURCE")}
    return subprocess.run(
        [sys.executable, *arguments],
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
    listed = datasources(folder, "list", **ASCII, PYTHONIOENCODING="ascii")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert r"Gr\xf6\xdfe" in listed.stdout
    as_json = datasources(folder, "list", "--json", **ASCII, PYTHONIOENCODING="ascii")
    assert [each["name"] for each in json.loads(as_json.stdout)] == ["Größe", "Größe"]


@pytest.mark.parametrize("environ", [ASCII, ASCII | {"LC_ALL": "POSIX"}, {"LC_ALL": "C"}])
def test_arguments_and_names_of_files_are_utf_8_in_every_locale(
    folder: Path, environ: dict[str, str]
) -> None:
    (folder / "grün" / "größe 大.csv").write_text("ä,b\n1,2\n", encoding="utf-8")
    options = ["--id", "new", "--name", "Nötes", "-o", f"path={folder / 'grün'}"]
    added = datasources(folder, "add", "local_file", *options, **environ)
    assert added.returncode == 0, added.stderr
    listed = datasources(folder, "list", "--json", **environ)
    assert "Nötes" in [each["name"] for each in json.loads(listed.stdout)]
    items = datasources(folder, "items", "new", "--json", **environ)
    assert [each["path"] for each in json.loads(items.stdout)] == ["größe 大.csv"]
    fetched = datasources(folder, "fetch", "new", "größe 大.csv", "--into", "wö", **environ)
    assert fetched.returncode == 0, fetched.stderr
    assert (folder / "wö" / "größe 大.csv").exists()


def test_files_are_read_as_utf_8(folder: Path) -> None:
    preview = datasources(folder, "preview", "plain", "a.csv", "--json", **ASCII)
    assert json.loads(preview.stdout)["columns"] == ["ä"]
    (folder / "settings.toml").write_text(
        '[sources.x]\ntype = "local_file"\nname = "Größe"\noptions = {path = "plain"}\n', "utf-8"
    )
    listed = datasources(folder, "--config=settings.toml", "list", "--json", **ASCII)
    assert [each["name"] for each in json.loads(listed.stdout)] == ["Größe"] * 3


@pytest.mark.parametrize("command", ["test", "items"])
def test_a_host_is_told_of_a_path_that_no_file_can_have_there(folder: Path, command: str) -> None:
    failed = python(folder, "-c", LIBRARY, command, "green", **ASCII)
    assert failed.returncode == 1
    assert "is no path where file names are ascii; set a UTF-8 locale" in failed.stderr
    assert "unexpected" not in failed.stderr
