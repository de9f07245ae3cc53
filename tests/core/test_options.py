"""Options are validated by name, and no message or masked copy carries a value."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    TypedDict,
)

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Secret,
    SecretBytes,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    conint,
    conlist,
    field_validator,
    model_validator,
)
from typing_extensions import TypeAliasType, TypeVar

from datasources import ConnectorOptions, DataSourceError, OptionError
from datasources.option_types import is_secret, option_names
from datasources.redaction import MARK
from tests.core.tracebacks import local_variables

SECRET = "pa55-of-the-source"


@dataclasses.dataclass(frozen=True)
class Unresolvable:
    """Metadata of a library."""

    name: NotThere  # type: ignore[name-defined]  # noqa: F821  (cannot be evaluated)


if TYPE_CHECKING:
    from collections.abc import Container


class KeyLogin(BaseModel):
    kind: Literal["key"] = "key"
    key: SecretStr


class UserLogin(BaseModel):
    kind: Literal["user"]
    user: str
    password: SecretStr


class Options(ConnectorOptions):
    host: str
    port: int = Field(5432, ge=1, le=65535)
    mode: Literal["fast", "safe"] = "safe"
    container: str = Field("c", validation_alias=AliasChoices("container", "container_name"))
    folder: str = Field("f", validation_alias="directory")
    password: SecretStr | None = None
    login: Annotated[KeyLogin | UserLogin, Field(discriminator="kind")] | None = None
    tags: dict[str, int] | None = None
    hosts_more: list[str] | None = None
    magic: SecretStr | None = None
    keys_by_name: dict[str, list[SecretStr]] | None = None
    dsn: str | None = None

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        if " " in value:
            raise ValueError(f"{value!r} is not a host.")
        return value

    @model_validator(mode="after")
    def _check_dsn(self) -> Options:
        if self.dsn is not None and "=" not in self.dsn:
            raise ValueError(f"DSN {self.dsn} has no pairs")
        return self


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "option 'host' is missing"),
        ({"host": "h", "hots": 1}, "unknown option 'hots'; options: host, port, mode, container"),
        ({"host": 5}, "option 'host': input should be a valid string"),
        ({"host": "h", "port": "x"}, "option 'port': input should be a valid integer"),
        ({"host": "h", "port": 0}, "option 'port': input should be greater than or equal to 1"),
        ({"host": "h", "mode": "x"}, "option 'mode': input should be 'fast' or 'safe'"),
        (
            {"host": "h", "container_name": 5},
            "option 'container_name': input should be a valid string",
        ),
        ({"host": "h", "directory": 5}, "option 'directory': input should be a valid string"),
        ({"host": "h", "tags": {"a": "x"}}, "option 'tags.a': input should be a valid integer"),
        (
            {"host": "h", "hosts_more": ["a", 5]},
            "option 'hosts_more.1': input should be a valid string",
        ),
        ({"host": "h", "login": {"kind": "key"}}, "option 'login.key.key' is missing"),
        (
            {"host": "h", "container": "a", "container_name": "b"},
            "'container' and 'container_name' are",
        ),
        ({"host": "h", "dsn": "nothing"}, "DSN"),
        ({"hots": "h", "port": "x"}, "option 'host' is missing; option 'port': input"),
    ],
)
def test_error_names_the_option_and_what_is_accepted(values: dict[str, Any], message: str):
    for validate in (Options.load, Options.check):
        with pytest.raises(OptionError) as caught:
            validate(values)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_name_and_aliases_are_taken():
    for name in ("container", "container_name"):
        assert Options.load({"host": "h", name: "x"}).container == "x"
    for name in ("folder", "directory"):
        assert Options.load({"host": "h", name: "x"}).folder == "x"
    names = {name: option_names((name, info)) for name, info in Options.fields()}
    assert names["container"] == ["container", "container_name"]
    assert names["folder"] == ["folder", "directory"]
    assert names["host"] == ["host"]


# Values never show.  A marker is longer than any word of a message.
MARKERS = st.text("ghjkmnpq0123456789 ./", min_size=6, max_size=20).map(lambda text: f"zq{text}qz")


def placed(marker: str) -> list[dict[str, Any]]:
    ok = {"host": "h"}
    return [
        {"host": f"{marker} x"},
        ok | {"port": marker},
        ok | {"mode": marker},
        ok | {"container": [marker]},
        ok | {"unknown": marker},
        ok | {"password": [marker]},
        ok | {"password": {"a": marker}},
        ok | {"login": {"kind": marker}},
        ok | {"login": {"kind": "key", "key": [marker]}},
        ok | {"login": {"kind": "user", "user": marker, "password": 5}},
        ok | {"login": marker},
        ok | {"tags": {"a": marker}},
        ok | {"tags": [marker]},
        ok | {"hosts_more": marker},
        ok | {"hosts_more": [{"a": marker}]},
        ok | {"magic": (marker,)},
        ok | {"keys_by_name": {"a": marker}},
        ok | {"keys_by_name": {"a": [[marker]]}},
        ok | {"dsn": marker},
        ok | {"dsn": marker, "password": marker, "magic": marker},
        {"host": marker, "port": 0, "password": marker},
    ]


@settings(deadline=None)
@given(MARKERS)
def test_no_value_shows_in_an_error_its_context_or_its_traceback(marker: str):
    for values in placed(marker):
        for validate in (Options.load, Options.check):
            with pytest.raises(OptionError) as caught:
                validate(values)
            assert marker not in str(caught.value), values
            assert marker not in "".join(traceback.format_exception(caught.value))
            assert caught.value.__context__ is None


def test_value_of_a_letter_is_hidden_where_it_is_quoted_only():
    with pytest.raises(
        OptionError, match=f"option 'host': '?{MARK.replace('*', '.')}'? is not a host$"
    ):
        Options.load({"host": "a b"})


# References.


@pytest.mark.parametrize(
    "values",
    [
        {"host": "${env:HOST}", "port": "${env:PORT}"},
        {"host": "h", "port": "1${env:PORT}"},
        {"host": "h", "mode": "${env:MODE}"},
        {"host": "h", "login": "${file:/login}"},
        {"host": "h", "login": {"kind": "key", "key": "${env:K}"}, "port": "${env:PORT}"},
        {"host": "h", "tags": {"a": "${env:A}"}},
        {"host": "h", "hosts_more": "${env:A}"},
        {"host": "${env:A} x"},
        {"host": "h", "dsn": "${env:DSN}"},
        {"host": "h", "container_name": "${env:A}", "port": "${env:P}"},
    ],
)
def test_what_a_reference_stands_for_is_not_checked(values: dict[str, Any]):
    Options.check(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": "${env:PORT}"}, "'host' is missing"),
        ({"host": "${env:HOST}", "hots": "${env:X}"}, "unknown option 'hots'"),
        ({"host": "${env:HOST}", "port": "x"}, "option 'port'"),
        ({"host": "h", "port": "${env:P}", "login": {"kind": "key"}}, "'login.key.key' is missing"),
        ({"host": "h", "tags": {"a": "${env:A}", "b": "x"}}, "option 'tags.b'"),
    ],
)
def test_what_is_wrong_beside_a_reference_is_said(values: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message) as caught:
        Options.check(values)
    assert ("'port': " in str(caught.value)) is ("'port'" in message)


def test_options_that_can_be_built_are_returned_for_the_policy_to_look_at():
    checked = Options.check({"host": "h", "password": "${env:PW}"})
    assert checked
    assert checked.host == "h"
    assert Options.check({"host": "h", "port": "${env:PORT}"}) is None


@pytest.mark.parametrize(
    "values",
    [
        {"host": "h", "password": MARK},
        {"host": "h", "dsn": f"password={MARK}"},
        {"host": "h", "login": {"kind": "key", "key": MARK}},
    ],
)
def test_masked_copy_is_not_taken_for_options(values: dict[str, Any]):
    for validate in (Options.load, Options.check):
        with pytest.raises(OptionError, match=f"{list(values)[-1]!r} comes from a masked copy"):
            validate(values)


# Secrets.


@dataclasses.dataclass
class Pair:
    user: str
    password: SecretStr


@dataclasses.dataclass(slots=True)
class Slotted:
    token: SecretStr


class Typed(TypedDict):
    token: SecretStr


class Named(NamedTuple):
    token: SecretStr


class Node(BaseModel):
    children: list[Node] = []
    secret: SecretStr | None = None


class Tree(BaseModel):
    children: dict[str, Tree] = {}
    name: str = ""


T = TypeVar("T")


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    key: SecretStr


class Outer(BaseModel):
    inner: Inner


class Inner(BaseModel):
    magic: SecretStr


Alias = TypeAliasType("Alias", list[SecretStr])
Token = NewType("Token", SecretStr)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a library may put beside a type: only its own type checker knows `Container`."""

    choices: Container[str] | None = None
    token: SecretStr | None = None


