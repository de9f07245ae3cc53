"""Texts for people from a connector's options: an annotated example, and questions to ask.

Both are made from the options model, so a connector has nothing else to maintain.
"""

from __future__ import annotations

import enum
import itertools
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from datasources.errors import OptionError
from datasources.models import Limits
from datasources.options import is_secret, option_names, type_arguments
from datasources.redaction import REFERENCE

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector
    from datasources.options import ConnectorOptions

Kind = Literal["text", "integer", "number", "boolean", "choice", "list", "table"]

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
_WIDTH = 96


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


def template(type_name: str, connector_class: type[DataSourceConnector]) -> str:
    """Return an annotated example of a source, in TOML as `read_settings` takes it.

    Required options have example values, and so have optional ones without which the source would
    not be valid; the others are commented out.
    """
    source_id = f"my_{type_name}"
    options_class = connector_class.options_class
    lines = [
        *_comment(
            f"A source of type {type_name}. Replace the example values, and remove '# ' before "
            "settings that you want. Secrets are best left where they are and referred to, as "
            "${env:NAME} or ${file:/path}."
        ),
        "",
        f"[sources.{source_id}]",
        f"type = {_toml(type_name)}",
        f"name = {_toml('My ' + type_name.replace('_', ' '))}",
        '# metadata = { owner = "me" }',
        "",
        *_limits(),
        "",
        f"[sources.{source_id}.options]",
    ]
    if options_class is None:
        lines += _undeclared(type_name)
    else:
        lines += _declared(type_name, options_class)
        lines += _samples(options_class.sample_identifiers)
    return "\n".join(lines).rstrip() + "\n"


def extra_template(name: str, type_name: str, connector_class: type[DataSourceConnector]) -> str:
    """Return a text of a connector's `template_extras`.

    Raises:
        OptionError: The connector has no text of that name.
    """
    extras = connector_class.template_extras
    if name not in extras:
        offered = ", ".join(sorted(extras)) or "none"
        raise OptionError(
            f"the connector {type_name!r} has no template {name!r}; beside its options it offers: "
            f"{offered}"
        )
    return extras[name]


def _limits() -> list[str]:
    limits = ", ".join(
        f"{name} = {_toml(getattr(Limits(), name))}"
        for name in ("max_bytes", "max_rows", "timeout")
    )
    return [
        *_comment('What one fetch may bring, in place of [policy.limits]; "none" lifts a limit.'),
        f"# limits = {{ {limits} }}",
    ]


def _undeclared(type_name: str) -> list[str]:
    return [
        *_comment(
            "This connector does not declare its options; its documentation names them. "
            "They are written like these:"
        ),
        '# url = "https://example.com"',
        f'# password = "${{env:{type_name.upper()}_PASSWORD}}"',
    ]


def _declared(type_name: str, options_class: type[ConnectorOptions]) -> list[str]:
    lines: list[str] = []
    fields = option_fields(options_class, type_name)
    used = _names_in_example(fields, options_class)
    for option in fields:
        more = f" For example: {_examples(option)}." if _examples(option) else ""
        required = "Required." if option.required else f"Optional{_default(option)}."
        about = f"{option.type_words[:1].upper()}{option.type_words[1:]}. {required}{more}"
        mark = "" if option.name in used else "# "
        lines += [
            *_comment(option.description),
            *_comment(about),
            f"{mark}{option.name} = {_toml(option.example)}",
            "",
        ]
    return lines


def _names_in_example(
    fields: Iterable[OptionField], options_class: type[ConnectorOptions]
) -> set[str]:
    """Return the required options, and the fewest others that make the example valid."""
    required = [option for option in fields if option.required]
    optional = [option for option in fields if not option.required]
    for count in range(3):
        for chosen in itertools.combinations(optional, count):
            used = [*required, *chosen]
            try:
                options_class.check({o.name: o.example for o in used})
            except OptionError:
                continue
            return {option.name for option in used}
    return {option.name for option in required}


def _samples(samples: Iterable[tuple[str, str]]) -> list[str]:
    lines = [
        line
        for identifier, meaning in samples
        for line in _comment(f"  {identifier}  ({meaning})" if meaning else f"  {identifier}")
    ]
    return [*_comment("What can be fetched, for example:"), *lines] if lines else []


def _default(option: OptionField) -> str:
    if option.default in (None, "", [], (), {}):
        return ""
    return f"; {_toml(option.default)} unless given"


def _examples(option: OptionField) -> str:
    """Return the examples after the first, which is the value in the template."""
    return ", ".join(_toml(value) for value in option.examples[1:])


def _comment(text: str) -> list[str]:
    indent = "  " if text.startswith("  ") else ""
    return textwrap.wrap(
        re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", " ", text.strip()),
        _WIDTH,
        initial_indent=f"# {indent}",
        subsequent_indent=f"# {indent}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _toml(value: Any) -> str:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping):
        pairs = (f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    # A JSON string is also a TOML string, except that TOML does not allow DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _field(name: str, info: FieldInfo, prefix: str) -> OptionField:
    kind, choices = _kind(info.annotation)
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
    kind, choices = _kind(info.annotation)
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


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = {_kind(part) for part in parts if part is not type(None)}
        return kinds.pop() if len(kinds) == 1 else ("text", ())
    if origin is typing.Annotated:
        return _kind(parts[0])
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
