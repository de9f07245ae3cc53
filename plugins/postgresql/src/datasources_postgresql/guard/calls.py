"""Collect from a query tree what running it would call: functions, operators, types by their ids."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasources_postgresql.guard.nodes import FIELDS
from datasources_postgresql.guard.tree import Node, UnreadableTreeError

FIRST_NORMAL = 16384
"""The first object id that is not PostgreSQL's own: FirstNormalObjectId in access/transam.h."""

_SELECT = 1  # CMD_SELECT in nodes/nodes.h
_RELATION = 0  # RTEKind in nodes/parsenodes.h
_FIELDS = {
    **dict.fromkeys(
        ("funcid", "opfuncid", "aggfnoid", "winfnoid", "hashfuncid", "negfuncid", "tsmhandler",
         "startInRangeFunc", "endInRangeFunc"),
        "functions",
    ),
    **dict.fromkeys(("opno", "opnos", "eqop", "sortop", "cycle_mark_neop"), "operators"),
    **dict.fromkeys(("opfamilies",), "families"),
    **dict.fromkeys(
        ("vartype", "consttype", "paramtype", "aggtype", "aggtranstype", "aggargtypes", "wintype",
         "refcontainertype", "refelemtype", "refrestype", "funcresulttype", "opresulttype",
         "resulttype", "casetype", "typeId", "array_typeid", "element_typeid", "row_typeid",
         "coalescetype", "minmaxtype", "typid", "cycle_mark_type", "funccoltypes", "coltypes",
         "ctecoltypes", "colTypes"),
        "types",
    ),
}  # fmt: skip
"""For each field that holds object ids: where `Calls` has them."""
_FIELDS_OF = {
    label: [(name, _FIELDS[name]) for name in sorted(fields & _FIELDS.keys())]
    for label, fields in FIELDS.items()
}
"""The same for the fields of each node."""
_MADE = {
    "COERCEVIAIO": "resulttype",
    "JSONRETURNING": "typid",
    "RANGETBLFUNCTION": "funccoltypes",
    "TABLEFUNC": "coltypes",
}
"""The nodes that make values of a type, and the field of the type."""
_RESULTS = {
    "FUNCEXPR": ("funcid", "funcresulttype"),
    "AGGREF": ("aggfnoid", "aggtype"),
    "WINDOWFUNC": ("winfnoid", "wintype"),
    "OPEXPR": ("opfuncid", "opresulttype"),
}
"""The nodes that call a function, and the fields of the function and of its result's type."""
# The functions whose second argument names a type: their ids are those of every version that has them.
_TYPE_AS_TEXT = frozenset({6210, 6211})  # pg_input_is_valid, pg_input_error_info
_TEXT = 25


@dataclass(frozen=True, slots=True)
class Place:
    """The place of something in a statement."""

    inside: str = ""
    """The view, policy or function that it is part of; empty for the statement itself."""
    location: int = -1
    """Bytes before it in the statement; -1 if the server does not tell."""


@dataclass(slots=True)
class Calls:
    """The objects that a tree calls, by id, each with the place where it stands first."""

    functions: dict[int, Place] = field(default_factory=dict)
    operators: dict[int, Place] = field(default_factory=dict)
    made_types: dict[int, Place] = field(default_factory=dict)
    """Types whose values are made from text or from other types: by input functions and checks."""
    checked_domains: dict[int, Place] = field(default_factory=dict)
    """Domains whose checks run on values of their base type."""
    types: dict[int, Place] = field(default_factory=dict)
    """Every type that occurs."""
    relations: dict[int, Place] = field(default_factory=dict)
    families: dict[int, Place] = field(default_factory=dict)
    changed_operators: frozenset[int] = frozenset()
    """Operators of PostgreSQL's own that bring something of others along."""
    results: set[tuple[int, int]] = field(default_factory=set)
    """Pairs of a function and the type of its result in this tree."""
    fewest_arguments: dict[int, int] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)
    """Functions that are called as functions, not for a type or an operator."""
    type_names: list[tuple[str | None, Place]] = field(default_factory=list)
    """Types that are named by a text; None for one that is computed."""
    makes_json: bool = False
    """True if the grammar of JSON makes values of it, as in `JSON_OBJECT('a': x)`."""
    writes: str = ""
    """The part of the statement that is no read; empty if all of it reads."""