class Size(NamedTuple):
    width: PositiveInt
    height: Annotated[int, Metadata()]


class Account(NamedTuple):
    size: PositiveInt
    token: Annotated[SecretStr, Metadata()]


@pytest.mark.parametrize(
    "annotation",
    [
        SecretStr,
        SecretBytes,
        Secret[int],
        SecretStr | None,
        list[SecretStr],
        Alias,
        Alias | None,
        dict[str, SecretStr],
        tuple[int, SecretStr],
        dict[str, list[SecretStr | int]],
        KeyLogin,
        KeyLogin | UserLogin,
        list[KeyLogin],
        Annotated[SecretStr, 5],
        Pair,
        Typed,
        Named,
        Node,
        list[Pair | None],
        frozenset[SecretStr],
        type("Sub", (SecretStr,), {}),
        Box[SecretStr],
        Box[int],
        Outer,
        Token,
        list[Token],
    ],
)
def test_secret_is_found_in_any_type(annotation: Any):
    assert is_secret(annotation)


@pytest.mark.parametrize(
    "annotation", [str, int, str | None, list[str], dict[str, int], Tree, Any, Literal["a"], None]
)
def test_type_without_a_secret_is_none(annotation: Any):
    assert not is_secret(annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        PositiveInt | None,
        list[PositiveInt],
        dict[str, NonNegativeInt],
        tuple[PositiveFloat, ...],
        conlist(conint(gt=0)),
        Size,
        Annotated[str, AfterValidator(str.strip)] | None,
        Annotated[str, StringConstraints(min_length=1)] | None,
        Annotated[str, Metadata()] | None,
        Annotated[str, Metadata, SecretStr] | None,
        list[Annotated[str, Metadata()]],
    ],
)
def test_metadata_of_annotated_is_no_type(annotation: Any):
    TypeAdapter(annotation)  # raises if it is no type that pydantic takes
    assert not is_secret(annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[SecretStr, AfterValidator(lambda value: value)] | None,
        Annotated[SecretStr, StringConstraints(min_length=1)] | None,
        list[Annotated[SecretStr, Metadata()]],
        dict[str, Annotated[SecretStr, Field(min_length=1)]],
        tuple[PositiveInt, Annotated[SecretStr, Metadata()]],
        tuple[Annotated[SecretStr, Metadata()], ...],
        Annotated[list[Annotated[SecretStr, Metadata()]], Field(min_length=1)],
        Account,
        dict[str, list[Account]],
    ],
)
def test_secret_beside_metadata_is_found(annotation: Any):
    assert is_secret(annotation)


