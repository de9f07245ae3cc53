"""Checks of the ability `discover`: what there is to choose from before a source exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from datasources import AuthenticationError, ConnectorError
from datasources.forms import OptionField, option_fields
from datasources.testing.base import Checks, registry_of
from datasources.testing.checks.abilities import _needs
from datasources.testing.subject import Subject
from datasources.testing.watch import nothing_left


class DiscoverChecks(Checks):
    """The choices are values of options, and need valid credentials."""

    async def test_discover_gives_texts_by_the_names_of_options(self, subject: Subject) -> None:
        choices = await _discover(subject, subject.options)
        names = {field.name for field in _fields(subject)}
        assert set(choices) <= names, "discover names options that the connector does not have"
        texts = [value for values in choices.values() for value in values]
        assert all(isinstance(text, str) for text in texts), (
            "discover gives values that are no text"
        )

    async def test_discover_offers_the_values_of_the_source(self, subject: Subject) -> None:
        choices = await _discover(subject, subject.options)
        for field in _fields(subject):
            given = next((subject.options[n] for n in field.names if n in subject.options), None)
            if field.discovered and isinstance(given, str):
                assert given in choices.get(field.name, ()), (
                    f"discover does not offer the value {given!r} of {field.name!r}"
                )

    async def test_discover_with_wrong_credentials_is_refused_without_the_secret(
        self, subject: Subject
    ) -> None:
        wrong = subject.refused()
        with pytest.raises(ConnectorError) as caught:
            await _discover(subject, wrong)
        assert isinstance(caught.value, AuthenticationError), (
            f"wrong credentials must be an AuthenticationError, not {caught.value!r}"
        )
        assert not [s for s in subject.secrets(wrong) if s in str(caught.value)], (
            "the error of discover shows a secret"
        )

    async def test_discover_leaves_nothing_open(self, subject: Subject) -> None:
        await _discover(subject, subject.options)
        async with nothing_left("10 calls of discover"):
            for _ in range(10):
                await _discover(subject, subject.options)


async def _discover(subject: Subject, options: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    _needs(subject, "discover")
    async with registry_of(subject) as registry:
        return await registry.discover(subject.type, options)


def _fields(subject: Subject) -> Sequence[OptionField]:
    options_class = subject.connector_class.options_class
    return option_fields(options_class) if options_class else ()
