"""Read PostgreSQL's text of a query tree, strictly.

The format is that of src/backend/nodes/outfuncs.c: `{LABEL :field value :field value}`, where a value is a
node, a list `(value value)`, a list of numbers that begins with `i`, `o`, `b` or `x`, `<>` for none,
a constant's bytes `8 [ 1 0 0 0 0 0 0 0 ]`, or a word in which a backslash quotes the next character.
A word may begin with a colon, so what follows a field's name is always its value.

A tree that the server prints has lines of 78 bytes: a line ends where a space was, also one that a
backslash quotes (format_node_dump in src/backend/nodes/print.c). A word of 78 bytes or more would be
broken anywhere, so it cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from datasources_postgresql.guard.nodes import FIELDS, LABELS

Value: TypeAlias = "Node | list[Value] | str | None"

_TOKEN = re.compile(r"[(){}]|\[[\s\d-]*\](?=[\s)}])|(?:\\.|[^\s(){}\\])+", re.DOTALL)
_NUMBERS = frozenset("iobx")  # of integers, object ids, members of a set, transaction ids
_CLOSING = frozenset("})")
_LINE = 78  # bytes
_MAX_DEPTH = 6_000  # of nodes in each other; the server's own limit is max_stack_depth


class UnreadableTreeError(Exception):
    """The server has sent a tree that this package cannot read, or does not know."""


class Node(dict[str, Value]):
    """One node of a tree: its fields by name, and its label."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def number(self, field: str) -> int:
        """Return a field that holds a number; 0 if the node has no such field."""
        value = self.get(field)
        return int(value) if isinstance(value, str) else 0

    def numbers(self, field: str) -> list[int]:
        """Return a field that holds a number or a list of numbers."""
        value = self.get(field)
        items = value if isinstance(value, list) else [value]
        return [int(item) for item in items if isinstance(item, str)]

    def nodes(self, field: str) -> list[Node]:
        """Return the nodes of a field that holds a node or a list of nodes."""
        value = self.get(field)
        items = value if isinstance(value, list) else [value]
        return [item for item in items if isinstance(item, Node)]

    def node(self, field: str) -> Node | None:
        """Return a field that holds a node or nothing."""
        value = self.get(field)
        return value if isinstance(value, Node) else None

    def text(self, field: str) -> str:
        """Return a field that holds a word, without the backslashes; an empty text if it has none."""
        value = self.get(field)
        return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) if isinstance(value, str) else ""

    def children(self) -> Iterator[tuple[str, Node]]:
        """Yield the nodes directly below this one, and the field of each."""
        for field, value in self.items():
            if isinstance(value, (Node, list)):
                for node in _nodes_in(value):
                    yield field, node


def parse(text: str) -> list[Node]:
    """Return the top nodes of a tree's text: one, or those of a list.

    Raises:
        UnreadableTreeError: The text is cut, or has a node or a field that is not known.
    """
    lines = (line for line in text.split("\n") if " " not in line[1:])
    if any(len(line.encode()) >= _LINE for line in lines):
        raise UnreadableTreeError("it has a word that is too long")
    return list(_nodes_in(_Reader(_TOKEN.findall(text)).read()))


class _Reader:
    """Reads one value from words, without recursion: trees are deeper than Python's stack.

    Args:
        words: The words of the text, parentheses included.
    """

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._position = 0
        self._field = ""
        """The field that the next value belongs to; empty where a field's name is expected."""
        self._open: list[Node | list[Value]] = [[]]
        """The nodes and lists that have not ended; the first holds the value that is read."""

    def read(self) -> Value:
        root = self._open[0]
        while len(self._open) > 1 or not root:
            if self._position >= len(self._words):
                raise UnreadableTreeError("it ends early")
            top, word = self._open[-1], self._words[self._position]
            self._position += 1
            if isinstance(top, Node) and not self._field:
                self._read_field(top, word)
            elif word == ")" and isinstance(top, list) and top is not root:
                self._open.pop()
            else:
                self._read_value(top, word)
        if self._position != len(self._words):
            raise UnreadableTreeError("it has text after its end")
        assert isinstance(root, list)
        return root[0]

    def _read_field(self, node: Node, word: str) -> None:
        if word == "}":
            self._open.pop()
        elif word[0] == ":" and word[1:] in FIELDS[node.label]:
            self._field = word[1:]
        else:
            raise UnreadableTreeError(f"the field {word} of {node.label} is not known")

    def _read_value(self, top: Node | list[Value], word: str) -> None:
        value: Value = word
        following = "".join(self._words[self._position : self._position + 1])
        if word == "{":
            label = LABELS.get(following, following)
            if label not in FIELDS:
                raise UnreadableTreeError(f"the node {label} is not known")
            value = Node(label)
            self._position += 1
        elif word == "(":
            value = []
            self._position += len(_NUMBERS & {following})
        elif word == "<>":
            value = None
        elif word in _CLOSING:
            raise UnreadableTreeError(f"{word} is out of place")
        elif self._field == "constvalue" and following.startswith("["):
            value = following
            self._position += 1
        if isinstance(top, Node):
            top[self._field] = value
        else:
            top.append(value)
        self._field = ""
        if isinstance(value, (Node, list)):
            if len(self._open) > _MAX_DEPTH:
                raise UnreadableTreeError("it is nested too deeply")
            self._open.append(value)


def _nodes_in(value: Value) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, (Node, list)):
                yield from _nodes_in(item)