def test_type_that_cannot_be_resolved_counts_as_secret():
    assert is_secret(Metadata)
    assert is_secret(list["Container[str]"])


def test_secrets_of_a_model_that_is_defined_later_are_masked():
    class Early(ConnectorOptions):
        login: Outer

    class Waiting(ConnectorOptions):
        choices: Container[str]

    assert Early.redact({"login": {"inner": {"magic": "hunter2"}}}) == {"login": MARK}
    assert not Waiting.__pydantic_complete__
    assert Waiting.redact({"choices": ["hunter2"]}) == {"choices": MARK}


def test_declared_secrets_are_masked_whatever_they_are_called():
    values = {
        "host": "h",
        "port": 5,
        "password": "hunter2",
        "magic": "hunter2",
        "login": {"kind": "user", "user": "bob", "password": "hunter2"},
        "keys_by_name": {"a": ["hunter2"]},
        "dsn": "host=h password=hunter2",
        "hosts_more": ["a", "postgresql://u:hunter2@h"],
        "unknown": "hunter2",
        "directory": "keys",
    }
    assert Options.redact(values) == {
        "host": "h",
        "port": 5,
        "password": MARK,
        "magic": MARK,
        "login": MARK,
        "keys_by_name": MARK,
        "dsn": f"host=h password={MARK}",
        "hosts_more": ["a", f"postgresql://u:{MARK}@h"],
        "unknown": MARK,
        "directory": "keys",
    }


def test_references_and_none_are_shown_as_they_are():
    values = {"password": "${env:PW}", "magic": None, "dsn": "${file:/dsn}", "unknown": "${env:X}"}
    assert Options.redact(values) == values
    assert Options.redact({"password": "x${env:PW}"}) == {"password": MARK}


