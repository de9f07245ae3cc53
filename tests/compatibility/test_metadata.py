"""The distributions' metadata agree with one another, and with what the workflow tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "plugins/*", "hosts/*", "bridges/*")
FILES = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/pyproject.toml"))]

each_distribution = pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)


def project(file: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))["project"]
    return metadata


def pythons(file: Path) -> list[str]:
    """Return the versions of Python that a distribution's classifiers name."""
    versions = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier)
        for classifier in project(file)["classifiers"]
    ]
    return [match[1] for match in versions if match]


@each_distribution
def test_distribution_names_the_pythons_on_which_the_workflow_runs_its_tests(file: Path) -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    matrix = re.search(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert matrix
    assert pythons(file) == re.findall(r"[\d.]+", matrix[1])


@each_distribution
def test_distribution_requires_the_oldest_python_that_it_names(file: Path) -> None:
    assert project(file)["requires-python"] == f">={pythons(file)[0]}"


@each_distribution
def test_distribution_has_the_version_of_the_core(file: Path) -> None:
    assert "version" in project(file)["dynamic"]
    path = tomllib.loads(file.read_text("utf-8"))["tool"]["hatch"]["version"]["path"]
    assert (file.parent / path).resolve() == ROOT / "core/src/datasources/__init__.py"


@each_distribution
def test_distribution_is_typed_and_under_the_project_licence(file: Path) -> None:
    assert "Typing :: Typed" in project(file)["classifiers"]
    assert project(file)["license"] == "MIT"
    assert (file.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
