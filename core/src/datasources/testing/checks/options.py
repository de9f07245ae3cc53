"""Checks of the options: their declaration, description and validation."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from datasources import ConnectorOptions, OptionError
from datasources.option_types import is_secret, option_names
from datasources.redaction import is_secret_name
from datasources.templates import check_template, template
from datasources.testing.base import Checks, Declaration
from datasources.testing.subject import Subject

_JUNK = "hush-hush-7f3a91"


class OptionChecks(Checks):
    """The options, as people give them."""

    @pytest.fixture
    def declared(self, declaration: Declaration) -> type[ConnectorOptions]:
        """The class of the options."""
        declared = declaration.connector_class.options_class
        assert declared is not None, "declare the options: `options_class = YourOptions`"
        return declared

    def test_options_are_a_model_of_connector_options(
        self, declared: type[ConnectorOptions]
    ) -> None:
        assert issubclass(declared, ConnectorOptions)

    def test_good_options_are_accepted(
        self, subject: Subject, declared: type[ConnectorOptions]
    ) -> None:
        assert isinstance(subject.connector().options, declared)

    def test_every_option_is_described(self, declared: type[ConnectorOptions]) -> None:
        bare = [name for name, info in declared.fields() if not (info.description or "").strip()]
        assert not bare, f"give a description to {', '.join(bare)}"

    def test_every_required_option_has_an_example(self, declared: type[ConnectorOptions]) -> None:
        fields = declared.fields()
        bare = [name for name, info in fields if info.is_required() and not info.examples]
        assert not bare, f"give Field(examples=[…]) to {', '.join(bare)}"

    def test_every_example_is_valid(self, declared: type[ConnectorOptions]) -> None:
        others = {name: info.examples[0] for name, info in declared.fields() if info.examples}
        for name, info in declared.fields():
            for example in info.examples or ():
                wrong = _fault(declared, {**others, name: example}, name)
                assert not wrong, f"the example of {name!r} is not valid: {wrong}"

    def test_template_is_a_valid_source(self, declaration: Declaration) -> None:
        text = template(declaration.type, declaration.connector_class)
        (source,) = tomllib.loads(text)["sources"].values()
        assert source["type"] == declaration.type
        check_template(declaration.type, declaration.connector_class)

    def test_json_schema_builds_for_forms(self, declared: type[ConnectorOptions]) -> None:
        schema = json.loads(json.dumps(declared.model_json_schema()))
        for name, info in declared.fields():
            described = next(
                (entry for key, entry in schema["properties"].items() if key in _keys(name, info)),
                None,
            )
            assert described is not None, f"the JSON Schema lacks {name!r}"
            if is_secret(info.annotation):
                assert "password" in json.dumps([described, schema.get("$defs", {})]), (
                    f"the JSON Schema does not mark {name!r} as a password"
                )

    def test_unknown_options_are_refused_by_name(
        self, subject: Subject, declared: type[ConnectorOptions]
    ) -> None:
        with pytest.raises(OptionError, match="no_such_option"):
            declared.load({**subject.options, "no_such_option": _JUNK})

    def test_missing_options_are_refused_by_name(
        self, subject: Subject, declared: type[ConnectorOptions]
    ) -> None:
        for name, info in declared.fields():
            if info.is_required():
                keys = option_names((name, info))
                given = {key: v for key, v in subject.options.items() if key not in keys}
                with pytest.raises(OptionError, match=name):
                    declared.load(given)

    def test_ill_typed_options_are_option_errors_without_the_value(
        self, subject: Subject, declared: type[ConnectorOptions]
    ) -> None:
        for name, _ in declared.fields():
            try:
                declared.load({**subject.options, name: {"odd": [_JUNK]}})
            except OptionError as exc:
                assert _JUNK not in str(exc), f"the error of option {name!r} repeats its value"

    def test_options_that_could_be_secrets_are_declared_so(
        self, declared: type[ConnectorOptions]
    ) -> None:
        open_ones = [
            name
            for name, info in declared.fields()
            if is_secret_name(name) and not is_secret(info.annotation) and _is_text(info.annotation)
        ]
        assert not open_ones, f"make {', '.join(open_ones)} a SecretStr, or give another name"

    def test_options_cannot_be_changed_once_loaded(self, subject: Subject) -> None:
        options = subject.connector().options
        assert isinstance(options, BaseModel), "declare the options: `options_class = YourOptions`"
        assert options.model_config.get("frozen"), "leave the options frozen: pools share them"

    def test_hosts_and_paths_are_texts(self, subject: Subject) -> None:
        options = subject.connector().options
        for places in (options.hosts(), options.paths()):
            assert not isinstance(places, str), "hosts() and paths() return a list, not one text"
            assert all(isinstance(place, str) and place for place in places)

    def test_hosts_are_names_without_scheme_or_port(self, subject: Subject) -> None:
        for host in subject.connector().options.hosts():
            odd = "://" in host or (host.count(":") == 1) or "@" in host
            assert not odd, f"hosts() must name {host!r} alone, as a policy lists it"

    def test_sample_identifiers_are_pairs_of_text(self, declared: type[ConnectorOptions]) -> None:
        for pair in declared.sample_identifiers:
            assert isinstance(pair, tuple), "each of sample_identifiers is (identifier, what it is)"
            assert [type(part) for part in pair] == [str, str]


def _fault(declared: type[ConnectorOptions], options: dict[str, Any], name: str) -> str:
    """Return the error of one option; errors of the others do not matter here."""
    try:
        declared.model_validate(options)
    except ValidationError as exc:
        return "; ".join(error["msg"] for error in exc.errors() if error["loc"][:1] == (name,))
    return ""


def _keys(name: str, info: Any) -> list[str]:
    return [*option_names((name, info)), *([info.alias] if info.alias else [])]


def _is_text(annotation: Any) -> bool:
    return "str" in str(annotation)
