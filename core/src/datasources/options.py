"""Typed options of a connector: validated before anything is stored, with declared secrets."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, ForwardRef, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
    create_model,
)
from pydantic.aliases import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ErrorType

from datasources.errors import OptionError
from datasources.nested import leaves, map_leaves
from datasources.redaction import MARK, REFERENCE, is_secret_name, redact, redact_text

_SECRETS = (SecretStr, SecretBytes, Secret)
_PYDANTIC_ERRORS = frozenset(typing.get_args(ErrorType))
# In a secret, such as a connection string: the beginning of a URL, or a parameter that names a host.
_NAMES_A_HOST = re.compile(
    r"://|\b(?:host\w*|server|data source|addr(?:ess)?|account_?name|\w*endpoint\w*)\s*=",
    re.IGNORECASE,
)


def _load_pydantic_plugins() -> None:
    """Have pydantic load its own plugins, and do without them if that fails.

    It does so when the first model class is defined: it reads the entry points of all
    distributions, and raises if those of a single one are unreadable, or a plugin of pydantic
    raises. It does not try again, so that all later model classes can be defined.
    """
    try:
        create_model("_FirstModel")
    except Exception as exc:  # noqa: BLE001  (whatever the plugin of somebody else raises)
        logging.getLogger(__name__).info("pydantic cannot load its plugins: %s", type(exc).__name__)


_load_pydantic_plugins()


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

    def destination(self) -> Mapping[str, Any]:
        """Return everything that decides who receives the secrets or can read them on their way.

        That is hosts, ports, endpoints, TLS modes and files of trusted certificates, proxies, URLs
        that give tokens, roles to assume. If an update of the source changes the destination,
        every secret has to be given again.

        By default these are all options but the secret ones, what `hosts` returns, and a digest of
        each secret that names a host itself, such as a connection string. Override the method to
        leave out what has no part in it. Values are those of JSON and hold no secret. References
        are not resolved yet: options may have a reference's text, `${env:NAME}`, in place of a
        value of their type, and the text then stands for the value. An error that the method
        raises makes every option count.
        """
        values: dict[str, Any] = {}
        for name, info in self.fields():
            option = getattr(self, name, None)
            value = map_leaves(option, _as_json)
            if not is_secret(info.annotation) or value not in (None, MARK):
                values[name] = value
            elif digest := _host_digest(_secrets_in(option)):
                values[name] = digest
        return {**values, "hosts()": sorted(map(str, self.hosts()))}

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
        _resolve(cls)
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


def destinations(
    options_class: type[ConnectorOptions] | None, *versions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the destination of each of some versions of a source's options, for comparison.

    Without an options class, every option counts whose name is not that of a secret.

    Args:
        options_class: The connector's.
        versions: Options whose references are not resolved.
    """
    if options_class is None:
        return [_undeclared_destination(values) for values in versions]
    try:
        checked = [options_class.check(values) for values in versions]
    except OptionError:  # stored when the connector had other options
        checked = [None]
    # All in the same way, as validating an option may change its value.
    if None in checked:
        checked = [_unchecked(options_class, values) for values in versions]
    try:
        return [dict(options.destination()) for options in checked if options is not None]
    except Exception:  # noqa: BLE001  (a connector may not expect a reference there)
        return [dict(values) for values in versions]


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


def _is_secret(annotation: Any, visited: dict[int, Any]) -> bool:
    if id(annotation) in visited:  # a type that contains itself
        return False
    visited[id(annotation)] = annotation  # kept alive, so that no other type gets the same id
    if isinstance(annotation, (str, ForwardRef)):  # a name that could not be resolved
        return True
    cls = typing.get_origin(annotation) or annotation
    if isinstance(cls, type) and issubclass(cls, _SECRETS):
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
        _resolve(cls)
        return [info.annotation for info in cls.model_fields.values()]
    if dataclasses.is_dataclass(cls) or typing.is_typeddict(cls) or hasattr(cls, "_fields"):
        return typing.get_type_hints(cls, include_extras=True).values()
    return ()


def _resolve(cls: type[BaseModel]) -> None:
    """Complete a model whose fields name types that were defined after it."""
    if not cls.__pydantic_complete__:
        cls.model_rebuild(raise_errors=False)


def _secrets_in(value: Any) -> Iterable[str]:
    for leaf in leaves(value):
        if isinstance(leaf, SecretBytes):
            yield leaf.get_secret_value().decode(errors="replace")
        elif isinstance(leaf, _SECRETS):
            yield from map(str, leaves(leaf.get_secret_value()))


def _unchecked(cls: type[ConnectorOptions], values: Mapping[str, Any]) -> ConnectorOptions:
    """Return options that are not validated, as they hold references in place of values."""
    given: dict[str, Any] = {}
    for name, info in cls.fields():
        for value in [values[alias] for alias in option_names((name, info)) if alias in values][:1]:
            secret = isinstance(value, str) and is_secret(info.annotation)
            given[name] = SecretStr(value) if secret else value
    return cls.model_construct(**given)


def _undeclared_destination(values: Mapping[str, Any]) -> dict[str, Any]:
    destination: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            destination[name] = _undeclared_destination(value)
        elif not is_secret_name(name):
            destination[name] = value
        elif digest := _host_digest(_texts_in(value)):
            destination[name] = digest
    return destination


def _host_digest(secrets: Iterable[str]) -> str | None:
    """Return a digest of secrets if one of them names a host, else None."""
    texts = list(secrets)
    if not any(_NAMES_A_HOST.search(text) for text in texts):
        return None
    return hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()


def _as_json(leaf: Any) -> Any:
    if isinstance(leaf, _SECRETS):
        return MARK
    return leaf if leaf is None or isinstance(leaf, (bool, int, float, str)) else str(leaf)


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
