"""Annotated examples of sources, and what guided creation asks."""

from __future__ import annotations

import tomllib
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge
from pydantic import BaseModel, Field, SecretStr, field_validator

from datasources import (
    ConnectorOptions,
    DataSourceConnector,
    DataSourceRegistry,
    OptionError,
)
from datasources.config import read_settings
from datasources.forms import option_fields
from datasources.plugins import Plugins
from datasources.redaction import REFERENCE
from datasources.templates import template
from tests.core.fakes import SeedConnector

INSTALLED = Plugins().types()


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Tls(BaseModel):
    ca: str = "system"


class Certificate(BaseModel):
    name: str
    key: SecretStr
    note: str = ""


class AwkwardOptions(ConnectorOptions):
    """One of each kind, with texts that a careless writer of TOML trips over."""

    sample_identifiers = (('a "quoted" \\ one', "odd\nmeaning\x1b"), ("plain", ""))

    host: str = Field(
        description='Line one\nline "two" # and \x07 a bell', examples=['a"b\\c\x7f\n']
    )
    mode: Literal["read", "write"] = "read"
    level: Level = Level.LOW
    port: int = Field(5432, ge=1, le=65535)
    factor: float | None = Field(None, gt=0, examples=[0.5, 2])
    tags: list[str] = Field(default_factory=list, examples=[["a", "b"]])
    labels: dict[str, str] = Field({}, examples=[{"a b": "c"}])
    tls: Tls | None = None
    certificate: Certificate | None = None
    keys: list[SecretStr] = Field([])
    passwords: dict[str, SecretStr] = Field({})
    either: int | str = "x"
    anything: Any = Field(None, examples=[{"tls": Tls(ca="own")}])
    bounded: Annotated[int, Ge(0)] | None = None
    on: bool = True
    token: SecretStr | None = Field(None, description="The token.", examples=["never-shown"])


class AwkwardConnector(SeedConnector):
    type = "awkward"
    options_class = AwkwardOptions


def options_in(type_name: str, connector: type[DataSourceConnector], text: str) -> dict:
    document = tomllib.loads(text)
    source = document["sources"][f"my_{type_name}"]
    assert source["type"] == type_name
    return source["options"]


def uncommented(text: str) -> str:
    """Take the '# ' from every setting."""
    return "\n".join(
        line[2:] if line.startswith("# ") and " = " in line and line[2:3].islower() else line
        for line in text.splitlines()
    )


@pytest.mark.parametrize("type_name", INSTALLED)
def test_the_template_of_an_installed_connector_is_valid_as_it_stands(type_name, tmp_path):
    connector = Plugins().connector_class(type_name)
    text = template(type_name, connector)
    assert connector.options_class is not None
    connector.options_class.check(options_in(type_name, connector, text))
    (tmp_path / "t.toml").write_text(text)
    (source,) = read_settings(tmp_path / "t.toml", {}).sources
    assert source.type == type_name


@pytest.mark.parametrize("type_name", INSTALLED)
def test_the_template_of_an_installed_connector_explains_every_option(type_name):
    connector = Plugins().connector_class(type_name)
    text = template(type_name, connector)
    assert connector.options_class is not None
    everything = options_in(type_name, connector, uncommented(text))
    fields = option_fields(connector.options_class)
    assert set(everything) == {field.name for field in fields}
    flat = " ".join(line.removeprefix("#").strip() for line in text.splitlines())
    for field in fields:
        assert field.description, f"{field.name} has no description"
        assert " ".join(field.description.split()) in flat
        if field.secret and field.kind == "text":
            assert REFERENCE.fullmatch(everything[field.name])
    for identifier, _ in connector.options_class.sample_identifiers:
        assert f"#   {identifier}" in text
    assert connector.options_class.sample_identifiers


