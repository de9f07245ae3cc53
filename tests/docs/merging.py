"""A change of a module, as a page shows it, put into the module."""

from __future__ import annotations

import ast

Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def merge(old: str, new: str) -> str:
    """Return a module with the definitions of `new` in place of those of the same names.

    A text that starts with a docstring is a whole module.  In a class, `...` stands for all that
    stays as it was.  Imports are added.
    """
    before, changes = ast.parse(old), ast.parse(new)
    if not old or ast.get_docstring(changes) is not None:
        return new
    body = before.body
    for change in changes.body:
        if isinstance(change, ast.ImportFrom):
            _import(body, change)
        elif isinstance(change, ast.Import):
            body.insert(_last_import(body), change)
        else:
            _put(body, change)
    return ast.unparse(ast.fix_missing_locations(before)) + "\n"


def _import(body: list[ast.stmt], change: ast.ImportFrom) -> None:
    for each in body:
        if isinstance(each, ast.ImportFrom) and each.module == change.module:
            known = {alias.name for alias in each.names}
            each.names += [alias for alias in change.names if alias.name not in known]
            return
    body.insert(_last_import(body), change)


def _last_import(body: list[ast.stmt]) -> int:
    return max(n for n, each in enumerate(body) if isinstance(each, ast.Import | ast.ImportFrom))


def _put(body: list[ast.stmt], change: ast.stmt) -> None:
    """Replace what has the change's name, or add it: constants before definitions."""
    for index, each in enumerate(body):
        if _name(each) == _name(change):
            if isinstance(each, ast.ClassDef) and isinstance(change, ast.ClassDef):
                change = _class(each, change)
            body[index] = change
            return
    first = next((n for n, each in enumerate(body) if isinstance(each, Defined)), len(body))
    body.insert(len(body) if isinstance(change, Defined) else first, change)


def _class(old: ast.ClassDef, new: ast.ClassDef) -> ast.ClassDef:
    kept = [each for each in new.body if not _is_ellipsis(each)]
    if len(kept) == len(new.body):
        return new
    for change in kept:
        _put(old.body, change)
    return old


def _name(node: ast.stmt) -> object:
    if isinstance(node, Defined):
        return node.name
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.target)
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    return node


def _is_ellipsis(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and node.value.value is ...
    )
