"""Walk the trees of libpg_query, which are dictionaries: of kinds of nodes, and of their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def nodes(tree: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every node of a tree with its kind.

    Kinds are keys with a capital; fields whose kind the grammar fixes hold the node bare, of which
    types and the arms of a UNION matter here.
    """
    stack = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack.extend(part)
        elif isinstance(part, dict):
            for key, value in part.items():
                if key[0].isupper():
                    yield key, value
                elif key == "typeName":
                    yield "TypeName", value
                elif key in {"larg", "rarg"}:
                    yield "SelectStmt", value
                stack.append(value)


def strings(parts: Any) -> list[str]:
    """Return the names in a list of nodes."""
    return [part["String"].get("sval", "") for part in parts if "String" in part]
