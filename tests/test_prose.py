"""Rules of CONTRIBUTING for docstrings that a program can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ["core/src", "plugins", "hosts", "bridges", "examples", "demo", "docs"]
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
QUESTION = re.compile(r"(What|Who|Which|Where|Whether|How)\b")


def docstrings(path: Path) -> list[str]:
    """Return the first line of every text that stands alone: docstrings, and those of fields."""
    return [
        node.value.value.strip().split("\n")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def test_docstrings_are_found() -> None:
    assert sum(len(docstrings(path)) for path in FILES) > 500


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_say_what_a_thing_does_and_are_no_questions(path: Path) -> None:
    assert [line for line in docstrings(path) if QUESTION.match(line)] == []
