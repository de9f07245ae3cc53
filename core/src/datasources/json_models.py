"""Models that hosts send and receive as JSON: `to_dict` and `from_dict` of dataclasses."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from datasources.errors import DataSourceError, OptionError
from datasources.json_values import to_iso_time, to_json_value


class JsonModel:
    """Base of the dataclasses that hosts send and receive as JSON."""

    __slots__ = ()

    _unix_times: ClassVar[frozenset[str]] = frozenset()
    """Fields of Unix seconds, which are ISO 8601 in JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold; see "JSON" in the documentation."""
        model: Any = self
        return {
            field.name: to_iso_time(getattr(self, field.name))
            if field.name in self._unix_times
            else to_json_value(getattr(self, field.name))
            for field in fields(model)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the object that `to_dict` has described.

        Raises:
            OptionError: A field is unknown, missing, or not of its type.
        """
        if not isinstance(values, Mapping):
            raise OptionError(f"a {cls.__name__} is read from a table, not from {_name(values)}")
        hints = _hints(cls)  # type: ignore[arg-type]  # classes are hashable
        model: Any = cls
        required = [f.name for f in fields(model) if f.default is f.default_factory is MISSING]
        if missing := [name for name in required if name not in values]:
            raise OptionError(f"{cls.__name__}: {', '.join(map(repr, missing))} is missing")
        if unknown := [name for name in values if name not in hints]:
            raise OptionError(
                f"{cls.__name__}: unknown {', '.join(map(repr, unknown))}; "
                f"accepted: {', '.join(hints)}"
            )
        arguments = {
            name: _from_iso_time(value, f"{cls.__name__}.{name}")
            if name in cls._unix_times
            else _read(value, hints[name], f"{cls.__name__}.{name}")
            for name, value in values.items()
        }
        return cls(**arguments)


@cache
def _hints(cls: type[JsonModel]) -> dict[str, Any]:
    model: Any = cls
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(model) if field.init}


def _read(value: Any, hint: Any, where: str) -> Any:
    """Return a value of JSON as the type that a field is annotated with.

    Raises:
        OptionError: It is not of that type; the message names `where`, and not the value.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [argument for argument in arguments if argument is not type(None)]
        return _read(value, hint, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_read(item, arguments[0], where) for item in value)
    if origin is Sequence and isinstance(value, (list, tuple)):
        return [_read(item, arguments[0], where) for item in value]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _read(item, arguments[1], where) for key, item in value.items()}
    if isinstance(hint, type):
        return _read_plain(value, hint, where)
    raise OptionError(f"{where} cannot be read from {_name(value)}")


def _read_plain(value: Any, hint: type[Any], where: str) -> Any:
    if issubclass(hint, JsonModel) and isinstance(value, Mapping):
        return hint.from_dict(value)
    if issubclass(hint, BaseException) and isinstance(value, Mapping):
        return DataSourceError.from_dict(value)
    if hint is datetime and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    elif hint is float and isinstance(value, str):
        return _number(value, where)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    elif issubclass(hint, str) and isinstance(value, str):
        return hint(value)
    elif hint in (int, bool) and type(value) is hint:
        return value
    raise OptionError(f"{where} cannot be read from {_name(value)}")


def _number(text: str, where: str) -> float | Decimal:
    """Return the number of a text: infinity, NaN, or one that no float can hold."""
    if text in ("inf", "-inf", "nan"):
        return float(text)
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise OptionError(f"{where} cannot be read from this text")
    return number


def _from_iso_time(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return float(_read_plain(value, float, where))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise OptionError(f"{where} cannot be read from {_name(value)}")


def _name(value: object) -> str:
    return type(value).__name__