def test_awkward_texts_stay_inside_their_comments_and_strings():
    text = template("awkward", AwkwardConnector)
    assert options_in("awkward", AwkwardConnector, text) == {"host": 'a"b\\c\x7f\n'}
    everything = options_in("awkward", AwkwardConnector, uncommented(text))
    assert everything == {
        "host": 'a"b\\c\x7f\n',
        "mode": "read",
        "level": "low",
        "port": 5432,
        "factor": 0.5,
        "tags": ["a", "b"],
        "labels": {"a b": "c"},
        "tls": {},
        "certificate": {"name": "<name>", "key": "${env:AWKWARD_CERTIFICATE_KEY}"},
        "keys": ["${env:AWKWARD_KEYS}"],
        "passwords": {"name": "${env:AWKWARD_PASSWORDS}"},
        "either": "x",
        "anything": {"tls": {"ca": "own"}},
        "bounded": 1,
        "on": True,
        "token": "${env:AWKWARD_TOKEN}",
    }
    assert "never-shown" not in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_types_bounds_and_defaults_are_told_in_words():
    text = template("awkward", AwkwardConnector)
    for told in (
        "# Text. Required.",
        "# Whole number, at least 1, at most 65535. Optional; 5432 unless given.",
        "# Number, more than 0. Optional. For example: 2.",
        "# Secret table. Optional.",
        "# Secret list. Optional.",
        '# One of read, write. Optional; "read" unless given.',
        "# Secret text. Optional.",
        "# True or false. Optional; true unless given.",
    ):
        assert told in text


class EitherOptions(ConnectorOptions):
    url: str | None = Field(None, examples=["http://x"])
    account: str | None = Field(None, examples=["me"])
    password: SecretStr | None = None

    def model_post_init(self, context: object) -> None:
        if (self.account is None) != (self.password is None) or not (self.account or self.url):
            raise ValueError("give url, or account and password")


def test_what_must_be_given_together_is_not_commented_out():
    class Either(SeedConnector):
        type = "either"
        options_class = EitherOptions

    assert options_in("either", Either, template("either", Either)) == {"url": "http://x"}


def test_required_options_stay_when_no_example_is_valid():
    class ImpossibleOptions(ConnectorOptions):
        url: str = Field(examples=["no"])

        @field_validator("url")
        @classmethod
        def _refuse(cls, value: str) -> str:
            raise ValueError("never")

    class Impossible(SeedConnector):
        options_class = ImpossibleOptions

    assert options_in("x", Impossible, template("x", Impossible)) == {"url": "no"}


async def test_a_connector_without_options_gets_a_template_that_can_be_used(tmp_path):
    text = template("custom", SeedConnector)
    assert options_in("custom", SeedConnector, text) == {}
    assert options_in("custom", SeedConnector, uncommented(text))["password"] == (
        "${env:CUSTOM_PASSWORD}"
    )
    (tmp_path / "t.toml").write_text(text)
    async with DataSourceRegistry() as registry:
        registry.register_connector_class("custom", SeedConnector)
        await registry.register_data_sources(read_settings(tmp_path / "t.toml", {}).sources)
        assert registry.exists("my_custom")


FIELDS = {field.name: field for field in option_fields(AwkwardOptions)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", " a,b ", " a,b "),
        ("mode", "write", "write"),
        ("level", "high", "high"),
        ("port", "12", 12),
        ("factor", "1e3", 1000.0),
        ("tags", "a, b,", ["a", "b"]),
        ("tags", '["a,b"]', ["a,b"]),
        ("labels", '{"a": "b"}', {"a": "b"}),
        ("on", "No", False),
        ("port", "${env:PORT}", "${env:PORT}"),
        ("token", "x", "x"),
    ],
)
def test_a_typed_text_becomes_the_value_it_stands_for(name, text, value):
    assert FIELDS[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mode", "one of read, write"),
        ("port", "whole number, at least 1"),
        ("factor", "number, more than 0"),
        ("labels", "table"),
        ("nested", "table"),
        ("tags", "list"),
        ("on", "true or false"),
    ],
)
def test_a_typed_text_of_another_type_is_refused_without_repeating_it(name, told):
    text = {"nested": '["m4rker"]', "tags": '["m4rker'}.get(name, "m4rker")
    name = "labels" if name == "nested" else name
    with pytest.raises(OptionError) as caught:
        FIELDS[name].parse(text)
    assert f"option {name!r} must be {told}" in str(caught.value)
    assert "m4rker" not in str(caught.value)


def test_required_options_are_asked_first():
    required = [field.required for field in option_fields(AwkwardOptions)]
    assert required == sorted(required, reverse=True)
