"""The order of the core's rooms: imports go down the list only, those for type checkers too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import datasources
from datasources import objects

ROOT = Path(datasources.__file__).parent
REPOSITORY = Path(__file__).parents[2]
PLUGINS = REPOSITORY / "plugins"

# Bottom to top. A line is a module, or a package and its modules, bottom to top as well.
# CONTRIBUTING.md shows the same order.
ROOMS = """
retrying
files
locks
nested
masking
redaction_tables
redaction
errors
json_values
json_models
media_types
names
uri
stored_queries
models
streams
splits
gathering
option_types
option_rules
options
connector
connector_errors
threads
workspace: spilling paths quota checksums locking partfiles order directory folders receipts
preview: compression encodings delimited text parquet sheets sheet_lines sheet_process workbook files
tabular
workbooks
copying
file_splits: files types text parquet formats planning reading connector
objects: failures names options store folders download parquet files previews uploads proxies http connector uploading
credentials
policy
principals
stores
plugins: hookspecs discovery compatibility manager
pool: calls state pool
registry: cache concurrency observing opening filtering records factory checking queries updates pools listing paging progress splitting datasets fetching streaming reading authorization gates granted sweeping sessions access registry
blocking
observers: audit telemetry
telemetry
config
forms
templates
transfer
scaffold
cli
testing
"""
ORDER = [line.partition(":")[0] for line in ROOMS.split("\n") if line]
INSIDE = {
    name: modules.split()
    for name, _, modules in (line.partition(":") for line in ROOMS.split("\n"))
    if modules
}
# Rooms that know nothing of one another: the registry joins them.
APART = {"workspace", "credentials", "policy", "stores", "pool"}
TOP = {"cli", "testing"}
# Modules below the names of the package `datasources` itself: defined there, imported anywhere.
PACKAGE_NAMES = {"lazy_exports", "__version__"}


def imports_of(path: Path) -> Iterator[str]:
    """Yield the dotted name, below `datasources`, of each module or name that a file imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            # A name may be a module of the package: `from datasources import connector`.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "datasources":
                yield rest


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


# Of the package itself; `__main__` starts the command line and nothing imports it.
OWN = {ROOT / "__init__.py", ROOT / "__main__.py"}
FILES = sorted(path for path in ROOT.rglob("*.py") if path not in OWN)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_list_only(path: Path) -> None:
    room = room_of(path)
    assert room in ORDER, f"give {room} its place in ROOMS"
    for name in imports_of(path):
        other = name.split(".")[0]
        if other == room or other in PACKAGE_NAMES:
            continue
        # Public names hide which module is imported; the command line and the test kit stand
        # above them all.
        if room not in TOP:
            assert other in ORDER, f"{room} imports {other!r} from the package itself"
        if other in ORDER:
            assert ORDER.index(other) < ORDER.index(room), f"{room} imports {other}, above it"
        assert not {room, other} <= APART, f"{room} imports {other}; the registry is to join them"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_are_entered_by_their_own_names_only(path: Path) -> None:
    for name in imports_of(path):
        other, _, rest = name.partition(".")
        if other == room_of(path) or not (ROOT / other / "__init__.py").exists():
            continue
        inner = rest.split(".")[0]
        assert not (ROOT / other / f"{inner}.py").exists(), f"import {other}'s names, not {inner}"


@pytest.mark.parametrize("package", INSIDE)
def test_modules_of_a_package_stand_in_order(package: str) -> None:
    modules = INSIDE[package]
    assert sorted(path.stem for path in (ROOT / package).glob("*.py")) == sorted(
        ["__init__", *modules]
    )
    for module in modules:
        for name in imports_of(ROOT / package / f"{module}.py"):
            if name.startswith(f"{package}."):
                other = name.split(".")[1]
                assert other in modules, f"{module} imports {other} from the package itself"
                assert modules.index(other) < modules.index(module), f"{module} imports {other}"


def test_contributing_shows_the_same_order() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    picture = text.split("```\nretrying.py")[1].split("```")[0]
    lines = [line for line in f"retrying.py{picture}".splitlines() if not line.startswith(" ")]
    assert [line.split()[0].strip("/").removesuffix(".py") for line in lines if line] == ORDER


@pytest.mark.parametrize("name", ["retrying", "files", "locks", "nested", "masking", "errors"])
def test_the_lowest_modules_import_nothing_of_the_package(name: str) -> None:
    assert list(imports_of(ROOT / f"{name}.py")) == []


def test_connectors_use_public_names_only() -> None:
    files = sorted(PLUGINS.glob("*/src/**/*.py"))
    assert files
    for path in files:
        own = path.relative_to(PLUGINS).parts[2]
        for name in imports_of(path):
            package, _, inner = name.partition(".")
            public = objects.__all__ if package == "objects" and inner else datasources.__all__
            assert (inner or name) in public, f"{own}: {path.name} imports {name}"


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import datasources.cli.main", ["cli.main"]),
        ("def f():\n    from datasources import pool", ["pool"]),
        (
            "if TYPE_CHECKING:\n    import datasources.a\nelse:\n    import datasources.b",
            ["a", "b"],
        ),
        ("from datasources.pool import state as s", ["pool.state"]),
        ("from datasources_other import x\nimport datasourcesx", []),
    ],
)
def test_every_kind_of_import_is_seen(source: str, imported: list[str], tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(source)
    assert list(imports_of(file)) == imported
