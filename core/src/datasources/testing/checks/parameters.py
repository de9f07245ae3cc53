"""Checks of the ability `parameters`: values of stored queries stay values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasources import BoundQuery, DataSourceConnector, Workspace
from datasources.testing.base import Checks
from datasources.testing.checks.abilities import _needs
from datasources.testing.subject import Subject

# Texts that end a string, a name or a comment of some query language, or look like a parameter.
_TEXTS = (
    "plain",
    "",
    "'",
    '"',
    "''; DROP TABLE t; --",
    "\\'",
    "\\",
    "a\nb",
    "*/ /*",
    "$1",
    ":value",
    "%s",
    "?",
    "{value}",
    "$$",
    "NULL",
    "é\u20ac\U0001f600",
)


class ParameterChecks(Checks):
    """A value reaches the system as a value, and the result has it unchanged."""

    async def test_a_text_comes_back_as_it_was_given(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        for text in _TEXTS:
            query = _echo(subject, text)
            preview = await _able(connector).preview_query(query, 10)
            assert list(preview.rows) == [(text,)], f"the value {text!r} came back otherwise"

    async def test_a_query_is_fetched_to_a_file_of_its_name(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        query, target = _echo(subject, "plain"), Workspace(workspace)
        path = await _able(connector).fetch_query(query, target)
        assert Path(path).stem == "stored"
        assert b"plain" in Path(path).read_bytes()
        assert target.adopt(path).rows in {1, None}

    async def test_a_parameter_without_a_value_is_null(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        query = _echo(subject, None)
        preview = await _able(connector).preview_query(query, 10)
        assert list(preview.rows) == [(None,)]


def _able(connector: DataSourceConnector) -> Any:
    return connector


def _echo(subject: Subject, value: str | None) -> BoundQuery:
    _needs(subject, "parameters")
    return BoundQuery("stored", subject.given("echo"), {"value": value}, {"value": "text"})
