"""The description of a form, and the metadata of options that it is made of."""

from __future__ import annotations

import json
import warnings
from enum import Enum
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, strategies as st
from pydantic import Field, SecretStr, create_model

from datasources import ConnectorOptions, Option, OptionError, form
from datasources.forms import option_fields
from datasources.plugins import Plugins
from datasources.templates import template
from tests.core.fakes import SeedConnector


class Level(Enum):
    LOW = "low"


class Options(ConnectorOptions):
    """A service.

    With a second paragraph.
    """

    alternatives: ClassVar = (("dsn",), ("host", "user"))
    requires: ClassVar = {("mode", "keys"): ("key",), "user": ("password",)}

    late: str | None = Option(None, help="The last one.", advanced=True)
    plain: int | None = Field(None, ge=1, description="A plain field.", examples=[5])
    dsn: SecretStr | None = Option(None, help="All at once.", group="Login")
    host: str | None = Option(None, help="The server.", label="Server name", group="Login", order=2)
    user: str | None = Option(None, help="The role.", group="Login", order=1, discovered=True)
    password: SecretStr | None = Option(None, help="Its password.", group="Login")
    mode: Literal["keys", "none"] = Option("none", help="The mode.")
    level: Level = Option(Level.LOW, help="The level.")
    key: str | None = Option(None, help="A long text.", widget="textarea", examples=["k"])
    tags: tuple[str, ...] = Option(("a",), help="Tags.")
    labels: dict[str, str] = Option(default_factory=dict, help="Labels.")
    on: bool = Option(True, help="On.")
    old: str | None = Option(None, help="The old name.", deprecated="use 'host'")
    older: str | None = Field(None, description="Older.", deprecated=True)
    name: str = Option(help="The name.")


FIELDS = {field["name"]: field for field in form(Options)["fields"]}


def test_a_form_is_what_json_can_hold() -> None:
    assert json.loads(json.dumps(form(Options))) == form(Options)


def test_fields_stand_in_the_order_in_which_they_are_asked_for() -> None:
    names = list(FIELDS)
    assert names[:4] == ["name", "user", "host", "dsn"]
    assert names[-1] == "late"
    assert names == [field.name for field in option_fields(Options)]


def test_groups_hold_every_field_once() -> None:
    groups = form(Options)["groups"]
    assert {"name": "Login", "fields": ["user", "host", "dsn", "password"]} in groups
    assert sorted(name for group in groups for name in group["fields"]) == sorted(FIELDS)


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("plain", {"kind": "integer", "widget": "number", "bounds": {"ge": 1}, "examples": [5]}),
        ("plain", {"required": False, "default": None, "group": None, "help": "A plain field."}),
        ("dsn", {"secret": True, "widget": "password", "default": None, "examples": []}),
        ("host", {"label": "Server name", "kind": "text", "widget": "text"}),
        ("user", {"discovered": True, "label": "User"}),
        ("mode", {"widget": "select", "choices": ["keys", "none"], "default": "none"}),
        ("level", {"widget": "select", "choices": ["low"], "default": "low"}),
        ("key", {"widget": "textarea", "examples": ["k"]}),
        ("tags", {"kind": "list", "widget": "text", "default": ["a"]}),
        ("labels", {"kind": "table", "widget": "textarea", "default": None}),
        ("on", {"kind": "boolean", "widget": "checkbox", "default": True}),
        ("old", {"deprecated": "use 'host'"}),
        ("older", {"deprecated": ""}),
        ("late", {"advanced": True, "deprecated": None}),
        ("name", {"required": True}),
    ],
)
def test_a_field_is_described(name: str, described: dict[str, Any]) -> None:
    assert FIELDS[name] | described == FIELDS[name]


def test_rules_are_described() -> None:
    described = form(Options)
    assert described["description"] == "A service.\n\nWith a second paragraph."
    assert described["alternatives"] == [["dsn"], ["host", "user"]]
    assert described["alternatives_overlap"] is False
    assert described["requires"] == [
        {"option": "mode", "value": "keys", "needs": ["key"]},
        {"option": "user", "needs": ["password"]},
    ]
    assert described["version"] == 1


