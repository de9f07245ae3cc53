"""Read PostgreSQL's text of a query tree, strictly.

The format is that of src/backend/nodes/outfuncs.c: `{LABEL :field value :field value}`, where a value is a
node, a list `(value value)`, a list of numbers that begins with `i`, `o`, `b` or `x`, `<>` for none,
a constant's bytes `8 [ 1 0 0 0 0 0 0 0 ]`, or a word in which a backslash quotes the next character.
A word may begin with a colon, so what follows a field's name is always its value. Words end at spaces,
tabs and line feeds; other white space belongs to them (outToken in the same file).

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

# Read one after the other: a thread that splits megabytes at once would hold up the event loop.
_TOKEN = re.compile(
    r"""
    :(constvalue)[ \t\n]+\d+[ \t\n]+(\[[ \t\n\d-]*\])(?=[ \t\n)}])  # a field with bytes
    | :(\w+)[ \t\n]+((?:\\.|[^ \t\n(){}\\])+)                       # a field with a word
    | (\{\w* | \((?:[iobx](?=[ \t\n)]))? | [)}] | (?:\\.|[^ \t\n(){}\\])+)
    """,
    re.DOTALL | re.VERBOSE,
)
_OTHER = 5  # the group of a word that is no field with its value
_CLOSING = frozenset("})")
_LINE = 78  # bytes
_MAX_DEPTH = 6_000  # of nodes in each other; the server's own limit is max_stack_depth


class UnreadableTreeError(Exception):
    """The server has sent a tree that this package cannot read, or does not know."""


class Node(dict[str, Value]):
    """One node of a tree: its fields by name, and its label."""

    __slots__ = ("children", "label")

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self.children: list[tuple[str, Node]] = []
        """The nodes directly below this one, also those in lists, each after its field."""

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


def parse(text: str) -> list[Node]:
    """Return the top nodes of a tree's text: one, or those of a list.

    Raises:
        UnreadableTreeError: The text is cut, or has a node or a field that is not known.
    """
    lines = (line for line in text.split("\n") if " " not in line[1:])
    if any(len(line.encode()) >= _LINE for line in lines):
        raise UnreadableTreeError("it has a word that is too long")
    return list(_nodes_in(_Reader().read(text)))


class _Reader:
    """Reads one value from a text, without recursion: trees are deeper than Python's stack."""

    def __init__(self) -> None:
        self._field = ""
        """The field that the next list or node belongs to; empty where a field's name is expected."""
        self._open: list[Node | list[Value]] = [[]]
        """The nodes and lists that have not ended; the first holds the value that is read."""
        self._places: list[tuple[str, Node] | None] = [None]
        """For each of them: the field and the node that what is in it belongs to, if it is a list."""

    def read(self, text: str) -> Value:
        root = self._open[0]
        for match in _TOKEN.finditer(text):
            top = self._open[-1]
            if top is root and root:
                raise UnreadableTreeError("it has text after its end")
            last = match.lastindex or 0
            if last == _OTHER:
                self._read_word(top, match[_OTHER])
            elif isinstance(top, Node) and not self._field:
                name, value = match.group(last - 1, last)
                top[_known(top, name)] = None if value == "<>" else value
            else:
                raise UnreadableTreeError(f"{match[0]} is out of place")
        if len(self._open) > 1 or not root:
            raise UnreadableTreeError("it ends early")
        assert isinstance(root, list)
        return root[0]

    def _read_word(self, top: Node | list[Value], word: str) -> None:
        if isinstance(top, Node) and not self._field:
            if word == "}":
                self._end()
            elif word[0] == ":":
                self._field = _known(top, word[1:])
            else:
                raise UnreadableTreeError(f"the field {word} of {top.label} is not known")
        elif word == ")" and isinstance(top, list) and len(self._open) > 1:
            self._end()
        else:
            self._add(top, word)

    def _end(self) -> None:
        self._open.pop()
        self._places.pop()

    def _add(self, top: Node | list[Value], word: str) -> None:
        value: Value
        if word[0] == "{":
            label = LABELS.get(word[1:], word[1:])
            if label not in FIELDS:
                raise UnreadableTreeError(f"the node {label} is not known")
            value = Node(label)
        elif word[0] == "(":
            value = []
        elif word in _CLOSING or isinstance(top, Node):
            raise UnreadableTreeError(f"{word} is out of place")
        else:
            value = None if word == "<>" else word
        place = (self._field, top) if isinstance(top, Node) else self._places[-1]
        if isinstance(top, Node):
            top[self._field] = value
        else:
            top.append(value)
        self._field = ""
        if isinstance(value, (Node, list)):
            self._begin(value, place)

    def _begin(self, value: Node | list[Value], place: tuple[str, Node] | None) -> None:
        if len(self._open) > _MAX_DEPTH:
            raise UnreadableTreeError("it is nested too deeply")
        if isinstance(value, Node) and place is not None:
            field, parent = place
            parent.children.append((field, value))
        self._open.append(value)
        self._places.append(place)


def _known(node: Node, field: str) -> str:
    if field not in FIELDS[node.label]:
        raise UnreadableTreeError(f"the field {field} of {node.label} is not known")
    return field


def _nodes_in(value: Value) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, (Node, list)):
                yield from _nodes_in(item)
