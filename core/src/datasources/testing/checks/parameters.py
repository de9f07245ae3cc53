"""Checks of the ability `parameters`: values of stored queries stay values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasources import (
    BoundQuery,
    ColumnStatistics,
    DataSourceConnector,
    QueryParameter,
    StoredQuery,
    Workspace,
)
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

    async def test_the_text_of_a_query_has_the_parameters_that_are_bound(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "parameters")
        for declared in ({"value": QueryParameter()}, {}):
            names = connector.query_parameters(StoredQuery(subject.given("echo"), declared))
            if names is not None:
                assert set(names) == {"value"}, (
                    f"query_parameters is {names!r}, and not the parameter that is bound"
                )

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

    async def test_a_query_is_described_by_its_columns(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        query = _echo(subject, None)
        _needs(subject, "query_metadata")
        described = await _able(connector).describe_query(query)
        preview = await _able(connector).preview_query(query, 1)
        names = [column["name"] for column in described["columns"]]
        assert names == list(preview.columns), "describe_query has other columns than the result"

    async def test_figures_of_a_query_are_of_its_columns(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        query = _echo(subject, "plain")
        _needs(subject, "query_statistics")
        figures = await _able(connector).query_statistics(query)
        assert all(isinstance(column, ColumnStatistics) for column in figures.values())
        preview = await _able(connector).preview_query(query, 1)
        assert set(figures) <= set(preview.columns), (
            "query_statistics has columns of another result"
        )


def _able(connector: DataSourceConnector) -> Any:
    return connector


def _echo(subject: Subject, value: str | None) -> BoundQuery:
    _needs(subject, "parameters")
    return BoundQuery("stored", subject.given("echo"), {"value": value}, {"value": "text"})
