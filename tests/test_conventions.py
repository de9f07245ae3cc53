"""Conventions of the tests, and of the contract's checks, that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("tests", "core/src/datasources/testing")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield each module of tests or checks with its path."""
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text("utf-8"))


def alternatives(module: ast.Module) -> list[int]:
    """Return the lines of asserts with an `or` at the top, of which either half suffices."""
    return [
        node.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.Assert)
        and isinstance(node.test, ast.BoolOp)
        and isinstance(node.test.op, ast.Or)
    ]


def unused_parameters(module: ast.Module) -> list[tuple[int, str]]:
    """Return line and name of each parameter that a test is given values for and does not use."""
    return [
        (function.lineno, name)
        for function in ast.walk(module)
        if isinstance(function, Function)
        for name in sorted(parametrized(function) - names_in(function.body))
    ]


def parametrized(function: Function) -> set[str]:
    """Return the names that the decorators of a test give values to, fixtures left out."""
    names: set[str] = set()
    for decorator in function.decorator_list:
        if not isinstance(decorator, ast.Call) or not decorator.args:
            continue
        if not ast.unparse(decorator.func).endswith("mark.parametrize"):
            continue
        if not any(keyword.arg == "indirect" for keyword in decorator.keywords):
            given = ast.literal_eval(decorator.args[0])
            names.update(given.replace(" ", "").split(",") if isinstance(given, str) else given)
    return names


def names_in(body: list[ast.stmt]) -> set[str]:
    nodes = (node for statement in body for node in ast.walk(statement))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def test_no_assert_is_satisfied_by_either_of_two_things() -> None:
    found = [f"{path}:{line}" for path, module in modules() for line in alternatives(module)]
    assert found == []


def test_every_parametrized_name_is_used() -> None:
    found = [
        f"{path}:{line}: {name}"
        for path, module in modules()
        for line, name in unused_parameters(module)
    ]
    assert found == []


WRONG = """
@pytest.mark.parametrize(("used", "unused"), [(1, 2)])
@pytest.mark.parametrize("made", [1], indirect=True)
@pytest.mark.parametrize("one,other", [(1, 2)])
async def test(used, unused, made, one, other):
    assert used or one
    assert (used or one) == 1
"""


def test_what_is_wrong_is_found() -> None:
    module = ast.parse(WRONG)
    assert alternatives(module) == [6]
    assert unused_parameters(module) == [(5, "other"), (5, "unused")]
