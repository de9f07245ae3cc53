"""The packages of the connector: outside of one, only the names of its `__init__` are imported."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import datasources_postgresql

ROOT = Path(datasources_postgresql.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def inner_imports(path: Path, code: str) -> list[str]:
    """Return what the code of a file imports from inside a package that the file is not in."""
    own = path.relative_to(ROOT).parts[0]
    modules = [
        node.module or "" for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)
    ]
    inner = [f"{ROOT.name}.{package}." for package in PACKAGES if package != own]
    return [module for module in modules if module.startswith(tuple(inner))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_public_names_of_a_package_are_imported_outside_of_it(path: Path) -> None:
    assert inner_imports(path, path.read_text("utf-8")) == []


def test_an_import_from_the_inside_of_a_package_is_seen() -> None:
    outside = ROOT / "connector.py"
    code = "from datasources_postgresql.store.schema import PUT"
    assert inner_imports(outside, code) == ["datasources_postgresql.store.schema"]
    assert inner_imports(ROOT / "store" / "store.py", code) == []


@pytest.mark.parametrize("name", [ROOT.name, *(f"{ROOT.name}.{package}" for package in PACKAGES)])
def test_every_public_name_of_a_package_can_be_imported(name: str) -> None:
    package = importlib.import_module(name)
    for public in package.__all__:
        exported = getattr(package, public)
        if isinstance(exported, type) or inspect.isfunction(exported):
            assert exported.__module__.startswith(ROOT.name)
