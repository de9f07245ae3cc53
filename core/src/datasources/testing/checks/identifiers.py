"""Checks of `identifier_kind` and `item_path`, on which the grants of hosts rely."""

from __future__ import annotations

import pytest

from datasources import DataSourceConnector
from datasources.testing.base import Checks
from datasources.testing.subject import Subject

_TEXTS = ["", " ", "\0", "\ud800", "../..", "select 1", '"', "%", "a" * 10_000, "ü\n*?["]


class IdentifierChecks(Checks):
    """Listed paths are items, and any text is classified without a connection."""

    async def test_listed_items_are_classified_as_items(
        self, connector: DataSourceConnector
    ) -> None:
        paths = [item.path for item in await connector.list_items()]
        kinds = {path: connector.identifier_kind(path) for path in paths}
        if set(kinds.values()) == {None}:
            pytest.skip("not applicable: the connector does not classify identifiers")
        assert {path for path in paths if kinds[path] != "item"} == set(), (
            "identifier_kind does not call these listed paths items"
        )

    async def test_a_listed_path_is_its_own_item_path(self, connector: DataSourceConnector) -> None:
        paths = [item.path for item in await connector.list_items()]
        item_paths = {path: connector.item_path(path) for path in paths}
        wrong = {path: other for path, other in item_paths.items() if other not in (None, path)}
        assert wrong == {}, "item_path changes these listed paths"

    @pytest.mark.parametrize("text", _TEXTS)
    def test_any_text_is_classified_without_a_connection(self, subject: Subject, text: str) -> None:
        connector_class = subject.connector_class
        assert connector_class.identifier_kind(text) in ("item", "query", None)
        path = connector_class.item_path(text)
        assert isinstance(path, str | None), "item_path must return text or None"
