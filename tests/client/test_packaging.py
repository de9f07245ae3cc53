"""The distribution needs nothing but Python's standard library."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import datasources_client

FILES = sorted(Path(datasources_client.__file__).parent.glob("*.py"))


def test_every_import_is_of_the_standard_library() -> None:
    modules = {
        name.partition(".")[0]
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    # `_typeshed` is imported for type checkers only.
    others = modules - sys.stdlib_module_names - {"datasources_client", "_typeshed"}
    assert others == set()


def test_every_public_name_is_exported() -> None:
    assert sorted(datasources_client.__all__) == datasources_client.__all__
    for name in datasources_client.__all__:
        assert getattr(datasources_client, name).__doc__
