"""Typed options of a connector: validated before anything is stored, secrets declared."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, ValidationError
from pydantic.aliases import AliasChoices
from pydantic.fields import FieldInfo

from datasources.errors import OptionError
from datasources.redaction import MARK, REFERENCE, redact


class ConnectorOptions(BaseModel):
    """Base of a connector's options: one described pydantic field each, secrets `SecretStr`.

    Unknown options are errors.  `Field(description=…, examples=[…])` feeds templates, prompts
    and the JSON Schema; an alias (`validation_alias=AliasChoices("container", …)`) is accepted
    wherever the name is.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    sample_identifiers: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Pairs of an identifier that `fetch_data` takes and what it fetches, for templates."""

    def hosts(self) -> Iterable[str]:
        """Return the host names or addresses that connecting with these options contacts."""
        return ()

    def paths(self) -> Iterable[str]:
        """Return the local directories and files that the source reads data from."""
        return ()

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """Validate resolved options.

        Raises:
            OptionError: Names every unknown, missing or ill-typed option, never its value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise OptionError(cls._explain(exc.errors(include_input=False))) from None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Self | None:
        """Validate options that may hold references; what a reference stands for is not checked.

        Returns None where the options cannot be built before the references are resolved.

        Raises:
            OptionError: As `load`.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            errors = [e for e in exc.errors(include_input=False) if not _at_reference(values, e)]
            if errors:
                raise OptionError(cls._explain(errors)) from None
            return None

    @classmethod
    def redact(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Copy raw options with every declared secret masked; references stay as they are."""
        fields = {name: info for info in cls.fields() for name in option_names(info)}
        shown: dict[str, Any] = {}
        for name, value in values.items():
            info = fields.get(name)
            if isinstance(value, str) and REFERENCE.fullmatch(value):
                shown[name] = value
            elif info is None or is_secret(info[1].annotation):
                shown[name] = None if value is None else MARK
            else:
                shown[name] = redact({"": value})[""]
        return shown

    def secret_values(self) -> list[str]:
        """Return every secret in the options, to be masked in a driver's messages."""
        return list(_secrets_in(self))

    @classmethod
    def fields(cls) -> list[tuple[str, FieldInfo]]:
        """Return every option, in order of declaration."""
        return list(cls.model_fields.items())

    @classmethod
    def _explain(cls, errors: Iterable[Any]) -> str:
        accepted = ", ".join(name for name, _ in cls.fields())
        parts = []
        for error in errors:
            name = ".".join(str(part) for part in error["loc"] if not str(part).endswith("]"))
            if error["type"] == "extra_forbidden":
                parts.append(f"unknown option {name!r}; options: {accepted}")
            elif error["type"] == "missing":
                parts.append(f"option {name!r} is missing")
            elif name:
                parts.append(f"option {name!r}: {_sentence(error['msg'])}")
            else:
                parts.append(_sentence(error["msg"]))
        return "; ".join(parts)


def option_names(field: tuple[str, FieldInfo]) -> list[str]:
    """Return an option's name and its aliases."""
    name, info = field
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return list(dict.fromkeys([name, *(a for a in alias.choices if isinstance(a, str))]))
    return [name, alias] if isinstance(alias, str) else [name]


def is_secret(annotation: Any) -> bool:
    """Tell whether a type is, or contains, a secret."""
    if isinstance(annotation, type):
        if issubclass(annotation, (SecretStr, SecretBytes)):
            return True
        if issubclass(annotation, BaseModel):
            return any(is_secret(info.annotation) for info in annotation.model_fields.values())
    return any(is_secret(part) for part in typing.get_args(annotation))


def _secrets_in(value: Any) -> Iterable[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode(errors="replace")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _secrets_in(item)


def _at_reference(values: Any, error: Any) -> bool:
    for part in error["loc"]:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values):
            values = values[part]
    return isinstance(values, str) and bool(REFERENCE.search(values))


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]
