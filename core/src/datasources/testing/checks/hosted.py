"""Checks of a connector in a registry, as hosts use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest
import pytest_asyncio

from datasources import (
    ConnectError,
    DataSourceRegistry,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    OptionError,
)
from datasources.testing.base import Checks, registry_of
from datasources.testing.subject import Subject
from datasources.testing.watch import all_of, assert_unchanged, cancel_everywhere, nothing_left


class HostedChecks(Checks):
    """A source is registered, tested, fetched from and closed."""

    @pytest_asyncio.fixture
    async def registry(self, subject: Subject) -> AsyncIterator[DataSourceRegistry]:
        """A registry with the subject's source."""
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            yield registry

    async def test_a_source_is_registered_once_it_was_tried(self, subject: Subject) -> None:
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config(), test_connection=True)
            assert registry.exists("subject")

    async def test_a_source_that_does_not_answer_is_not_registered(self, subject: Subject) -> None:
        options = subject.unanswered()
        async with registry_of(subject) as registry:
            with pytest.raises(ConnectError):
                await registry.register_data_source(subject.config(options), test_connection=True)
            assert not registry.exists("subject")

    async def test_a_source_of_wrong_options_is_not_registered(self, subject: Subject) -> None:
        async with registry_of(subject) as registry:
            with pytest.raises(OptionError, match="no_such_option"):
                await registry.register_data_source(
                    subject.config({**subject.options, "no_such_option": 1})
                )
            assert not registry.exists("subject")

    async def test_a_sources_check_says_that_it_works(self, registry: DataSourceRegistry) -> None:
        check = await registry.check_connection("subject")
        assert check.ok, f"the source works, but its check says {check.error!r}"
        assert await registry.test_connection("subject") is True

    async def test_a_sources_check_says_why_it_does_not_work(self, subject: Subject) -> None:
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config(subject.unanswered()))
            check = await registry.check_connection("subject")
            assert not check.ok
            assert isinstance(check.error, ConnectError)

    async def test_shown_configurations_hold_no_secret(
        self, registry: DataSourceRegistry, subject: Subject
    ) -> None:
        secrets = subject.secrets()
        configs = [registry.get_config("subject"), *registry.list_data_sources()]
        text = json.dumps([asdict(config) for config in configs], default=str)
        # Not by assert, whose report would show the text with the secret.
        if any(secret in text for secret in secrets):
            pytest.fail("a shown configuration holds a secret option's value", pytrace=False)

    async def test_a_receipt_tells_the_facts(
        self, registry: DataSourceRegistry, subject: Subject, workspace: Path
    ) -> None:
        for identifier, content in subject.items.items():
            receipt = await registry.fetch("subject", identifier, workspace)
            assert receipt.identifier == identifier
            assert receipt.size == len(content)
            assert receipt.sha256 == hashlib.sha256(content).hexdigest()
            assert json.loads(json.dumps(receipt.to_dict()))["source_id"] == "subject"

    async def test_many_are_fetched_with_a_result_for_each(
        self, registry: DataSourceRegistry, subject: Subject, workspace: Path
    ) -> None:
        identifiers = [*subject.items, subject.missing]
        results = await registry.fetch_many([("subject", name) for name in identifiers], workspace)
        assert [result.request.identifier for result in results] == identifiers
        *good, missing = results
        assert all(result.receipt for result in good), [result.error for result in good]
        assert isinstance(missing.error, ItemNotFoundError)

    async def test_a_failed_fetch_returns_its_connection(
        self, registry: DataSourceRegistry, subject: Subject, workspace: Path
    ) -> None:
        with pytest.raises(ItemNotFoundError):
            await registry.fetch("subject", subject.missing, workspace)
        assert registry.get_pool_stats("subject")["in_use"] == 0

    async def test_a_cancelled_fetch_returns_its_connection(
        self, registry: DataSourceRegistry, subject: Subject, workspace: Path
    ) -> None:
        identifier, _ = subject.largest()
        fetch = lambda: registry.fetch("subject", identifier, workspace)  # noqa: E731
        async for _ in cancel_everywhere(fetch, "a fetch from a registry"):
            assert registry.get_pool_stats("subject")["in_use"] == 0

    async def test_the_time_limit_ends_a_fetch(
        self, registry: DataSourceRegistry, subject: Subject, workspace: Path
    ) -> None:
        identifier, _ = subject.largest()
        usual = (await registry.fetch("subject", identifier, workspace / "usual")).duration
        ended = False
        # Tried again: what a thread has put in place before it is told to end was done in time.
        for number, part in enumerate((0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.4, 0.6, 0.8)):
            place, limits = workspace / str(number), Limits(timeout=part * usual)
            try:
                await registry.fetch("subject", identifier, place, limits=limits)
            except LimitExceededError:
                ended = True
                assert_unchanged(place, {}, "a fetch out of time")
        assert ended, "a fetch must end when its time is over"
        assert (await registry.fetch("subject", identifier, workspace)).path

    async def test_unregistering_lets_go_of_the_source(
        self, registry: DataSourceRegistry, subject: Subject, workspace: Path
    ) -> None:
        await registry.fetch("subject", next(iter(subject.items)), workspace)
        await registry.unregister_data_source("subject")
        assert not registry.exists("subject")
        async with nothing_left("a source that was registered, fetched from and unregistered"):
            await registry.register_data_source(subject.config())
            await registry.fetch("subject", next(iter(subject.items)), workspace)
            await registry.unregister_data_source("subject")

    async def test_many_sources_of_the_type_live_side_by_side(
        self, registry: DataSourceRegistry, subject: Subject, tmp_path: Path
    ) -> None:
        names = [f"copy-{number}" for number in range(3)]
        for name in names:
            config = subject.config()
            config.id = name
            await registry.register_data_source(config)
        identifier, content = subject.largest()
        receipts = await all_of(registry.fetch(name, identifier, tmp_path / name) for name in names)
        assert [Path(receipt.path).read_bytes() for receipt in receipts] == [content] * 3