def collect(trees: list[Node], inside: str = "") -> Calls:
    """Return what trees call.

    Args:
        trees: Queries or expressions.
        inside: What they are part of, for messages.
    """
    calls = Calls()
    stack = [(tree, Place(inside)) for tree in reversed(trees)]
    while stack:
        node, place = stack.pop()
        _add(calls, node, place)
        for name, child in reversed(node.children):
            stack.append((child, _place(node, name, place)))
    return calls


def _place(node: Node, name: str, place: Place) -> Place:
    """Return the place of a node's field."""
    if node.label == "RANGETBLENTRY":
        if name == "subquery" and (view := _view(node)):
            return Place(f"the view {view}")
        if name == "securityQuals":
            return Place(f"a row security policy of the table {_name(node)}")
    return place


def _view(entry: Node) -> str:
    """Return the name of the view that a subquery stands for, or an empty text.

    PostgreSQL 16 keeps the view's id at the subquery; before, the first entry inside is the view.
    """
    if entry.number("relid"):
        return _name(entry)
    subquery = entry.node("subquery")
    inner = subquery.nodes("rtable")[:1] if subquery else []
    is_view = any(e.text("relkind") == "v" and _name(e) == "old" for e in inner)
    return _name(entry) if is_view else ""


def _name(entry: Node) -> str:
    names = entry.node("eref")
    return names.text("aliasname").replace("\n", " ") if names else "?"


def _add(calls: Calls, node: Node, place: Place) -> None:
    if not place.inside and (location := node.number("location")) > 0:
        place = Place("", location)
    for name, kind in _FIELDS_OF[node.label]:
        _note(getattr(calls, kind), node.numbers(name), place)
    label = node.label
    if label in _MADE:
        _note(calls.made_types, node.numbers(_MADE[label]), place)
    elif label in _RESULTS:
        function, result = map(node.number, _RESULTS[label])
        calls.results.add((function, result))
        if label != "OPEXPR":
            calls.named.add(function)
        if label == "FUNCEXPR":
            _add_arguments(calls, function, node, place)
    else:
        _add_other(calls, label, node, place)


def _add_other(calls: Calls, label: str, node: Node, place: Place) -> None:
    if label == "QUERY":
        calls.writes = calls.writes or _writes(node)
    elif label == "CONST" and node.text("constisnull") == "false":
        _note(calls.made_types, node.numbers("consttype"), place)
    elif label == "COERCETODOMAIN":
        _note(calls.checked_domains, node.numbers("resulttype"), place)
    elif label == "JSONCONSTRUCTOREXPR":
        calls.makes_json = True
    elif label == "RANGETBLENTRY" and _is_table(node):
        _note(calls.relations, node.numbers("relid"), place)


def _is_table(entry: Node) -> bool:
    # Before PostgreSQL 16, a view is in the list besides its query.
    return entry.number("rtekind") == _RELATION and entry.text("relkind") != "v"


def _note(places: dict[int, Place], oids: list[int], place: Place) -> None:
    for oid in oids:
        if oid:
            places.setdefault(oid, place)


def _writes(query: Node) -> str:
    if query.number("commandType") != _SELECT or query["utilityStmt"] is not None:
        return "a statement that is no query"
    if query.nodes("rowMarks") or query["rowMarks"] or query.text("hasForUpdate") == "true":
        return "FOR UPDATE or FOR SHARE"
    if query.text("hasModifyingCTE") == "true" or query.number("resultRelation"):
        return "a WITH that writes"
    return ""


def _add_arguments(calls: Calls, oid: int, node: Node, place: Place) -> None:
    arguments = node["args"] if isinstance(node["args"], list) else []
    fewest = calls.fewest_arguments.get(oid, len(arguments))
    calls.fewest_arguments[oid] = min(fewest, len(arguments))
    if oid in _TYPE_AS_TEXT:
        calls.type_names.append((_text_constant(arguments[-1]), place))


def _text_constant(node: object) -> str | None:
    """Return the value of a constant of type text, which the tree has as bytes after their length."""
    if not isinstance(node, Node) or node.label != "CONST" or node.number("consttype") != _TEXT:
        return None
    value = node["constvalue"]
    if not isinstance(value, str):
        return None
    numbers = [int(number) & 0xFF for number in value.strip("[]").split()]
    if len(numbers) < 4:
        raise UnreadableTreeError("a text is shorter than its length")
    # A value of text that was not stored: four bytes of length, then the characters.
    return bytes(numbers[4:]).decode(errors="replace")
