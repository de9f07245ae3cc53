"""A good connector passes every check."""

from __future__ import annotations

import pytest

from datasources.testing import ConnectorContract, Subject
from tests.testing.good import GoodConnector, good_subject

pytestmark = pytest.mark.usefixtures("kits")


class TestGood(ConnectorContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return good_subject()


class ExclusiveConnector(GoodConnector):
    __module__ = "datasources_kit"
    shareable = False


class TestExclusive(ConnectorContract):
    waived = {  # noqa: RUF012
        "test_plugin_gives_the_class_when_it_is_asked_for": "the installed one is another class",
    }

    @pytest.fixture
    def subject(self) -> Subject:
        return good_subject(ExclusiveConnector)
