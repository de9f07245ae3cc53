"""Options as people meet them: what each one is called, takes and means, and typed texts as values.

Prompts, templates and forms are made from the options model, so a connector has nothing else to
maintain.
"""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from datasources.errors import OptionError
from datasources.option_types import (
    Kind,
    Widget,
    is_secret,
    option_metadata,
    option_names,
    type_arguments,
    value_kind,
)
from datasources.redaction import REFERENCE

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions

_WORDS: dict[Kind, str] = {
    "text": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "choice": "one of",
    "list": "list",
    "table": "table",
}
_BOUNDS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "length at least {}",
    "max_length": "length at most {}",
}
_WIDGETS: dict[Kind, Widget] = {
    "integer": "number",
    "number": "number",
    "boolean": "checkbox",
    "choice": "select",
    "table": "textarea",
}
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "no", "n", "off", "0"), False),
}


@dataclass(frozen=True, slots=True)
class OptionField:
    """The facts of one option that people need to give it a value."""

    name: str
    names: tuple[str, ...]
    """The name, then its aliases."""
    kind: Kind
    secret: bool
    """True if the option is, or contains, a declared secret."""
    type_words: str
    """Type and bounds in words, such as `whole number, at least 1`."""
    required: bool
    default: Any
    """`None` if there is no default, or a computed one, or the option is secret."""
    choices: tuple[str, ...]
    description: str
    example: Any
    """An example value; secrets in it are references."""
    examples: tuple[Any, ...]
    """The examples that the field declares; none for a secret."""
    label: str = ""
    """The name for people."""
    group: str | None = None
    advanced: bool = False
    widget: Widget = "text"
    discovered: bool = False
    """True if the connector can say which values there are, before a source exists."""
    deprecated: str | None = None
    """The advice to users of a deprecated option, or ""; `None` if it is not deprecated."""

    def parse(self, text: str) -> Any:
        """Return the value that a text typed by a person means; a reference means itself.

        Raises:
            OptionError: The text is not of the option's type; the message does not repeat it.
        """
        if REFERENCE.search(text):
            return text
        try:
            return _parse(self.kind, self.choices, text)
        except (ValueError, KeyError):
            raise OptionError(f"option {self.name!r} must be {self.type_words}") from None


def option_fields(
    options_class: type[ConnectorOptions], type_name: str = "source"
) -> list[OptionField]:
    """Return the options in the order in which they are asked for.

    Required ones come first, then those of alternatives, advanced ones last; among these by `order`,
    then by declaration. `type_name` is part of the names in references, such as
    `${env:SOURCE_PASSWORD}`.
    """
    alternatives = {name for names in options_class.alternatives for name in names}
    declared = options_class.fields()

    def position(field: tuple[str, FieldInfo]) -> tuple[bool, bool, bool, float]:
        metadata = option_metadata(field[1])
        return (
            not field[1].is_required(),
            field[0] not in alternatives,
            bool(metadata.get("advanced")),
            float(metadata.get("order", math.inf)),
        )

    return [_field(name, info, type_name) for name, info in sorted(declared, key=position)]


def form(options_class: type[ConnectorOptions]) -> dict[str, Any]:
    """Describe the form of a connector's options, as values that JSON can hold.

    Its keys:

    - `description`: text about all options
    - `fields`: in order; each has `name`, `aliases`, `label`, `help`, `group`, `kind` (text, integer,
      number, boolean, choice, list or table), `widget` (text, password, number, checkbox, select or
      textarea), `required`, `default` (None if there is none), `choices`, `examples`, `bounds` (such
      as `{"ge": 1}`), `advanced`, `secret`, `discovered` and `deprecated` (text, or None). The value
      of a `secret` field is written and never shown.
    - `groups`: the headings in order; each has `name` (None for fields without one) and `fields`
    - `alternatives`: lists of names; one list is given completely, and with
      `alternatives_overlap` false, no second one
    - `requires`: each has `option`, `needs` (names), and `value` if it holds for that value only
    - `version`: the version of the options

    Options that may be None are described by the type that they have otherwise.
    """
    fields = option_fields(options_class)
    infos = dict(options_class.fields())
    described = [_describe(field, infos[field.name]) for field in fields]
    names = dict.fromkeys(field.group for field in fields)
    return {
        "description": inspect.cleandoc(options_class.__doc__ or ""),
        "version": options_class.options_version,
        "fields": described,
        "groups": [
            {"name": name, "fields": [field.name for field in fields if field.group == name]}
            for name in names
        ],
        "alternatives": [list(names) for names in options_class.alternatives],
        "alternatives_overlap": options_class.alternatives_overlap,
        "requires": [
            {"option": condition, "needs": list(needs)}
            if isinstance(condition, str)
            else {"option": condition[0], "value": condition[1], "needs": list(needs)}
            for condition, needs in options_class.requires.items()
        ],
    }


