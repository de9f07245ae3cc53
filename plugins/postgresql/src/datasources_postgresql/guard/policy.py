"""The options `allowed_functions` and `denied_functions`, with the names that are built in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from datasources_postgresql.guard.calls import FIRST_NORMAL
from datasources_postgresql.guard.labels import DENIED, HARMLESS
from datasources_postgresql.options import PostgreSQLOptions

_SIGNATURE = re.compile(r"\s*([^()]+?)\s*\(([^()]*)\)\s*", re.DOTALL)


class NamedFunction(Protocol):
    """A function of the catalog."""

    @property
    def oid(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def full_name(self) -> str: ...
    @property
    def in_extension(self) -> bool: ...
    @property
    def internal(self) -> bool: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...


class FunctionPolicy:
    """Says which functions may be called, by name or by name and types of arguments.

    Args:
        options: `allowed_functions` and `denied_functions`.
    """

    def __init__(self, options: PostgreSQLOptions) -> None:
        self._allowed = frozenset(n for n in options.allowed_functions if "(" not in n)
        self._denied = frozenset(n for n in options.denied_functions if "(" not in n)
        self._allowed_signatures = _signatures(options.allowed_functions)
        self._denied_signatures = _signatures(options.denied_functions)

    @property
    def denied_names(self) -> frozenset[str]:
        """The names that a query may not call, whatever the function is."""
        allowed = self._allowed | {name for name, _ in self._allowed_signatures}
        return (DENIED - {name.rpartition(".")[2] for name in allowed}) | self._denied

    @property
    def allowed_names(self) -> frozenset[str]:
        """The names that the option allows with any arguments."""
        return self._allowed

    def is_harmless(self, name: str) -> bool:
        """Return True for a volatile function of PostgreSQL that changes nothing."""
        return name in HARMLESS

    def allows(self, function: NamedFunction) -> bool:
        """Return True if the option allows the function with any arguments."""
        return bool({function.name, function.full_name} & self._allowed)

    def denies(self, function: NamedFunction) -> bool:
        """Return True if the function is denied by name, under any name that its code has."""
        names = {function.name, function.full_name}
        if names & self._denied or set(function.aliases) & self._denied:
            return True
        if names & self._allowed:
            return False
        return bool(({function.name, *function.aliases}) & DENIED)

    def passes(self, function: NamedFunction) -> bool:
        """Return True if a volatile function may be called."""
        is_known = function.oid < FIRST_NORMAL or function.in_extension
        if is_known and (function.name in HARMLESS or function.internal):
            return True
        return self.allows(function)

    def has_signatures_of(self, function: NamedFunction) -> bool:
        """Return True if a signature in the options has the function's name."""
        names = {function.name, function.full_name}
        return any(n in names for n, _ in (*self._denied_signatures, *self._allowed_signatures))

    def by_signature(
        self, function: NamedFunction, types: Sequence[str], names: Sequence[str]
    ) -> bool | None:
        """Return False if a signature denies the function, True if one allows it, else None.

        Args:
            function: The function.
            types: The types of its arguments, as SQL writes them.
            names: Their names in the catalog.
        """
        if _matches(self._denied_signatures, function, types, names):
            return False
        return True if _matches(self._allowed_signatures, function, types, names) else None


def _signatures(entries: Iterable[str]) -> list[tuple[str, list[str]]]:
    signatures = []
    for entry in entries:
        if match := _SIGNATURE.fullmatch(entry):
            name, arguments = match.groups()
            types = [
                " ".join(part.lower().split()) for part in arguments.split(",") if part.strip()
            ]
            signatures.append((name, types))
    return signatures


def _matches(
    signatures: list[tuple[str, list[str]]],
    function: NamedFunction,
    types: Sequence[str],
    names: Sequence[str],
) -> bool:
    """Compare types as SQL writes them, with or without a schema, and by their catalog names."""
    spellings = [
        {type_, re.sub(r'^("[^"]*"|[^".]*)\.', "", type_), name}
        for type_, name in zip(types, names, strict=True)
    ]
    return any(
        name in {function.name, function.full_name}
        and len(arguments) == len(spellings)
        and all(a in s for a, s in zip(arguments, spellings, strict=True))
        for name, arguments in signatures
    )