def test_secret_under_an_alias_is_masked():
    class Aliased(ConnectorOptions):
        blob: SecretStr = Field(validation_alias=AliasChoices("blob", "thing"))

    assert Aliased.redact({"thing": "hunter2"}) == {"thing": MARK}


def test_every_secret_is_returned_for_masking_messages():
    class Many(ConnectorOptions):
        a: SecretStr
        b: list[KeyLogin]
        c: dict[str, SecretStr]
        d: Pair
        e: SecretBytes
        f: Secret[int]
        g: SecretStr | None = None
        slots: Slotted | None = None
        account: Account | None = None
        host: str = "h"

    options = Many.load(
        {
            "a": "1a",
            "b": [{"key": "2b"}],
            "c": {"x": "3c"},
            "d": {"user": "bob", "password": "4d"},
            "e": b"5e",
            "f": 6,
            "slots": {"token": "7g"},
            "account": (1, "8h"),
        }
    )
    assert options.secret_values() == ["1a", "2b", "3c", "4d", "5e", "6", "7g", "8h"]
    assert not {"1a", "2b", "3c", "4d", "5e", "7g", "8h"} & set(
        repr(options).replace("'", " ").split()
    )


def test_options_cannot_be_changed():
    options = Options.load({"host": "h"})
    with pytest.raises(ValueError, match="frozen"):
        options.host = "x"


class AnnotatedOptions(ConnectorOptions):
    table: Annotated[str, AfterValidator(str.strip)] | None = None
    workers: PositiveInt | None = None
    sizes: list[PositiveInt] | None = None
    name: Annotated[str, StringConstraints(min_length=1)] | None = None
    odd: Annotated[int, Unresolvable("x")] | None = None
    token: Annotated[SecretStr, Field(min_length=1)] | None = None


def test_metadata_in_annotations_are_no_types() -> None:
    values = {"table": "t", "workers": 4, "sizes": [1], "name": "n", "odd": 1, "token": "m4rker"}
    assert AnnotatedOptions.load(values).secret_values() == ["m4rker"]
    assert AnnotatedOptions.redact(values) == values | {"token": MARK}


def test_a_type_that_cannot_be_looked_into_counts_as_secret() -> None:
    assert is_secret(Unresolvable)


@pytest.mark.parametrize("validate", [Options.load, Options.check])
@pytest.mark.parametrize("wrong", [{"port": "x"}, {"prot": 1}, {"port": MARK}])
def test_no_frame_of_an_error_has_the_values(validate: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        validate({"host": "h", "magic": "m4rker", **wrong})
    assert "m4rker" not in local_variables(caught.value)


class Part(BaseModel):
    level: int = 0
    key: SecretStr | None = None


class Nested(ConnectorOptions):
    host: str
    tls: Part | None = None
    places: list[Part] | None = None
    tags: dict[str, int] | None = None


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, ["/host"]),
        ({"host": "h", "tls": {"level": "high", "key": SECRET}}, ["/tls/level"]),
        ({"host": 5, "tls": {"level": "high"}, "other": 1}, ["/host", "/tls/level", "/other"]),
        ({"host": "h", "places": [{}, {"level": SECRET}]}, ["/places/1/level"]),
        ({"host": "h", "tags": {"a/b~c": SECRET}}, ["/tags/a~1b~0c"]),
        ({"host": MARK}, ["/host"]),
        ({"host": "${env:HOST}", "tls": {"level": SECRET}}, ["/tls/level"]),
    ],
)
def test_error_has_the_pointer_of_each_option_that_is_wrong(
    values: dict[str, Any], fields: list[str]
):
    for validate in (Nested.load, Nested.check):
        if validate == Nested.load and "${" in str(values):
            continue
        with pytest.raises(OptionError) as caught:
            validate(values)
        error = caught.value
        assert (list(error.fields), error.field) == (fields, fields[0])
        assert "; ".join(error.fields.values()) == str(error)
        assert SECRET not in str(error.fields)
        same = DataSourceError.from_dict(error.to_dict())
        assert isinstance(same, OptionError)
        assert same.fields == pickle.loads(pickle.dumps(error)).fields == error.fields


def test_error_of_several_options_together_has_no_pointer():
    class Together(ConnectorOptions):
        alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (("a",), ("b",))
        a: str | None = None
        b: str | None = None

    with pytest.raises(OptionError) as caught:
        Together.load({})
    assert (caught.value.field, caught.value.fields) == (None, {})
    assert "fields" not in caught.value.to_dict()
