"""Checks of the connector class, without a connection."""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest

from datasources import API_VERSION, DataSourceConnector, DataSourceType
from datasources.connector import ABILITIES, OLDEST_API_VERSION, abilities
from datasources.testing.base import Checks, Declaration
from datasources.testing.subject import Subject
from datasources.testing.watch import descriptors

_METHODS = {
    "connect": (),
    "disconnect": (),
    "test_connection": (),
    "list_items": ("path",),
    "fetch_data": ("identifier", "workspace"),
    "get_metadata": ("identifier",),
}


class DeclarationChecks(Checks):
    """The class, its attributes and its methods."""

    def test_waivers_name_checks_and_give_reasons(self) -> None:
        for name, reason in self.waived.items():
            assert callable(getattr(self, name, None)), f"there is no check {name!r} to waive"
            assert reason.strip(), f"the waiver of {name!r} gives no reason"

    def test_class_is_a_connector_with_all_six_methods(self, declaration: Declaration) -> None:
        assert issubclass(declaration.connector_class, DataSourceConnector)
        lacking = sorted(declaration.connector_class.__abstractmethods__)
        assert not lacking, f"the class lacks {', '.join(lacking)}"

    @pytest.mark.parametrize("method", _METHODS)
    def test_method_is_a_coroutine_function(self, declaration: Declaration, method: str) -> None:
        function = getattr(declaration.connector_class, method)
        assert inspect.iscoroutinefunction(function), f"{method} must be an `async def`"

    @pytest.mark.parametrize("method", _METHODS)
    def test_method_takes_the_contracts_arguments(
        self, declaration: Declaration, method: str
    ) -> None:
        signature = inspect.signature(getattr(declaration.connector_class, method))
        names = _METHODS[method]
        for arguments, keywords in ((names, {}), ((), dict.fromkeys(names, ""))):
            try:
                signature.bind(None, *arguments, **keywords)
            except TypeError as exc:
                pytest.fail(f"{method}{signature} cannot be called by the contract: {exc}")

    def test_list_items_needs_no_path(self, declaration: Declaration) -> None:
        path = inspect.signature(declaration.connector_class.list_items).parameters["path"]
        assert path.default is None, "list_items must list everything by default: `path=None`"

    def test_type_is_a_valid_name_and_the_subjects(self, subject: Subject) -> None:
        assert DataSourceType(subject.connector_class.type) == subject.type

    def test_api_version_is_the_one_core_speaks(self, declaration: Declaration) -> None:
        version = declaration.connector_class.api_version
        assert type(version) is int
        assert OLDEST_API_VERSION <= version <= API_VERSION

    def test_shareable_is_true_or_false(self, declaration: Declaration) -> None:
        assert isinstance(declaration.connector_class.shareable, bool)

    def test_abilities_are_those_claimed(self, subject: Subject) -> None:
        unknown = sorted(set(subject.abilities) - set(ABILITIES))
        assert not unknown, f"there is no ability {', '.join(unknown)}; known: {list(ABILITIES)}"
        assert abilities(subject.connector_class) == set(subject.abilities), (
            "Subject.abilities must be those whose methods the class has"
        )

    def test_construction_opens_nothing_and_needs_no_loop(self, subject: Subject) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        subject.connector()  # what it imports may open files for good
        before = descriptors()
        connectors = [subject.connector() for _ in range(3)]
        for _ in range(100):  # until threads of others have closed what they open for a moment
            opened = {n: what for n, what in descriptors().items() if before.get(n) != what}
            if not opened:
                break
            time.sleep(0.01)
        assert not opened, f"the constructor opened {opened}: open in connect"
        assert len({id(connector) for connector in connectors}) == 3

    def test_two_known_items_one_of_them_not_empty_are_given(self, subject: Subject) -> None:
        assert len(subject.items) >= 2, "give Subject.items two items, or checks have no meaning"
        assert any(subject.items.values()), "give Subject.items one that is not empty"
        assert subject.missing not in subject.items, "Subject.missing must not be one of the items"
        assert set(subject.tables) <= set(subject.items), "Subject.tables must be among the items"
