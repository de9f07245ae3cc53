"""Queries that are stored with a source, and the typed values of their parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from datasources.errors import OptionError
from datasources.json_models import JsonModel
from datasources.redaction import MARK, REFERENCE

QueryValue: TypeAlias = "str | int | Decimal | bool | date | datetime | None"
"""The value of a parameter, by its type; None is NULL."""

QUERY_PREFIX = "query:"
"""Begins the path of a stored query among the items of its source, as in `query:monthly`."""

_QUERY_NAME = re.compile(r"[a-z0-9_-]{1,100}")
_PARAMETER_NAME = re.compile(r"[a-z_][a-z0-9_]{0,49}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_SURROGATE_OR_NUL = re.compile("[\0\ud800-\udfff]")  # no system takes them in a text
_FORMS = {
    "text": "text without NUL characters",
    "integer": "a whole number of at most 64 bits",
    "number": "a finite number",
    "boolean": "true or false",
    "date": "a date such as 2026-01-31",
    "timestamp": "a time such as 2026-01-31T12:00:00, with or without an offset",
}


@dataclass(frozen=True, slots=True)
class QueryParameter(JsonModel):
    """One parameter of a stored query.

    Raises:
        OptionError: The type is unknown, or the default or a choice is not of it.
    """

    type: str = "text"
    """`text`, `integer`, `number`, `boolean`, `date` or `timestamp`."""
    required: bool = True
    """False if a call may leave the parameter out; it then has the default."""
    default: Any = None
    """The value, in the form that JSON has, of a parameter that is left out; None is NULL."""
    description: str = ""
    """A text for people."""
    choices: tuple[Any, ...] = field(default=())
    """The only values that are allowed, in the form that JSON has; none for any value."""

    def __post_init__(self) -> None:
        if self.type not in _FORMS:
            raise OptionError(f"'type' of a parameter must be one of {', '.join(_FORMS)}")
        if not isinstance(self.required, bool):
            raise OptionError("'required' of a parameter must be true or false")
        if not isinstance(self.description, str):
            raise OptionError("'description' of a parameter must be text")
        if not isinstance(self.choices, (tuple, list)):
            raise OptionError("'choices' of a parameter must be a list")
        object.__setattr__(self, "choices", tuple(self.choices))
        for value in self.choices:
            _convert(self.type, value, "a choice of a parameter")
        if self.default is None:
            return
        if self.required:
            raise OptionError(
                "a parameter with a default is not required; give 'required' as false"
            )
        self.convert(self.default, "the default of a parameter")

    def convert(self, value: Any, where: str) -> QueryValue:
        """Return a value as the type of the parameter.

        Args:
            value: A Python value, a value of JSON, or a text of the command line. None is NULL.
            where: Named by the error, which does not repeat the value.

        Raises:
            OptionError: The value is not of the type, or not among the choices.
        """
        if value is None:
            if self.required:
                raise OptionError(f"{where} is required, and must be {_FORMS[self.type]}")
            return None
        converted = _convert(self.type, value, where)
        if self.choices and converted not in [
            _convert(self.type, choice, where) for choice in self.choices
        ]:
            raise OptionError(f"{where} must be one of {', '.join(map(str, self.choices))}")
        return converted


@dataclass(frozen=True, slots=True)
class StoredQuery(JsonModel):
    """A query that is stored with a source, for callers who may not write queries themselves.

    Raises:
        OptionError: The text is empty or holds a reference or a mask, or a parameter is malformed.
    """

    text: str
    """The query, with `:name` for the value of a parameter."""
    parameters: Mapping[str, QueryParameter] = field(default_factory=dict, hash=False)
    """The parameters, by names of lower-case letters, digits and underscores."""
    description: str = ""
    """A text for people."""

    def __post_init__(self) -> None:
        for name in ("text", "description"):
            if not isinstance(getattr(self, name), str):
                raise OptionError(f"{name!r} of a stored query must be text")
        if not self.text.strip():
            raise OptionError("'text' of a stored query must be a query")
        for text in (self.text, self.description):
            if _SURROGATE_OR_NUL.search(text):
                raise OptionError("a stored query must be text without NUL characters")
            if MARK in text or REFERENCE.search(text):
                raise OptionError(
                    "a stored query holds no secrets: it must have no reference and no mask"
                )
        self._check_parameters()

    def _check_parameters(self) -> None:
        if not isinstance(self.parameters, Mapping):
            raise OptionError("'parameters' of a stored query must be a table")
        for name, parameter in self.parameters.items():
            if not _PARAMETER_NAME.fullmatch(str(name)):
                raise OptionError(
                    f"{name!r} is not the name of a parameter; one is lower-case letters, digits "
                    "and underscores, and begins with no digit"
                )
            if not isinstance(parameter, QueryParameter):
                raise OptionError(f"parameter {name!r} must be a QueryParameter")

    def bind(self, name: str, values: Mapping[str, Any]) -> BoundQuery:
        """Return the query with the values of a call.

        Raises:
            OptionError: A parameter is unknown, missing or malformed; no value is repeated.
        """
        if not isinstance(values, Mapping):
            raise OptionError("'parameters' must be a mapping of names to values")
        if unknown := [key for key in values if key not in self.parameters]:
            accepted = ", ".join(self.parameters) or "none"
            raise OptionError(
                f"query {name!r} has no parameter {', '.join(map(repr, unknown))}; "
                f"its parameters: {accepted}"
            )
        bound = {
            key: parameter.convert(
                values.get(key, parameter.default), f"parameter {key!r} of query {name!r}"
            )
            for key, parameter in self.parameters.items()
        }
        types = {key: parameter.type for key, parameter in self.parameters.items()}
        return BoundQuery(name, self.text, bound, types)

    def bind_nulls(self, name: str) -> BoundQuery:
        """Return the query with NULL in every parameter, to ask for the columns of its result."""
        types = {key: parameter.type for key, parameter in self.parameters.items()}
        return BoundQuery(name, self.text, dict.fromkeys(types), types)

    def unused_parameters(self) -> list[str]:
        """Return the names of the parameters that the text does not have as `:name`."""
        return [
            name
            for name in self.parameters
            if not re.search(rf"(?<!:):{name}(?![a-z0-9_])", self.text)
        ]


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A stored query with the values of one call, as a connector gets it."""

    name: str
    """The name of the query, for the file that it is fetched to."""
    text: str
    """The query, with `:name` for the value of a parameter."""
    values: Mapping[str, QueryValue] = field(repr=False)
    """The values by parameter, each of its type: `str`, `int`, `Decimal`, `bool`, `date` or
    `datetime`; None is NULL."""
    types: Mapping[str, str]
    """The types by parameter, as in `QueryParameter.type`."""