def test_metadata_stand_in_the_json_schema_and_secrets_are_write_only() -> None:
    properties = Options.model_json_schema()["properties"]
    assert properties["late"]["x-datasources"] == {"advanced": True}
    assert properties["user"]["x-datasources"] == {"group": "Login", "order": 1, "discovered": True}
    assert properties["old"]["deprecated"] is True
    assert properties["host"]["title"] == "Server name"
    write_only = {name for name, schema in properties.items() if schema.get("writeOnly")}
    assert write_only == {"dsn", "password"}


@pytest.mark.parametrize("type_name", Plugins().types())
def test_forms_of_installed_connectors_are_complete(type_name: str) -> None:
    options_class = Plugins().connector_class(type_name).options_class
    assert options_class is not None
    described = json.loads(json.dumps(form(options_class)))
    for field in described["fields"]:
        assert field["help"], field["name"]
        assert field["label"], field["name"]
        assert (field["widget"] == "password") == field["secret"]


# Deprecated options.


class OptionsConnector(SeedConnector):
    type = "service"
    options_class = Options


def test_a_deprecated_option_is_in_no_template() -> None:
    text = template("service", OptionsConnector)
    assert "old = " not in text
    assert "older = " not in text
    assert "late = " in text


def test_a_deprecated_option_is_warned_of_once() -> None:
    class Renamed(ConnectorOptions):
        host: str | None = None
        server: str | None = Option(None, deprecated="use 'host'")

    with pytest.warns(DeprecationWarning, match=r"^option 'server' is deprecated: use 'host'$"):
        assert Renamed.check({"server": "x"}).server == "x"  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Renamed.load({"server": "x"})
        Renamed.load({"server": None, "host": "h"})


# What the form says is what the model takes.

TYPES = [str, int, bool, float, list[str], SecretStr, Literal["a", "b"]]
VALUES: dict[Any, Any] = dict(
    zip(map(str, TYPES), ["x", 1, True, 1.5, ["x"], "x", "a"], strict=True)
)


@given(
    st.lists(
        st.tuples(st.sampled_from(TYPES), st.booleans(), st.booleans()), min_size=1, max_size=8
    ),
)
def test_what_a_form_requires_is_required_and_nothing_else(
    kinds: list[tuple[Any, bool, bool]],
) -> None:
    fields: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for index, (kind, required, optional_type) in enumerate(kinds):
        annotation = kind | None if optional_type else kind
        default = VALUES[str(kind)] if not optional_type else None
        fields[f"o{index}"] = (annotation, Option(help="It.") if required else Option(default))
        values[f"o{index}"] = VALUES[str(kind)]
    options_class = create_model("Options", __base__=ConnectorOptions, **fields)
    described = form(options_class)
    needed = {field["name"] for field in described["fields"] if field["required"]}
    options_class.load({name: values[name] for name in needed})
    options_class.load(values)
    for name in values:
        rest = {other: value for other, value in values.items() if other != name}
        if name in needed:
            with pytest.raises(OptionError, match=f"option '{name}' is missing"):
                options_class.load(rest)
        else:
            options_class.load(rest)
    assert set(options_class.model_json_schema().get("required", [])) == needed


@given(st.sets(st.sampled_from(["a", "b", "c", "d"])))
def test_alternatives_of_a_form_are_those_that_the_model_takes(given_names: set[str]) -> None:
    class Choice(ConnectorOptions):
        alternatives: ClassVar = (("a",), ("b", "c"), ("b", "d"))
        a: str | None = None
        b: str | None = None
        c: str | None = None
        d: str | None = None

    complete = [names for names in form(Choice)["alternatives"] if given_names.issuperset(names)]
    values = dict.fromkeys(given_names, "x")
    if len(complete) == 1:
        Choice.load(values)
    else:
        with pytest.raises(OptionError, match="give either"):
            Choice.load(values)
