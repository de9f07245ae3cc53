"""Alternatives among options, options that call for others, and references in both."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import pytest
from pydantic import AliasChoices, Field, SecretStr, model_validator

from datasources import ConnectorOptions, OptionError
from datasources.options import check_examples
from datasources.templates import check_template, template
from tests.core.fakes import SeedConnector


class Login(ConnectorOptions):
    """A connection string or a host, and keys or the environment."""

    alternatives: ClassVar = (("dsn",), ("host", "database", "username"))
    requires: ClassVar = {
        ("credentials", "keys"): ("key_id", "key"),
        "proxy_user": ("proxy_password",),
    }

    dsn: SecretStr | None = Field(None, description="All at once.")
    host: str | None = Field(None, description="The server.", examples=["db"])
    database: str | None = Field(
        None, validation_alias=AliasChoices("database", "dbname"), description="The database."
    )
    username: str | None = Field(None, description="The role.")
    credentials: Literal["environment", "keys"] = Field("environment", description="The mode.")
    key_id: str | None = Field(None, description="The name of the key.")
    key: SecretStr | None = Field(None, description="The key.")
    proxy_user: str | None = Field(None, description="For the proxy.")
    proxy_password: SecretStr | None = Field(None, description="For the proxy.")


HOST = {"host": "h", "dbname": "d", "username": "u"}
POSSIBLE = "give either 'dsn', or 'host', 'database' and 'username'"


@pytest.mark.parametrize(
    "values",
    [
        {"dsn": "x"},
        {"dsn": "x", "host": None},
        {"dsn": "x", "host": "h"},
        HOST,
        HOST | {"credentials": "keys", "key_id": "a", "key": "b"},
        HOST | {"proxy_user": "a", "proxy_password": "b"},
    ],
)
def test_one_complete_alternative_is_accepted(values: dict[str, Any]) -> None:
    assert Login.check(values) == Login.load(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, POSSIBLE),
        ({"dsn": None}, POSSIBLE),
        ({"host": "h", "username": "u"}, f"option 'database' is missing; {POSSIBLE}"),
        ({"host": "h"}, f"options 'database' and 'username' are missing; {POSSIBLE}"),
        (
            HOST | {"dsn": "x"},
            "options 'dsn', 'database', 'host' and 'username' exclude one another; " + POSSIBLE,
        ),
        (
            HOST | {"credentials": "keys", "key": "b"},
            "option 'key_id' is missing, which goes with 'credentials' of 'keys'",
        ),
        (
            HOST | {"proxy_user": "a"},
            "option 'proxy_password' is missing, which goes with 'proxy_user'",
        ),
    ],
)
def test_the_error_says_in_one_sentence_what_is_possible(
    values: dict[str, Any], message: str
) -> None:
    for validate in (Login.load, Login.check):
        with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
            validate(values)


def test_an_alternative_that_several_begin_with_is_not_guessed() -> None:
    class Cloud(ConnectorOptions):
        alternatives: ClassVar = (("url", "key"), ("url", "token"))
        url: str | None = None
        key: str | None = None
        token: str | None = None

    with pytest.raises(OptionError, match=r"^give either 'url' and 'key', or .*; given: 'url'$"):
        Cloud.load({"url": "u"})
    with pytest.raises(OptionError, match=r"^options 'key' and 'token' exclude one another; "):
        Cloud.load({"url": "u", "key": "k", "token": "t"})


def test_alternatives_that_overlap_may_be_given_together() -> None:
    class Overlap(Login):
        alternatives_overlap: ClassVar = True

    assert Overlap.load(HOST | {"dsn": "x"}).host == "h"
    assert "anyOf" in Overlap.model_json_schema()
    with pytest.raises(OptionError, match="give either"):
        Overlap.load({"host": "h"})


def test_rules_are_in_the_json_schema() -> None:
    schema = Login.model_json_schema()
    not_null = {"not": {"type": "null"}}
    assert schema["oneOf"][0] == {"required": ["dsn"], "properties": {"dsn": not_null}}
    assert [entry["required"] for entry in schema["oneOf"]] == [
        ["dsn"],
        ["host", "database", "username"],
    ]
    assert schema["allOf"] == [
        {
            "if": {"properties": {"credentials": {"const": "keys"}}, "required": ["credentials"]},
            "then": {
                "required": ["key_id", "key"],
                "properties": {"key_id": not_null, "key": not_null},
            },
        },
        {
            "if": {"required": ["proxy_user"], "properties": {"proxy_user": not_null}},
            "then": {"required": ["proxy_password"], "properties": {"proxy_password": not_null}},
        },
    ]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"alternatives": (("a",), ("nothing",))}, "'nothing' in alternatives or requires"),
        ({"requires": {"a": ("nothing",)}}, "'nothing' in alternatives or requires"),
        ({"requires": {("nothing", 1): ("a",)}}, "'nothing' in alternatives or requires"),
        ({"alternatives": (("a",), ("a", "b"))}, "contained in another one"),
    ],
)
def test_rules_that_cannot_be_kept_are_an_error_of_the_class(
    rules: dict[str, Any], message: str
) -> None:
    namespace = {"__annotations__": {"a": "int | None", "b": "int | None"}, "a": None, "b": None}
    with pytest.raises(TypeError, match=message):
        type("Odd", (ConnectorOptions,), {"__module__": __name__, **namespace, **rules})


# References.


@pytest.mark.parametrize(
    "values",
    [
        {"dsn": "${env:DSN}"},
        HOST | {"credentials": "${env:MODE}"},  # it may be 'environment'
        HOST | {"credentials": "keys", "key_id": "${env:ID}", "key": "${env:KEY}"},
        {"host": "${env:H}", "database": "${env:D}", "username": "${env:U}"},
    ],
)
def test_references_are_accepted_that_can_make_the_options_valid(values: dict[str, Any]) -> None:
    Login.check(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "${env:H}"}, "are missing"),
        (HOST | {"credentials": "keys", "key": "${env:KEY}"}, "'key_id' is missing"),
        (HOST | {"dsn": "${env:DSN}"}, "exclude one another"),
    ],
)
def test_options_that_no_reference_makes_valid_are_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        Login.check(values)


class Keys(ConnectorOptions):
    """Options with a validator of their own instead of declared rules."""

    mode: Literal["environment", "keys"] = "environment"
    key_id: str | None = None
    key: SecretStr | None = None
    region: str | None = Field(None, examples=["eu"])

    @model_validator(mode="after")
    def _check(self) -> Keys:
        if self.mode == "keys" and not (self.key_id and self.key):
            raise ValueError("'keys' need key_id and key")
        if self.key and self.key_id == "long" and len(self.key.get_secret_value()) < 50:
            raise ValueError("that key is too short")
        if self.region and self.key_id and self.region != self.key_id:
            raise ValueError("the key is of another region")
        return self


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "keys", "key": "${env:KEY}"}, "need key_id and key"),
        ({"mode": "keys", "key_id": "${env:ID}"}, ""),  # any text may be meant
        ({"mode": "${env:MODE}", "key": "${env:KEY}"}, ""),
        ({"key_id": "long", "key": "${env:KEY}"}, ""),  # the validator read the key
        ({"key_id": "us", "region": "${env:REGION}"}, ""),
    ],
)
def test_own_validators_refuse_only_what_no_reference_can_make_valid(
    values: dict[str, Any], message: str
) -> None:
    if not message:
        Keys.check(values)
        return
    with pytest.raises(OptionError, match=message):
        Keys.check(values)


# Templates.


class KeysConnector(SeedConnector):
    type = "keys"
    options_class = Keys


class LoginConnector(SeedConnector):
    type = "login"
    options_class = Login


def test_the_template_sets_the_first_alternative_and_shows_the_others() -> None:
    text = template("login", LoginConnector)
    active = [line for line in text.splitlines() if line[:1] not in ("", "#", "[")]
    assert active[2:] == ['dsn = "${env:LOGIN_DSN}"']
    assert "#   1) dsn\n#   2) host, database, username\n" in text
    assert '# host = "db"' in text
    assert "# Text. Part of 2)." in text
    check_template("login", LoginConnector)


def test_the_template_has_what_a_mode_calls_for() -> None:
    class Mode(ConnectorOptions):
        requires: ClassVar = {("mode", "keys"): ("key_id", "key")}
        mode: Literal["keys", "none"] = Field("keys", description="The mode.")
        key_id: str | None = Field(None, description="The name of the key.")
        key: SecretStr | None = Field(None, description="The key.")
        other: str | None = None

    class ModeConnector(SeedConnector):
        options_class = Mode

    lines = template("mode", ModeConnector).splitlines()
    assert 'key_id = "<key_id>"' in lines
    assert 'key = "${env:MODE_KEY}"' in lines
    assert '# other = "<other>"' in lines
    check_template("mode", ModeConnector)


def test_a_template_that_is_no_valid_source_is_named() -> None:
    class Odd(ConnectorOptions):
        key: SecretStr

        @model_validator(mode="after")
        def _check(self) -> Odd:
            raise ValueError("never")

    class OddConnector(SeedConnector):
        options_class = Odd

    with pytest.raises(OptionError, match="the template of type 'odd' is not a valid source: nev"):
        check_template("odd", OddConnector)
    with pytest.raises(OptionError, match="never"):
        check_examples(Odd, {"key": "${env:NEVER}"})
