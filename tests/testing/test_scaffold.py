"""`datasources new` writes a distribution that works as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasources import OptionError
from datasources.scaffold import create
from tests.conftest import IN_CI

NAME = "my_service"
LONGEST = "abcdefghijklm_nopqrstuvwxy"
FILES = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".gitignore",
    "tests/test_contract.py",
    *(f"src/datasources_my_service/{name}.py" for name in ("__init__", "plugin", "connector")),
    "src/datasources_my_service/source.py",
    "src/datasources_my_service/py.typed",
}


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Return what a command prints; its failure fails the test."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST"))}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(module: str) -> None:
    """Skip where a tool is missing; in CI that is a failure."""
    if not IN_CI:
        pytest.importorskip(module)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distribution as the command writes it."""
    folder = tmp_path_factory.mktemp("scaffold")
    told = run(sys.executable, "-m", "datasources.cli", "new", NAME, "--into", folder, cwd=folder)
    assert Path(told.strip()) == folder / "datasources-my-service"
    return folder / "datasources-my-service"


@pytest.fixture(scope="module")
def installed(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which its wheel alone is installed."""
    needs("hatchling")
    work = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = ["--no-index", "--no-deps"]
    build = [*offline, "--no-build-isolation", "--wheel-dir", str(work / "dist")]
    run(*pip, "wheel", *build, generated, cwd=work)
    (wheel,) = (work / "dist").glob("*.whl")
    run(*pip, "install", *offline, "--target", work / "site", wheel, cwd=work)
    return work / "site"


def test_everything_is_written_and_nothing_left_to_fill_in(generated: Path) -> None:
    found = {
        str(p.relative_to(generated))
        for p in generated.rglob("*")
        if p.is_file() and p.suffix != ".pyc"
    }
    assert found == FILES
    assert [path.name for path in generated.parent.iterdir()] == [generated.name]
    for name in FILES:
        text = (generated / name).read_text("utf-8")
        for word in ("__type__", "__class__", "__title__", "__distribution__", "__package__"):
            assert word not in text, f"{name} holds {word}"


def test_it_is_listed_once_it_is_installed(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "datasources.cli", "plugins", "--check", "--json"]
    listed = json.loads(run(*command, cwd=tmp_path, path=installed))
    (entry,) = [entry for entry in listed if entry["name"] == NAME]
    assert (entry["distribution"], entry["status"]) == ("datasources-my-service", "loaded")


def test_its_contract_tests_pass_as_generated(generated: Path, installed: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    told = run(*command, cwd=generated, path=installed)
    assert " passed" in told
    assert "failed" not in told


def test_its_template_is_for_its_own_options(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "datasources.cli", "template", NAME]
    assert "[sources.my_my_service]" in run(*command, cwd=tmp_path, path=installed)


@pytest.mark.parametrize("name", ["a", NAME, LONGEST])
def test_it_passes_lint(tmp_path: Path, name: str) -> None:
    needs("ruff")
    generated = create(name, tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    run(*ruff, "check", "--no-cache", ".", cwd=generated)
    run(*ruff, "format", "--no-cache", "--check", ".", cwd=generated)


def test_it_passes_the_type_checker(generated: Path, tmp_path: Path) -> None:
    needs("mypy")
    run(sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", cwd=generated)


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "a-b", "a b", "a__b", "_a", "a_", "../a", "a/b", "a\n", "é", "a" * 27]
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="cannot be the name of a connector"):
        create(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_taken_name_is_refused_with_those_that_are_taken(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'b' already; taken: a, b"):
        create("b", tmp_path, taken={"b", "a"})


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_what_is_there_is_not_touched(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "datasources-a"
    if kind == "directory":
        there.mkdir()
    elif kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OptionError, match="exists already"):
        create("a", tmp_path)
    assert os.listdir(tmp_path) == ["datasources-a"]


def test_the_command_refuses_installed_types_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "datasources.cli", "new", "local_file", "--into", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Error: there is a connector 'local_file' already" in done.stderr
    assert os.listdir(tmp_path) == []
