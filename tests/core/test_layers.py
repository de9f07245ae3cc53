"""The house's order: imports go down the list only, and some rooms never meet."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import datasources

ROOT = Path(datasources.__file__).parent
PLUGINS = Path(__file__).parents[2] / "plugins"

# Bottom to top, a room a line; files of one room stand in order too.
ROOMS = """
redaction
errors
media_types
models
options
connector
hookspecs
checksums paths quota workspace
preview
tabular
workbooks
threads
copying
credentials
policy
stores
pool_io pool_state pool
index compatibility plugins
expanding cache operations connections sources receipts fetching sessions registry
blocking
audit telemetry
config
templates
transfer
scaffold
cli
testing
"""
RANK = {name: rank for rank, name in enumerate(ROOMS.split())}
ROOM = {name: line.split()[-1] for line in ROOMS.strip().splitlines() for name in line.split()}
MIDDLE = {"workspace", "credentials", "policy", "stores", "pool", "plugins"}
TOP = {"cli", "testing"}


def edges(tree: ast.AST, *, typing_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each name imported from `datasources`, and whether for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from edges(ast.Module([child], []), typing_only=True)
            for child in node.orelse:
                yield from edges(ast.Module([child], []), typing_only=typing_only)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from ((n, typing_only) for n in names if n.split(".")[0] == "datasources")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            if (node.module or "") == "datasources":
                yield from ((f"datasources.{alias.name}", typing_only) for alias in node.names)
            elif (node.module or "").startswith("datasources."):
                yield str(node.module), typing_only
        else:
            yield from edges(node, typing_only=typing_only)


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    for name, typing_only in edges(ast.parse(path.read_text("utf-8"))):
        yield name.removeprefix("datasources").lstrip(".").split(".")[0], typing_only


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_list_only(path: Path) -> None:
    name = name_of(path)
    assert name in RANK, f"give {name} its place in ROOMS"
    for other, typing_only in imports_of(path):
        if other == name:
            continue  # within one package
        # Names of the package itself come from anywhere, so they hide what is imported; only
        # the command line and the test kit stand above it.
        assert other in RANK or name in TOP, f"{name} imports {other!r} from the package itself"
        assert other not in TOP, f"{name} imports {other}"
        if typing_only or other not in RANK:
            continue
        assert RANK[other] < RANK[name], f"{name} imports {other}, which stands above it"
        if ROOM[name] in MIDDLE and ROOM[other] in MIDDLE:
            assert ROOM[name] == ROOM[other], f"{name} and {other} are to be joined by registry"


def test_errors_and_redaction_stand_on_nothing_of_ours() -> None:
    assert [list(imports_of(ROOT / f"{name}.py")) for name in ("errors", "redaction")] == [[], []]


def test_connectors_use_public_names_only() -> None:
    files = sorted(PLUGINS.glob("*/src/**/*.py"))
    assert files
    for path in files:
        own = path.relative_to(PLUGINS).parts[2]
        for name, _ in imports_of(path):
            assert name in datasources.__all__, (
                f"{own}: {path.name} imports {name or 'datasources'}"
            )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import datasources.cli.main", [("datasources.cli.main", False)]),
        ("def f():\n    from datasources import pool", [("datasources.pool", False)]),
        (
            "if TYPE_CHECKING:\n    import datasources.a\nelse:\n    import datasources.b",
            [("datasources.a", True), ("datasources.b", False)],
        ),
        ("from datasources_other import x\nimport datasourcesx", []),
    ],
)
def test_every_kind_of_import_is_seen(source: str, found: list[tuple[str, bool]]) -> None:
    assert list(edges(ast.parse(source))) == found
