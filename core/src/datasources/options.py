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
        options, fault = cls._validate(values, resolved=True)
        del values  # tools that report errors show the local variables of frames
        if options is None:
            raise OptionError(fault)
        return options

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Self | None:
        """Validate options with unresolved references, whose targets are not checked.

        Returns None if the options cannot be built before the references are resolved.

        Raises:
            OptionError: As `load`.
        """
        options, fault = cls._validate(values, resolved=False)
        del values
        if fault:
            raise OptionError(fault)
        return options

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
    def _validate(cls, values: Mapping[str, Any], *, resolved: bool) -> tuple[Self | None, str]:
        """Return the options if they are valid, and a sentence that says why they are not.

        Nothing is raised here: the frame, and pydantic's error, hold the values.
        """
        for name, value in values.items():
            if any(MARK in text for text in _texts_in(value)):
                return None, f"option {name!r} comes from a masked copy; give the secret itself"
        try:
            return cls.model_validate(values), ""
        except ValidationError as exc:
            errors = exc.errors(include_input=False)
        if not resolved:
            errors = [error for error in errors if not _at_reference(values, error)]
        return None, cls._explain(errors, values) if errors else ""

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
    if typing.get_origin(annotation) is typing.Annotated:
        yield typing.get_args(annotation)[0]  # the rest is metadata, of any kind
        return
    yield from typing.get_args(annotation)
    if hasattr(annotation, "__value__"):  # `type Name = …`
        yield annotation.__value__
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from (info.annotation for info in annotation.model_fields.values())
    elif isinstance(annotation, type) and _has_typed_parts(annotation):
        try:
            yield from typing.get_type_hints(annotation, include_extras=True).values()
        except Exception:  # noqa: BLE001  (evaluates annotations of other people's modules)
            yield SecretStr  # unknown types may be secrets


def _has_typed_parts(cls: type) -> bool:
    """Return True for a dataclass, a TypedDict and a named tuple."""
    return dataclasses.is_dataclass(cls) or typing.is_typeddict(cls) or hasattr(cls, "_fields")


def _secrets_in(value: Any) -> Iterable[str]:
    for leaf in leaves(value):
        if isinstance(leaf, SecretBytes):
            yield leaf.get_secret_value().decode(errors="replace")
        elif isinstance(leaf, _SECRETS):
            yield from map(str, leaves(leaf.get_secret_value()))


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
