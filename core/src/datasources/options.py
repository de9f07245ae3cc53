"""Typed options of a connector: validated before anything is stored, with declared secrets."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import typing
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    SecretBytes,
    SecretStr,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from datasources import option_rules
from datasources.errors import OptionError
from datasources.nested import leaves, map_leaves
from datasources.option_types import (
    SECRET_TYPES,
    complete_model,
    depends_on,
    has_reference,
    is_secret,
    option_metadata,
    option_names,
    placeholders,
)
from datasources.redaction import MARK, REFERENCE, is_secret_name, redact, redact_text

# Combinations of placeholders that are tried for one check: six options with two values each.
_MAX_PLACEHOLDERS = 64
# The type of errors of `option_rules`, which quote names and values of the class only.
_RULES = "option_rules"
_warned: set[tuple[type, str]] = set()
"""Deprecations that were warned of in this process."""
_PYDANTIC_ERRORS = frozenset(typing.get_args(ErrorType))
# In a secret, such as a connection string: the beginning of a URL, or a parameter that names a host.
_NAMES_A_HOST = re.compile(
    r"://|\b(?:host\w*|server|data source|addr(?:ess)?|account_?name|\w*endpoint\w*)\s*=",
    re.IGNORECASE,
)
# Names of options whose values name a host in any case, also in the form of `evil.org:3128` or of a
# reference that is not resolved.
_HOST_OPTION = re.compile(
    r"(?:.*_)?(?:hosts?|prox(?:y|ies)|endpoints?|servers?|ur[il]s?|addr(?:ess(?:es)?)?|dsn|conninfo|"
    r"connection_string)",
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

_Reasons = list[tuple[str, str]]
"""Reasons why options are not valid: JSON pointers of options, "" for all of them, and sentences."""


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
    options_version: ClassVar[int] = 1
    """The version of these options; raise it when options are renamed or removed, and `migrate`
    those of stored sources."""
    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Sets of options of which exactly one is given: `(("dsn",), ("host", "database", "user"))`.

    The options have no default but None. No set contains another. Validation checks that one set is
    complete; the JSON Schema says `oneOf`; prompts ask first which one it is; a template has the
    first one, and the others as comments."""
    alternatives_overlap: ClassVar[bool] = False
    """True if several alternatives may be given because one overrides another: then at least one
    is, and the JSON Schema says `anyOf`."""
    requires: ClassVar[Mapping[str | tuple[str, Any], tuple[str, ...]]] = {}
    """Options that others call for: `{("credentials", "keys"): ("key_id", "key")}` if the option
    `credentials` has the value `keys`, `{"user": ("password",)}` if `user` is given."""

    discover_defaults: ClassVar[Mapping[str, Any]] = {}
    """Values of options that `discover` of the connector does without, such as a database that every
    server has. They complete the options that are given so far."""

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
        each secret that names a host itself, such as a connection string, or is an option for one,
        such as `proxy` or `dsn`. Override the method to leave out what has no part in it. Values are those of JSON and hold no secret. References
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
            elif digest := _host_digest(name, _secrets_in(option)):
                values[name] = digest
        return {**values, "hosts()": sorted(map(str, self.hosts()))}

    def ambient(self) -> bool:
        """Return True if the connector logs in with an identity of the machine with these options.

        Such an identity belongs to the host: a managed identity, the login of a command line tool,
        the user of the process. A policy can refuse it. Override it for options that can do so.
        """
        return False

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """Validate options whose references are resolved.

        Raises:
            OptionError: Names every unknown, missing or ill-typed option, and no value.
        """
        options, reasons = cls._validate(values, resolved=True)
        del values  # tools that report errors show the local variables of frames
        if options is None:
            raise _option_error(reasons)
        return options

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Self | None:
        """Validate options with unresolved references, whose targets are not checked.

        Where a reference is not a value of its option, the options are validated with values that
        it could have: the examples, choices and default of the option, or any of its type. They are
        refused if none of these makes all options valid together.

        Returns None if the options cannot be built before the references are resolved.

        Raises:
            OptionError: As `load`.
        """
        options, reasons = cls._validate(values, resolved=False)
        del values
        if reasons:
            raise _option_error(reasons)
        return options

    @classmethod
    def migrate(cls, values: Mapping[str, Any], from_version: int) -> dict[str, Any]:  # noqa: ARG003 - for subclasses
        """Return the options of a stored source of an older version as options of this one.

        Called when a source is loaded whose `from_version` is below `options_version`; a source
        that was stored without a version has 1. Values may be references. What this returns is
        validated, and stored when the source is next saved.
        """
        return dict(values)

    @classmethod
    def deprecations(cls, values: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each deprecated option that is given."""
        sentences = []
        for name, info in cls.fields():
            advice = option_metadata(info).get("deprecated")
            given = any(values.get(n) is not None for n in option_names((name, info)))
            if advice is not None and given:
                sentences.append(f"option {name!r} is deprecated" + (advice and f": {advice}"))
        return sentences

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
        complete_model(cls)
        return list(cls.model_fields.items())

    @model_validator(mode="after")
    def _check_option_rules(self) -> Self:
        values = vars(self)  # not `dict(self)`, which an option of the name `keys` would break
        given = [name for name in self.model_fields_set if values.get(name) is not None]
        if fault := option_rules.find_fault(type(self), given, values):
            raise PydanticCustomError(_RULES, "{fault}", {"fault": fault})
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        option_rules.check_declaration(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema)
        if handler.mode == "validation":
            resolved = handler.resolve_ref_schema(schema)
            option_rules.add_to_schema(cls, resolved)
            for name, info in cls.fields():
                for key in option_names((name, info)):
                    if is_secret(info.annotation) and key in resolved.get("properties", {}):
                        resolved["properties"][key]["writeOnly"] = True
        return schema

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(f"a {type(self).__name__} holds secrets and cannot be pickled")

    @classmethod
    def _validate(
        cls, values: Mapping[str, Any], *, resolved: bool
    ) -> tuple[Self | None, _Reasons]:
        """Return the options if they are valid, and the reasons why they are not.

        Nothing is raised here: the frame, and pydantic's error, hold the values.
        """
        for name, value in values.items():
            if any(MARK in text for text in _texts_in(value)):
                reason = f"option {name!r} comes from a masked copy; give the secret itself"
                return None, [(_pointer(name), reason)]
        for sentence in cls.deprecations(values):
            if (cls, sentence) not in _warned:
                _warned.add((cls, sentence))
                warnings.warn(sentence, DeprecationWarning, stacklevel=4)
        try:
            return cls.model_validate(values), []
        except ValidationError as exc:
            errors = exc.errors(include_input=False)
        if not resolved:
            certain = [
                error for error in errors if error["loc"] and not _at_reference(values, error)
            ]
            if not certain and any(map(has_reference, values.values())):
                return None, cls._find_certain_reasons(values)
            errors = certain or errors
        return None, cls._explain(errors, values)

    @classmethod
    def _find_certain_reasons(cls, values: Mapping[str, Any]) -> _Reasons:
        """Return why options are not valid whatever the values of their references are."""
        reasons, is_certain = cls._try_placeholders(values)
        if is_certain or not reasons:
            return reasons
        # A validator refused every value that was tried, so those of all options did not run.
        defaults = {name: info.default for name, info in cls.fields() if not info.is_required()}
        names = {name: field[0] for field in cls.fields() for name in option_names(field)}
        given = {names[name]: v for name, v in values.items() if name in names and v is not None}
        fault = option_rules.find_fault(cls, given, {**defaults, **given})
        return [("", fault)] if fault else []

    @classmethod
    def _try_placeholders(cls, values: Mapping[str, Any]) -> tuple[_Reasons, bool]:
        """Validate options with values that could stand for their references.

        Returns:
            Nothing if some of the values make them valid, otherwise the reasons why the first ones
            do not; and True if no other values could make them valid.
        """
        fields = {name: field for field in cls.fields() for name in option_names(field)}
        names = [name for name, v in values.items() if name in fields and has_reference(v)]
        combinations = itertools.product(*(placeholders(fields[name][1]) for name in names))
        first_reasons: _Reasons = []
        is_certain = True
        for chosen in itertools.islice(combinations, _MAX_PLACEHOLDERS):
            tried = dict(zip(names, chosen, strict=True))
            try:
                cls.model_validate({**values, **tried})
            except ValidationError as exc:
                errors = exc.errors(include_input=False)
            else:
                return [], True
            first_reasons = first_reasons or cls._explain(errors, {**values, **tried})
            is_certain &= not any(
                error["loc"][:1] == (name,) or depends_on(value, fields[name][1])
                for name, value in tried.items()
                for error in errors
            )
        return first_reasons, is_certain

    @classmethod
    def _explain(cls, errors: Iterable[Any], values: Mapping[str, Any]) -> _Reasons:
        accepted = ", ".join(name for name, _ in cls.fields())
        reasons: _Reasons = []
        for error in errors:
            # Parts in brackets are pydantic's: the member of a union, or the key of a mapping.
            path = [str(part) for part in error["loc"] if not str(part).endswith("]")]
            name = ".".join(path)
            same = next((n for n in map(option_names, cls.fields()) if name in n), [])
            if error["type"] == "extra_forbidden" and same:
                reason = f"options {same[0]!r} and {name!r} are the same; give one of them"
            elif error["type"] == "extra_forbidden":
                reason = f"unknown option {name!r}; options: {accepted}"
            elif error["type"] == "missing":
                reason = f"option {name!r} is missing"
            elif name:
                reason = f"option {name!r}: {_message(error, values)}"
            else:
                reason = _message(error, values)
            reasons.append((_pointer(*path), reason))
        return reasons


def _pointer(*path: str) -> str:
    """Return the JSON pointer (RFC 6901) of an option; that of all options is empty."""
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)


def _option_error(reasons: _Reasons) -> OptionError:
    message = "; ".join(reason for _, reason in reasons)
    return OptionError(message, fields={pointer: reason for pointer, reason in reasons if pointer})


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
    except (Exception, SystemExit):  # noqa: BLE001  (a connector may not expect a reference there)
        return [dict(values) for values in versions]


def check_examples(options_class: type[ConnectorOptions], values: Mapping[str, Any]) -> None:
    """Validate options with examples in place of references, through every validator.

    Stricter than `ConnectorOptions.check`, which accepts what cannot be decided because validators
    refuse every example of a reference. For templates, where every value is an example.

    Raises:
        OptionError: As `ConnectorOptions.load`; or no example of a reference is valid.
    """
    reasons, _ = options_class._try_placeholders(values)
    if reasons:
        raise _option_error(reasons)


def _secrets_in(value: Any) -> Iterable[str]:
    for leaf in leaves(value):
        if isinstance(leaf, SecretBytes):
            yield leaf.get_secret_value().decode(errors="replace")
        elif isinstance(leaf, SECRET_TYPES):
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
        elif digest := _host_digest(name, _texts_in(value)):
            destination[name] = digest
    return destination


def _host_digest(name: str, secrets: Iterable[str]) -> str | None:
    """Return a digest of the secrets in an option if they name a host, else None."""
    texts = [text for text in secrets if text]
    named = any(_NAMES_A_HOST.search(text) for text in texts)
    if not texts or not (named or _HOST_OPTION.fullmatch(name)):
        return None
    return hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()


def _as_json(leaf: Any) -> Any:
    if isinstance(leaf, SECRET_TYPES):
        return MARK
    return leaf if leaf is None or isinstance(leaf, (bool, int, float, str)) else str(leaf)


def _texts_in(value: Any) -> Iterable[str]:
    for leaf in leaves(value):
        if isinstance(leaf, (str, int, float)) and not isinstance(leaf, bool):
            yield str(leaf)


def _at_reference(values: Any, error: Any) -> bool:
    """Return True if an error is about a value that is a reference."""
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
    if error["type"] == _RULES:
        return message
    if {"error", "tag"} & error.get("ctx", {}).keys() or error["type"] not in _PYDANTIC_ERRORS:
        # The message may quote a value. One of up to three characters is masked in quotes only,
        # as it would also be found inside ordinary words.
        given = [text for text in _texts_in(_value_at(values, error["loc"])) if text]
        quoted = [f"{q}{text}{q}" for text in given for q in "'\""]
        message = redact_text(message, [*quoted, *(text for text in given if len(text) > 3)])
    message = message.rstrip(".")
    return message if message[1:2].isupper() else message[:1].lower() + message[1:]
