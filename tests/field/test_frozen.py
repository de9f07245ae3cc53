"""The command that docs/frozen.md shows, run: the program finds its connectors."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.core.workbooks import xlsx
from tests.docs.blocks import DOCS, blocks

APP = """
import sys
from datasources import DataSourceConfig
from datasources.blocking import DataSourceRegistry
from datasources.cli import main

if sys.argv[1] != "api":
    sys.exit(main())
with DataSourceRegistry() as registry:
    config = DataSourceConfig("d", "local_file", "D", {"path": sys.argv[2]})
    registry.register_data_source(config)
    print(registry.preview("d", "a.csv").columns, registry.preview("d", "b.xlsx").columns)
"""


@pytest.fixture(scope="module")
def command() -> list[str]:
    """The words of the command on the page, without the program."""
    if find_spec("PyInstaller") is None:
        message = "PyInstaller is missing; pip install 'pyinstaller>=6'"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    (text,) = [block.text for block in blocks(DOCS / "frozen.md") if block.language == "sh"]
    program, *words = shlex.split(text.replace("\\\n", " "))
    assert program == "pyinstaller"
    return words


def build(folder: Path, words: list[str]) -> Path:
    (folder / "app.py").write_text(APP)
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", *words],
        cwd=folder,
        check=True,
        timeout=580,
    )
    return folder / "dist" / "app" / "app"


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    home = program.parent.parent
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [program, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_program_finds_its_connectors_and_has_all_commands(
    command: list[str], tmp_path: Path
) -> None:
    program = build(tmp_path, command)
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.csv").write_text("a,b\n1,2\n")
    (data / "b.xlsx").write_bytes(xlsx(Data=[["c", "d"], [1, 2]]))
    assert run(program, "api", data).stdout == "('a', 'b') ('c', 'd')\n"
    assert "local_file" in run(program, "types").stdout
    added = run(program, "add", "local_file", "--id", "d", "-o", f"path={data}")
    assert (added.returncode, "Added 'd'" in added.stderr) == (0, True)
    assert "a.csv" in run(program, "items", "d").stdout
    for words in (["--help"], ["new", "--help"], ["template", "local_file"], ["export"]):
        done = run(program, *words)
        assert (done.returncode, done.stderr) == (0, "")
    assert run(program, "new", "thing").returncode == 0


@pytest.mark.slow
def test_program_without_the_metadata_has_no_connector(command: list[str], tmp_path: Path) -> None:
    program = build(tmp_path, command[:2])
    assert "no connector for 'local_file'" in run(program, "api", tmp_path).stderr
