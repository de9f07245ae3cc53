"""Typed options of a connector: validated before anything is stored, with declared secrets."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr, ValidationError
from pydantic.aliases import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ErrorType

from datasources.errors import OptionError
from datasources.nested import leaves
from datasources.redaction import MARK, REFERENCE, redact, redact_text

_SECRETS = (SecretStr, SecretBytes, Secret)
_PYDANTIC_ERRORS = frozenset(typing.get_args(ErrorType))


class ConnectorOptions(BaseModel):
    """Base of a connector's options: a pydantic model with one field for each option.

    Secrets are `SecretStr`, `SecretBytes` or `Secret[…]`. Unknown options are errors.
    `Field(description=…, examples=[…])` gives templates, prompts and the JSON Schema their texts;
    an alias (`validation_alias=AliasChoices("container", …)`) is accepted wherever the name is.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Pairs for templates: an identifier that `fetch_data` takes, and a description of the item."""

    def hosts(self) -> Iterable[str]:
        """Return the host names or addresses that the connector contacts with these options.

        A policy compares them with its allowed hosts and networks. Override it for options with
        a host.
        """
        return ()

    def paths(self) -> Iterable[str]:
        """Return the local directories and files that the connector reads with these options.

        A policy compares them with its allowed roots. Override it for options with a path.
        """
        return ()

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """Validate options whose references are resolved.

        Raises:
            OptionError: Names every unknown, missing or ill-typed option, and no value.
        """
        try:
            return cls.model_validate(_not_masked(values))
        except ValidationError as exc:
            errors = exc.errors(include_input=False)
        # Not raised in the handler: the context would be pydantic's error, which has the values.
        raise OptionError(cls._explain(errors, values))

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Self | None:
        """Validate options with unresolved references, whose targets are not checked.

        Returns None if the options cannot be built before the references are resolved.

        Raises:
            OptionError: As `load`.
        """
        try:
            return cls.model_validate(_not_masked(values))
        except ValidationError as exc:
            errors = [e for e in exc.errors(include_input=False) if not _at_reference(values, e)]
        if errors:
            raise OptionError(cls._explain(errors, values))
        return None

    @classmethod
    def redact(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Copy raw options with every declared secret masked; references stay as they are.

        Texts in other options are masked as `redact_text` does; unknown options are masked whole.
        """
        fields = {name: info for info in cls.fields() for name in option_names(info)}
        masked: dict[str, Any] = {}
        for name, value in values.items():
            info = fields.get(name)
            if isinstance(value, str) and REFERENCE.fullmatch(value):
                masked[name] = value
            elif info is None or is_secret(info[1].annotation):
                masked[name] = None if value is None else MARK
            else:
                masked[name] = redact({"": value})[""]
        return masked

    def secret_values(self) -> list[str]:
        """Return the value of every secret in the options, for masking the messages of drivers."""
        return list(_secrets_in(self))

    @classmethod
    def fields(cls) -> list[tuple[str, FieldInfo]]:
        """Return name and field of every option, in order of declaration."""
        return list(cls.model_fields.items())

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(f"a {type(self).__name__} holds secrets and cannot be pickled")

    @classmethod
    def _explain(cls, errors: Iterable[Any], values: Mapping[str, Any]) -> str:
        accepted = ", ".join(name for name, _ in cls.fields())
        parts = []
        for error in errors:
            name = ".".join(str(part) for part in error["loc"] if not str(part).endswith("]"))
            same = next((n for n in map(option_names, cls.fields()) if name in n), [])
            if error["type"] == "extra_forbidden" and same:
                parts.append(f"options {same[0]!r} and {name!r} are the same; give one of them")
            elif error["type"] == "extra_forbidden":
                parts.append(f"unknown option {name!r}; options: {accepted}")
            elif error["type"] == "missing":
                parts.append(f"option {name!r} is missing")
            elif name:
                parts.append(f"option {name!r}: {_message(error, values)}")
            else:
                parts.append(_message(error, values))
        return "; ".join(parts)


def option_names(field: tuple[str, FieldInfo]) -> list[str]:
    """Return an option's name and its aliases."""
    name, info = field
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return list(dict.fromkeys([name, *(a for a in alias.choices if isinstance(a, str))]))
    return [name, alias] if isinstance(alias, str) else [name]


def is_secret(annotation: Any) -> bool:
    """Return True if a type is, or contains, a secret."""
    return _is_secret(annotation, set())


def _is_secret(annotation: Any, seen: set[int]) -> bool:
    if id(annotation) in seen:  # a type that contains itself
        return False
    seen.add(id(annotation))
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, _SECRETS):
        return True
    return any(_is_secret(part, seen) for part in _component_types(annotation))


def _component_types(annotation: Any) -> Iterable[Any]:
    """Yield the types of which a type is made."""
    yield from typing.get_args(annotation)
    if hasattr(annotation, "__value__"):  # `type Name = …`
        yield annotation.__value__
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from (info.annotation for info in annotation.model_fields.values())
    elif (
        dataclasses.is_dataclass(annotation)
        or typing.is_typeddict(annotation)
        or _is_named_tuple(annotation)
    ):
        yield from typing.get_type_hints(annotation, include_extras=True).values()


def _is_named_tuple(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "_fields")


def _secrets_in(value: Any) -> Iterable[str]:
    for leaf in leaves(value):
        if isinstance(leaf, SecretBytes):
            yield leaf.get_secret_value().decode(errors="replace")
        elif isinstance(leaf, _SECRETS):
            yield from map(str, leaves(leaf.get_secret_value()))


def _not_masked(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values, or raise OptionError if one contains the mark of a masked secret."""
    for name, value in values.items():
        if any(MARK in text for text in _texts_in(value)):
            raise OptionError(f"option {name!r} comes from a masked copy; give the secret itself")
    return values


def _texts_in(value: Any) -> Iterable[str]:
    for leaf in leaves(value):
        if isinstance(leaf, (str, int, float)) and not isinstance(leaf, bool):
            yield str(leaf)


def _at_reference(values: Any, error: Any) -> bool:
    """Return True if an error is about a reference, or about all options and one is a reference."""
    if error["type"] in ("missing", "extra_forbidden"):
        return False
    return any(REFERENCE.search(text) for text in _texts_in(_value_at(values, error["loc"])))


def _value_at(values: Any, location: Iterable[Any]) -> Any:
    for part in location:  # some parts are tags of unions, which are not in the values
        if (isinstance(values, Mapping) and part in values) or (
            isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        ):
            values = values[part]
    return values


def _message(error: Any, values: Mapping[str, Any]) -> str:
    message: str = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if {"error", "tag"} & error.get("ctx", {}).keys() or error["type"] not in _PYDANTIC_ERRORS:
        # The message may quote a value. One of up to three characters is masked in quotes only,
        # as it would also be found inside ordinary words.
        given = [text for text in _texts_in(_value_at(values, error["loc"])) if text]
        quoted = [f"{q}{text}{q}" for text in given for q in "'\""]
        message = redact_text(message, [*quoted, *(text for text in given if len(text) > 3)])
    message = message.rstrip(".")
    return message if message[1:2].isupper() else message[:1].lower() + message[1:]
