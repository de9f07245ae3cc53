"""Options and their types: names, metadata, secrets, and values that could stand for a reference."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, ForwardRef, Literal

from pydantic import BaseModel, Field, Secret, SecretBytes, SecretStr
from pydantic.aliases import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from datasources.nested import leaves
from datasources.redaction import REFERENCE

Kind = Literal["text", "integer", "number", "boolean", "choice", "list", "table"]

SECRET_TYPES = (SecretStr, SecretBytes, Secret)


METADATA_KEY = "x-datasources"
"""The key of an option's JSON Schema under which the metadata of `Option` stand."""
Widget = Literal["text", "password", "number", "checkbox", "select", "textarea"]


def Option(  # noqa: N802 - as pydantic's Field, which it stands for
    default: Any = PydanticUndefined,
    *,
    help: str | None = None,
    label: str | None = None,
    group: str | None = None,
    order: int | None = None,
    advanced: bool = False,
    widget: Widget | None = None,
    discovered: bool = False,
    deprecated: str | None = None,
    **field: Any,
) -> Any:
    """Return pydantic's `Field` for an option, with what prompts, templates and forms show of it.

    The metadata stand in the JSON Schema of the option, under the key `x-datasources`.

    Args:
        default: As for `Field`; without one, the option is required.
        help: A sentence about the option; the `description` of `Field`.
        label: A name for people; by default made from the option's name.
        group: The heading that it stands under.
        order: Options with smaller numbers come first, and those without a number last.
        advanced: It is rarely needed, and comes after all others.
        widget: The input element; by default that of its type.
        discovered: `discover` of the connector gives values to choose from.
        deprecated: Says what to use in its place, such as `use 'host'`. It is hidden from prompts
            and templates, and warned of where it is given.
        field: Further arguments of `Field`, such as `examples` or `ge`.
    """
    given = {"group": group, "order": order, "widget": widget, "deprecated": deprecated}
    metadata = {name: value for name, value in given.items() if value is not None}
    metadata |= {"advanced": True} if advanced else {}
    metadata |= {"discovered": True} if discovered else {}
    extra = {**(field.pop("json_schema_extra", None) or {}), METADATA_KEY: metadata}
    if deprecated is not None:  # not pydantic's own, which warns of every access to the attribute
        extra["deprecated"] = True
    field.setdefault("description", help)
    return Field(default, title=label, json_schema_extra=extra, **field)


def option_metadata(info: FieldInfo) -> dict[str, Any]:
    """Return the metadata of an option; a plain `Field` has at most `deprecated`."""
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    metadata = extra.get(METADATA_KEY)
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    if info.deprecated and "deprecated" not in metadata:
        metadata["deprecated"] = "" if info.deprecated is True else str(info.deprecated)
    return metadata


def option_names(field: tuple[str, FieldInfo]) -> list[str]:
    """Return an option's name and its aliases."""
    name, info = field
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return list(dict.fromkeys([name, *(a for a in alias.choices if isinstance(a, str))]))
    return [name, alias] if isinstance(alias, str) else [name]


def is_secret(annotation: Any) -> bool:
    """Return True if a type is, or contains, a secret."""
    return _is_secret(annotation, {})


def type_arguments(annotation: Any) -> tuple[Any, ...]:
    """Return the types among the arguments of a generic type.

    Of the arguments of `Annotated` only the first is a type (PEP 593): the others are metadata of
    any library. Those of `Literal` are values.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ()
    return arguments[:1] if origin is Annotated else arguments


def complete_model(cls: type[BaseModel]) -> None:
    """Complete a model whose fields name types that were defined after it."""
    if not cls.__pydantic_complete__:
        cls.model_rebuild(raise_errors=False)


def value_kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    """Return the kind of an option's values, and the values of a choice."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = {value_kind(part) for part in parts if part is not type(None)}
        return kinds.pop() if len(kinds) == 1 else ("text", ())
    if origin is Annotated:
        return value_kind(parts[0])
    if origin is Literal:
        return "choice", tuple(map(str, parts))
    plain = origin or annotation
    if not isinstance(plain, type):
        return "text", ()
    if issubclass(plain, enum.Enum):
        return "choice", tuple(str(member.value) for member in plain)
    table: dict[type, Kind] = {bool: "boolean", int: "integer", float: "number"}
    table |= dict.fromkeys((list, tuple, set, frozenset), "list")
    table |= dict.fromkeys((dict, BaseModel), "table")
    return next((kind for base, kind in table.items() if issubclass(plain, base)), "text"), ()


