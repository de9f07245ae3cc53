"""Options as people meet them: what each one is called, takes and means, and typed texts as values.

Prompts, templates and forms are made from the options model, so a connector has nothing else to
maintain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from datasources.errors import OptionError
from datasources.option_types import Kind, is_secret, option_names, type_arguments, value_kind
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
    """Return the options: required ones first, otherwise in order of declaration.

    `type_name` is part of the names in references, such as `${env:SOURCE_PASSWORD}`.
    """
    options = [_field(name, info, type_name) for name, info in options_class.fields()]
    return sorted(options, key=lambda option: not option.required)


def _field(name: str, info: FieldInfo, prefix: str) -> OptionField:
    kind, choices = value_kind(info.annotation)
    secret = is_secret(info.annotation)
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
    return [
        words.format(getattr(constraint, name))
        for constraint in info.metadata
        for name, words in _BOUNDS.items()
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
