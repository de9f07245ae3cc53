"""Read the dataclasses of the API from JSON."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from datasources_client.errors import ResponseError, error_from_dict

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Model = TypeVar("Model", bound=DataclassInstance)

_REQUIRED = object()


def read_model(cls: type[Model], values: object) -> Model:
    """Return an instance of a dataclass from a JSON object.

    Members that the class does not know are ignored: a later server may have more of them.

    Raises:
        ResponseError: A field is missing, or not of its type.
    """
    if not isinstance(values, Mapping):
        raise ResponseError(f"the server's response is no {cls.__name__}")
    arguments = {}
    for name, (hint, default) in _fields(cls).items():
        value = values.get(name, default)
        if value is _REQUIRED:
            raise ResponseError(f"the server's response has no {cls.__name__}.{name}")
        arguments[name] = (
            value if value is default else _read(value, hint, f"{cls.__name__}.{name}")
        )
    return cls(**arguments)


@cache
def _fields(cls: type[DataclassInstance]) -> dict[str, tuple[Any, object]]:
    """Return type and default of each field."""
    hints = get_type_hints(cls)
    return {
        field.name: (hints[field.name], _REQUIRED if field.default is MISSING else field.default)
        for field in fields(cls)
    }


def _read(value: Any, hint: Any, where: str) -> Any:
    """Return a value of JSON as the type that a field is annotated with.

    Raises:
        ResponseError: It is not of that type; the message names `where`, and not the value.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):  # T | None
        if value is None:
            return None
        if arguments[0] is datetime and type(value) in (int, float):
            return None  # a time beyond the years that `datetime` can hold
        return _read(value, arguments[0], where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(item, arguments[0], where) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {key: _read(item, arguments[1], where) for key, item in value.items()}
    if isinstance(hint, type) and origin is None:
        return _read_plain(value, hint, where)
    raise ResponseError(f"the server's response has another type in {where}")


def _read_plain(value: Any, hint: type[Any], where: str) -> Any:
    if isinstance(value, dict):
        if hasattr(hint, "__dataclass_fields__"):
            return read_model(hint, value)
        if issubclass(hint, BaseException):
            return error_from_dict(value)
    try:
        if hint is datetime and isinstance(value, str):
            return datetime.fromisoformat(value)
        if hint is float and isinstance(
            value, str
        ):  # `inf`, `nan`, or more digits than a float has
            return float(value)
        if hint is float and type(value) in (int, float):
            return float(value)
    except (ValueError, OverflowError):  # the latter of a whole number beyond the range of floats
        pass
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise ResponseError(f"the server's response has another type in {where}")