class PlaceholderSecret(SecretStr):
    """A secret in place of a reference, which remembers if a validator has read it."""

    was_read = False

    def get_secret_value(self) -> str:
        """Return the placeholder."""
        self.was_read = True
        return super().get_secret_value()


def placeholders(info: FieldInfo) -> list[Any]:
    """Return values that could stand for a reference: examples, choices, default, or any value."""
    kind, choices = value_kind(info.annotation)
    values = [example for example in info.examples or () if not has_reference(example)]
    values += [True, False] if kind == "boolean" else choices
    if not info.is_required() and info.default not in (None, PydanticUndefined, *values):
        values.append(info.default)
    by_kind: dict[Kind, Any] = {"integer": _number(info), "number": _number(info)}
    by_kind |= {"list": [], "table": {}}
    values = values or [by_kind[kind] if kind in by_kind else _text(info)]
    if SecretStr in (info.annotation, *type_arguments(info.annotation)):
        return [PlaceholderSecret(v) if isinstance(v, str) else v for v in values]
    return values


def depends_on(placeholder: Any, info: FieldInfo) -> bool:
    """Return True if an error of all options may be due to a placeholder for one of them.

    It is not if a secret was not read, or if all values that the option can have were tried.
    """
    if isinstance(placeholder, PlaceholderSecret):
        return placeholder.was_read
    return value_kind(info.annotation)[0] not in ("choice", "boolean")


def has_reference(value: Any) -> bool:
    """Return True if a nested value holds a reference such as `${env:NAME}`."""
    return any(isinstance(leaf, str) and REFERENCE.search(leaf) for leaf in leaves(value))


def _bound(info: FieldInfo, name: str) -> Any:
    bounds = (getattr(constraint, name, None) for constraint in info.metadata)
    return next((bound for bound in bounds if bound is not None), None)


def _number(info: FieldInfo) -> Any:
    """Return a number within the bounds of an option, if one bound allows to tell."""
    for name, distance in (("ge", 0), ("gt", 1), ("le", 0), ("lt", -1)):
        if (bound := _bound(info, name)) is not None:
            return bound + distance
    return 1


def _text(info: FieldInfo) -> str:
    text = "placeholder".ljust(_bound(info, "min_length") or 0, "x")
    return text[: _bound(info, "max_length")]


def _is_secret(annotation: Any, visited: dict[int, Any]) -> bool:
    if id(annotation) in visited:  # a type that contains itself
        return False
    visited[id(annotation)] = annotation  # kept alive, so that no other type gets the same id
    if isinstance(annotation, (str, ForwardRef)):  # a name that could not be resolved
        return True
    cls = typing.get_origin(annotation) or annotation
    if isinstance(cls, type) and issubclass(cls, SECRET_TYPES):
        return True
    try:
        parts = [*type_arguments(annotation), *_named_types(annotation), *_field_types(cls)]
    except Exception:  # noqa: BLE001 - evaluating annotations runs code of other libraries
        return True  # masked rather than shown
    return any(_is_secret(part, visited) for part in parts)


def _named_types(annotation: Any) -> Iterable[Any]:
    """Return what `type Name = …` or `NewType("Name", …)` stands for."""
    names = ("__value__", "__supertype__")
    return [getattr(annotation, name) for name in names if hasattr(annotation, name)]


def _field_types(cls: Any) -> Iterable[Any]:
    """Return the types of the fields of a model, dataclass, typed dictionary or named tuple."""
    if not isinstance(cls, type):
        return ()
    if issubclass(cls, BaseModel):
        complete_model(cls)
        return [info.annotation for info in cls.model_fields.values()]
    if dataclasses.is_dataclass(cls) or typing.is_typeddict(cls) or hasattr(cls, "_fields"):
        return typing.get_type_hints(cls, include_extras=True).values()
    return ()