def query_path(name: str) -> str:
    """Return the path of a stored query among the items of its source."""
    return QUERY_PREFIX + name


def stored_query_name(identifier: str) -> str | None:
    """Return the name of the stored query that an identifier may name, or None."""
    name = identifier.removeprefix(QUERY_PREFIX)
    return name if name != identifier and _QUERY_NAME.fullmatch(name) else None


def check_queries(queries: object, where: str) -> None:
    """Check the stored queries of a source.

    Raises:
        OptionError: Names `where` and the query.
    """
    if not isinstance(queries, Mapping):
        raise OptionError(f"{where}: 'queries' must be a mapping of names to stored queries")
    for name, query in queries.items():
        if not isinstance(name, str) or not _QUERY_NAME.fullmatch(name):
            raise OptionError(
                f"{where}: {name!r} is not the name of a query; one is lower-case letters, digits, "
                "underscores and hyphens, 100 at most"
            )
        if not isinstance(query, StoredQuery):
            raise OptionError(f"{where}: query {name!r} must be a StoredQuery")


def read_queries(tables: object, where: str) -> dict[str, StoredQuery]:
    """Return the stored queries that tables of JSON or TOML give.

    Raises:
        OptionError: A query is malformed; names `where` and the query.
    """
    if not isinstance(tables, Mapping):
        raise OptionError(f"{where}: 'queries' must be a table of queries")
    queries: dict[str, StoredQuery] = {}
    for name, table in tables.items():
        try:
            queries[name] = StoredQuery.from_dict(table)
        except OptionError as exc:
            raise OptionError(f"{where}: query {name!r}: {exc}") from None
    check_queries(queries, where)
    return queries


def _convert(type_: str, value: Any, where: str) -> QueryValue:
    try:
        converted = _CONVERSIONS[type_](value)
    except (ValueError, ArithmeticError, InvalidOperation):
        converted = None
    if converted is None:
        raise OptionError(f"{where} must be {_FORMS[type_]}")
    return converted


def _text(value: Any) -> str | None:
    is_text = isinstance(value, str) and not _SURROGATE_OR_NUL.search(value)
    return str(value) if is_text else None


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        value = int(value) if _INTEGER.fullmatch(value) else None
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -(2**63) <= value < 2**63 else None


def _number(value: Any) -> Decimal | None:
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else None


def _date(value: Any) -> date | None:
    if isinstance(value, str):
        return date.fromisoformat(value) if _DATE.fullmatch(value) else None
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _timestamp(value: Any) -> datetime | None:
    if isinstance(value, str):
        has_time = _DATE.match(value) and len(value) > len("2026-01-31")
        return datetime.fromisoformat(value) if has_time else None
    return value if isinstance(value, datetime) else None


_CONVERSIONS = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
}