def _describe(field: OptionField, info: FieldInfo) -> dict[str, Any]:
    described = {
        "name": field.name,
        "aliases": list(field.names[1:]),
        "label": field.label,
        "help": field.description,
        "group": field.group,
        "kind": field.kind,
        "widget": field.widget,
        "required": field.required,
        "default": field.default,
        "choices": list(field.choices),
        "examples": list(field.examples),
        "bounds": dict(_constraints(info)),
        "advanced": field.advanced,
        "secret": field.secret,
        "discovered": field.discovered,
        "deprecated": field.deprecated,
    }
    json_values: dict[str, Any] = to_jsonable_python(described, fallback=str)
    return json_values


def _field(name: str, info: FieldInfo, prefix: str) -> OptionField:
    kind, choices = value_kind(info.annotation)
    secret = is_secret(info.annotation)
    metadata = option_metadata(info)
    words = ("secret " if secret else "") + _WORDS[kind]
    words += f" {', '.join(choices)}" if choices else ""
    plain = not (info.is_required() or info.default_factory or secret)
    return OptionField(
        name=name,
        names=tuple(option_names((name, info))),
        kind=kind,
        secret=secret,
        type_words=", ".join([words, *_bounds(info)]),
        required=info.is_required(),
        default=info.default if plain else None,
        choices=choices,
        description=(info.description or "").strip(),
        example=_example(name, info, prefix),
        examples=() if secret else tuple(info.examples or ()),
        label=info.title or name.replace("_", " ").capitalize(),
        group=metadata.get("group"),
        advanced=bool(metadata.get("advanced")),
        widget=metadata.get("widget") or ("password" if secret else _WIDGETS.get(kind, "text")),
        discovered=bool(metadata.get("discovered")),
        deprecated=metadata.get("deprecated"),
    )


def _example(name: str, info: FieldInfo, prefix: str) -> Any:
    kind, choices = value_kind(info.annotation)
    if is_secret(info.annotation):
        return _secret_example(kind, _model(info.annotation), f"{prefix}_{name}")
    if info.examples:
        return info.examples[0]
    if not (info.is_required() or info.default_factory or info.default is None):
        return info.default
    by_kind: dict[Kind, Any] = {"integer": 1, "number": 1.0, "boolean": False}
    by_kind |= {"choice": next(iter(choices), ""), "list": [], "table": {}}
    return by_kind.get(kind, f"<{name}>")


def _secret_example(kind: Kind, model: type[BaseModel] | None, prefix: str) -> Any:
    if kind == "table" and model is not None:
        inner = model.model_fields.items()
        return {
            name: _example(name, info, prefix)
            for name, info in inner
            if info.is_required() or is_secret(info.annotation)
        }
    reference = f"${{env:{prefix.upper()}}}"
    return [reference] if kind == "list" else {"name": reference} if kind == "table" else reference


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the first model among the types that a type consists of; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = map(_model, type_arguments(annotation))
    return next((model for model in parts if model is not None), None)


def _bounds(info: FieldInfo) -> list[str]:
    return [_BOUNDS[name].format(bound) for name, bound in _constraints(info)]


def _constraints(info: FieldInfo) -> list[tuple[str, Any]]:
    """Return the bounds of an option, by their names in `Field`."""
    return [
        (name, getattr(constraint, name))
        for constraint in info.metadata
        for name in _BOUNDS
        if getattr(constraint, name, None) is not None
    ]


def _parse(kind: Kind, choices: tuple[str, ...], text: str) -> Any:
    if kind == "integer":
        return int(text)
    if kind == "number":
        return float(text)
    if kind == "boolean":
        return _BOOLEANS[text.strip().lower()]
    if kind == "choice":
        return choices[choices.index(text)]
    if kind == "list" and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind in ("list", "table"):
        value = json.loads(text)
        if isinstance(value, dict) != (kind == "table"):
            raise ValueError(kind)
        return value
    return text
