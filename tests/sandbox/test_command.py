"""The command `datasources run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, run  # a fixture

__all__ = ["run"]


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A folder with files, which is the source `lake`."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake/orders.csv").write_text("id,total\n1,9.5\n2,20\n")
    assert run("add", "local_file", "--id", "lake", "-o", f"path={tmp_path}/lake").code == 0
    return tmp_path


def write_script(folder: Path, code: str) -> str:
    path = folder / "script.py"
    path.write_text(code)
    return str(path)


def test_script_reads_its_sources_and_its_files_are_copied(run: Run, folder: Path) -> None:
    script = write_script(
        folder,
        "import sys\nimport datasources_client as ds\n"
        "print([source.id for source in ds.sources()], sys.argv[1:])\n"
        "path = ds.fetch('lake', 'orders.csv').path\n"
        "open('sum.txt', 'w').write(str(len(open(path).readlines())))\n"
        "import os; os.symlink('/etc/passwd', 'link')\n",
    )
    into = folder / "results"
    done = run("run", script, "first", "--source", "lake", "--into", str(into))
    assert (done.code, done.out) == (0, "['lake'] ['first']\n"), done.err
    assert (into / "sum.txt").read_text() == "3"
    assert sorted(path.name for path in into.iterdir()) == ["orders.csv", "sum.txt"]


def test_exit_code_is_that_of_the_script(run: Run, folder: Path) -> None:
    assert run("run", write_script(folder, "raise SystemExit(7)")).code == 7


def test_script_that_was_ended_is_an_error_that_names_the_limit(run: Run, folder: Path) -> None:
    script = write_script(folder, "import time; time.sleep(60)")
    done = run("run", script, "--timeout", "0.5")
    assert (done.code, done.error) == (1, "the script was ended: it took longer than --timeout")


def test_output_cannot_command_the_terminal(run: Run, folder: Path) -> None:
    assert run("run", write_script(folder, r"print('a\x1b[2Jb')")).out == "a\\x1b[2Jb\n"


def test_unknown_source_is_an_error_before_anything_runs(run: Run, folder: Path) -> None:
    done = run("run", write_script(folder, "print('here')"), "--source", "lak")
    assert done.code != 0
    assert "lake" in done.error
    assert done.out == ""


WITHOUT_EXTRA = """
import sys
sys.modules["datasources_client"] = None
from datasources.cli import main
sys.exit(main())
"""


def test_command_without_the_extra_names_the_install_command(tmp_path: Path) -> None:
    script = write_script(tmp_path, "print('here')")
    command = [sys.executable, "-c", WITHOUT_EXTRA, "run", script]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert process.returncode != 0
    assert "pip install 'datasources-agents[sandbox]'" in process.stderr
    assert process.stdout == ""
