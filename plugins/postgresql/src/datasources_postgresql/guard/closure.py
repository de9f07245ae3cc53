"""Follow from what a query tree calls to all that runs with it, and judge each function.

The tree names functions, operators, types and tables by id. What they bring with them is looked up in
rounds: each round asks the catalog about the objects that the last one found. Labels are believed,
so bodies are not read, except those that the catalog holds as trees: they are followed like the query.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from datasources_postgresql.guard import lookup
from datasources_postgresql.guard.calls import FIRST_NORMAL, Calls, Place, collect
from datasources_postgresql.guard.labels import CASTING_TO_TEXT, CONVERTING, PLAIN_INPUT
from datasources_postgresql.guard.policy import FunctionPolicy
from datasources_postgresql.guard.tree import parse

Execute: TypeAlias = Callable[[bytes, Sequence[object]], Awaitable[list[tuple[Any, ...]]]]

# Object ids of types in pg_type.dat.
_TEXT, _JSON, _RECORD, _RECORDS, _ANYARRAY = 25, 114, 2249, 2287, 2277
_HOLDING_ANY = frozenset({_RECORD, _RECORDS, _ANYARRAY})

TypeUse: TypeAlias = Literal["shown", "checked", "made"]
"""The way in which values of a type occur: written as text, checked as a domain, or made from text."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function as it is judged."""

    oid: int
    schema: str
    name: str
    volatile: bool
    converts: bool = False
    """True for an input function of a type, or the validator of a language."""
    in_extension: bool = False
    internal: bool = False
    """True if only the server can call it, because it takes or returns `internal`."""
    aliases: tuple[str, ...] = ()
    """Names of other functions that are the same code."""

    @property
    def full_name(self) -> str:
        """The name with its schema; without that for one of PostgreSQL's own."""
        return self.name if self.schema == "pg_catalog" else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A function that may not be called, where it stands, and why."""

    function: Function
    arguments: str
    place: Place
    denied: bool


class Closure:
    """All that a statement reaches; `follow` finds it, and `refusal` judges it.

    Args:
        execute: Runs a question of this package.
        policy: Says which functions may be called.
        system_functions: The rows of PostgreSQL's own functions that the session has read; more are
            added.
        has_casts: False if the database has no casts of its own, which saves a question.
        plain_tables: Tables that are known to bring nothing along, which saves a question as well.
    """

    def __init__(
        self,
        execute: Execute,
        policy: FunctionPolicy,
        system_functions: dict[int, tuple[Any, ...]],
        *,
        has_casts: bool,
        plain_tables: Iterable[int],
    ) -> None:
        self._execute = execute
        self._system_functions = system_functions
        self._policy = policy
        self._has_casts = has_casts
        self._plain_tables = frozenset(plain_tables)
        self.rows: set[tuple[str, int, str]] = set()
        """The catalog rows that were read: catalog, object id, the transaction that wrote the row."""
        self.families: dict[int, Place] = {}
        self._functions: dict[int, Place] = {}
        self._operators: dict[int, Place] = {}
        self._types: dict[tuple[int, TypeUse], Place] = {}
        self._relations: dict[int, Place] = {}
        self._results: dict[tuple[int, int], Place] = {}
        """Pairs of a function and the type of its result, with the place of the call."""
        self._named: set[int] = set()
        self._fewest: dict[int, int] = {}
        self._judged: list[Function] = []
        self._makers: set[int] = set()
        """Functions that may make values of their result's type.

        The others of PostgreSQL pass on values that they were given.
        """
        self._exempt: set[int] = set()
        """The transition and final functions of aggregates that are allowed."""
        self._changed_operators: frozenset[int] = frozenset()
        self._seen_types: dict[int, Place] = {}
        """Every type that occurs, PostgreSQL's own too."""
        self._cast_targets: set[int] = set()
        """Types that functions of PostgreSQL cast values of any type to when they run."""
        self._any_type: Place | None = None
        """The first place of a value that may hold values of any type, as in `pg_stats`."""
        self._done: set[tuple[str, object]] = set()

    def oids(self, catalog: str) -> list[int]:
        """Return the ids of the rows that were read from a catalog."""
        return sorted({oid for name, oid, _ in self.rows if name == catalog})

    @property
    def functions(self) -> dict[int, Function]:
        """The functions that were judged, by object id."""
        return {function.oid: function for function in self._judged}

    async def follow(self, calls: Calls) -> None:
        """Look up all that `calls` bring with them.

        An operator of PostgreSQL's own brings nothing, unless it is in `calls.changed_operators`.
        """
        self._changed_operators = calls.changed_operators
        self._add(calls)
        while True:
            if functions := self._next("function", self._functions):
                await self._follow_functions(functions)
            elif operators := self._next("operator", self._operators):
                await self._follow_operators(operators)
            elif results := self._next("result", self._results):
                self._follow_results(results)
            elif types := self._next("type", self._types):
                await self._follow_types(types)
            elif relations := self._next("relation", self._relations):
                await self._follow_relations(relations)
            elif not (
                await self._follow_families()
                or await self._follow_casts()
                or await self._follow_any_type()
            ):
                return

    def _next(self, kind: str, places: dict[Any, Place]) -> list[Any]:
        waiting = [key for key in places if (kind, key) not in self._done]
        self._done.update((kind, key) for key in waiting)
        return waiting

    def _add(self, calls: Calls) -> None:
        for places, added in (
            (self._functions, calls.functions),
            (self._operators, calls.operators),
            (self.families, calls.families),
        ):
            for oid, place in added.items():
                places.setdefault(oid, place)
        self._add_types(calls)
        for oid, place in calls.relations.items():
            if oid >= FIRST_NORMAL and oid not in self._plain_tables:
                self._relations.setdefault(oid, place)
        for oid, result in calls.results:
            self._results.setdefault((oid, result), calls.functions.get(oid, Place()))
        self._named |= calls.named
        for oid, count in calls.fewest_arguments.items():
            self._fewest[oid] = min(self._fewest.get(oid, count), count)

    def _add_types(self, calls: Calls) -> None:
        uses: tuple[tuple[TypeUse, dict[int, Place]], ...] = (
            ("shown", calls.types),
            ("checked", calls.checked_domains),
            ("made", calls.made_types),
        )
        for use, types in uses:
            for oid, place in types.items():
                self._add_type(oid, use, place)
        if _ANYARRAY in calls.types:
            self._note_any_type(calls.types[_ANYARRAY])
        if calls.makes_json:
            self._cast_targets.add(_JSON)

    def _note_any_type(self, place: Place) -> None:
        self._any_type = self._any_type or place

    def _add_type(self, oid: int, use: TypeUse, place: Place) -> None:
        self._seen_types.setdefault(oid, place)
        if oid >= FIRST_NORMAL:
            self._types.setdefault((oid, use), place)

    def _add_functions(self, oids: Iterable[int], place: Place) -> None:
        for oid in oids:
            if oid >= FIRST_NORMAL:
                self._functions.setdefault(oid, place)

    def _add_trees(self, trees: Iterable[str | None], inside: str) -> None:
        for tree in trees:
            if tree is not None:
                self._add(collect(parse(tree), inside))

    async def _follow_functions(self, oids: list[int]) -> None:
        if system := [oid for oid in oids if oid < FIRST_NORMAL]:
            for row in await self._read_system_functions(system):
                oid, xmin, schema, name, label, converts, internal = row
                self.rows.add(("function", oid, xmin))
                self._judged.append(
                    Function(oid, schema, name, label == "v", converts, internal=internal)
                )
                self._note_casts(name)
                if name in CONVERTING:
                    self._makers.add(oid)
        if others := [oid for oid in oids if oid >= FIRST_NORMAL]:
            await self._follow_user_functions(others)

    def _note_casts(self, name: str) -> None:
        if "json" in name:
            self._cast_targets.add(_JSON)
        if name in CASTING_TO_TEXT:
            self._cast_targets.add(_TEXT)

    async def _read_system_functions(self, oids: list[int]) -> list[tuple[Any, ...]]:
        rows = self._system_functions
        if missing := [oid for oid in oids if oid not in rows]:
            answer = await self._execute(lookup.SYSTEM_FUNCTIONS, [missing])
            rows.update((row[0], row) for row in answer)
        return [rows[oid] for oid in oids if oid in rows]

    async def _follow_user_functions(self, oids: list[int]) -> None:
        self._makers.update(oids)
        libraries: list[Function] = []
        for row in await self._execute(lookup.USER_FUNCTIONS, [oids]):
            (oid, xmin, schema, name, label, converts, support, argument_count, defaults, body, results,
             in_extension, internal, is_library, aggregate, sort_operator, transitions) = row  # fmt: skip
            self.rows.add(("function", oid, xmin))
            function = Function(oid, schema, name, label == "v", converts, in_extension, internal)
            (libraries if is_library and not in_extension else self._judged).append(function)
            self._note_casts(name)
            place = self._functions[oid]
            self._add_functions([support], place)
            if self._fewest.get(oid, argument_count) < argument_count:
                self._add_trees([defaults], f"the defaults of the function {function.full_name}")
            self._add_trees([body], f"the function {function.full_name}")
            if _HOLDING_ANY.intersection(results):
                self._note_any_type(place)
            for result in results:
                self._add_type(result, "made", place)
            if aggregate is not None:
                if await self._is_allowed(function):
                    self._exempt.update(aggregate)
                self._add_functions(aggregate, place)
                if sort_operator:
                    self._operators.setdefault(sort_operator, place)
                for transition in transitions:
                    self._add_type(transition or 0, "made", place)
        if libraries:
            self._judged += await self._with_aliases(libraries)

    async def _is_allowed(self, function: Function) -> bool:
        if not self._policy.has_signatures_of(function):
            return self._policy.allows(function)
        ((_, types, names),) = await self._execute(lookup.SIGNATURES, [[function.oid]])
        return self._policy.by_signature(function, types, names) or self._policy.allows(function)

    async def _with_aliases(self, functions: list[Function]) -> list[Function]:
        """Return functions of libraries with the names and the label that their code has elsewhere."""
        oids = [function.oid for function in functions]
        aliases: dict[int, set[str]] = {}
        volatile = {function.oid for function in functions if function.volatile}
        for oid, is_system, name, label in await self._execute(lookup.SAME_CODE, [oids, oids]):
            aliases.setdefault(oid, set()).add(name)
            if is_system and label == "v" and not self._policy.is_harmless(name):
                volatile.add(oid)
        return [
            replace(f, volatile=f.oid in volatile, aliases=tuple(sorted(aliases.get(f.oid, ()))))
            for f in functions
        ]

    def _follow_results(self, results: list[tuple[int, int]]) -> None:
        for key in results:
            function, type_ = key
            if function in self._makers:
                self._add_type(type_, "made", self._results[key])

    async def _follow_operators(self, oids: list[int]) -> None:
        oids = [oid for oid in oids if oid >= FIRST_NORMAL or oid in self._changed_operators]
        if not oids:
            return
        for oid, xmin, code, restrict, join, negator, commutator in await self._execute(
            lookup.OPERATORS, [oids]
        ):
            self.rows.add(("operator", oid, xmin))
            place = self._operators[oid]
            self._add_functions([code, restrict, join], place)
            for other in (negator, commutator):
                if other >= FIRST_NORMAL:
                    self._operators.setdefault(other, place)

    async def _follow_types(self, keys: list[tuple[int, TypeUse]]) -> None:
        uses: dict[int, list[TypeUse]] = {}
        for oid, use in keys:
            uses.setdefault(oid, []).append(use)
        for row in await self._execute(lookup.TYPES, [list(uses)]):
            oid, xmin, base, read, write, parts, bounds, checks, check_rows, name, families = row
            self.rows.add(("type", oid, xmin))
            self.rows.update(("check", int(check), writer) for check, writer in check_rows)
            for use in uses[oid]:
                place = self._types[(oid, use)]
                self._add_type(base, use, place)
                if use == "checked":
                    self._add_trees(checks, f"a check of the domain {name}")
                    continue
                self._add_functions([*write, *bounds], place)
                for family in families:
                    self.families.setdefault(family, place)
                for part in parts:
                    self._add_type(part, use, place)
                if use == "made":
                    self._add_trees(checks, f"a check of the domain {name}")
                    self._add_functions([read], place)

    async def _follow_relations(self, oids: list[int]) -> None:
        ((has_more,),) = await self._execute(lookup.HAS_MORE, [oids, oids])
        if not has_more:
            return
        for expression, family in await self._execute(lookup.RELATIONS, [oids]):
            self._add_trees([expression], "a partition key or a virtual column")
            if family is not None:
                self.families.setdefault(family, Place("an index or a partition key"))

    async def _follow_families(self) -> bool:
        """Look up the families of operators and types; return True if there is more to follow."""
        # What others have added to families of PostgreSQL's own is there from the beginning.
        operators = self._next("family of operator", self._operators)
        operators = [oid for oid in operators if oid >= FIRST_NORMAL]
        types = sorted({oid for oid, _ in self._next("family of type", self._types)})
        families = self._next("family", self.families)
        if not operators and not types and not families:
            return False
        for family, oid, xmin, is_function, called in await self._execute(
            lookup.FAMILIES, [operators, types, types, families]
        ):
            self.families.setdefault(family, Place())
            self._done.add(("family", family))
            if oid is None:
                continue
            self.rows.add(("member", oid, xmin))
            place = Place("an operator family")
            if is_function:
                self._add_functions([called], place)
            else:
                self._operators.setdefault(called, place)
        return True

    async def _follow_casts(self) -> bool:
        """Look up the casts that are looked for by type on running; return True if types were left."""
        if not self._has_casts or not self._cast_targets:
            return False
        targets = sorted(self._cast_targets)
        if not (types := self._next(f"cast to {targets}", self._seen_types)):
            return False
        for (function,) in await self._execute(lookup.CASTS, [types, targets]):
            self._functions.setdefault(function, Place("a cast to text or json"))
        return True

    async def _follow_any_type(self) -> bool:
        """Look up all types that could bring something along; return True if it was not done yet."""
        if self._any_type is None or not self._next("any type", {"": self._any_type}):
            return False
        for (oid,) in await self._execute(lookup.TYPES_WITH_MORE, []):
            self._add_type(oid, "shown", self._any_type)
        return True

    async def refusal(self) -> Refusal | None:
        """Return the first function that may not be called."""
        doubtful = [
            function
            for function in self._judged
            if function.oid not in self._exempt
            and (self._refuses(function) or self._policy.has_signatures_of(function))
        ]
        if not doubtful:
            return None
        rows = await self._execute(lookup.SIGNATURES, [[function.oid for function in doubtful]])
        signatures = {oid: (types, names) for oid, types, names in rows}
        for function in doubtful:
            types, names = signatures[function.oid]
            allowed = self._policy.by_signature(function, types, names)
            if allowed is None:
                allowed = not self._refuses(function)
            if not allowed:
                place = self._functions[function.oid]
                arguments = ", ".join(re.sub(r"^pg_catalog\.", "", t) for t in types)
                denied = self._denies(function) or not function.volatile
                return Refusal(function, arguments, place, denied)
        return None

    def _refuses(self, function: Function) -> bool:
        if self._denies(function):
            return True
        return function.volatile and not self._policy.passes(function)

    def _denies(self, function: Function) -> bool:
        converts = function.converts and function.name != PLAIN_INPUT
        return self._policy.denies(function) or (converts and function.oid in self._named)
