"""Checks of the ability `splits`."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest

from datasources import DataSourceConnector, ItemNotFoundError, Split
from datasources.testing.base import Checks
from datasources.testing.checks.abilities import _needs
from datasources.testing.stalls import assert_never_stalls
from datasources.testing.subject import Subject

_MAX_SPLITS = 3


class SplitChecks(Checks):
    """All splits of a plan are the item, each row once."""

    @pytest.fixture
    def able(self, connector: DataSourceConnector) -> Any:
        """The connected connector, as `Any`: it is checked by calls, not by type."""
        return connector

    async def test_splits_together_have_each_row_once(self, able: Any, subject: Subject) -> None:
        _needs(subject, "splits")
        for identifier, rows in subject.tables.items():
            async with _plan(able, identifier) as plan:
                assert len(plan.splits) <= _MAX_SPLITS, f"{len(plan.splits)} splits"
                numbers = [(split.index, split.count) for split in plan.splits]
                assert numbers == [(i, len(numbers)) for i in range(len(numbers))], "the numbers"
                batches = [batch for split in plan.splits for batch in await _read(able, split)]
                assert all(batch.schema == plan.schema for batch in batches), "the schema"
            assert sum(batch.num_rows for batch in batches) == rows, f"rows of {identifier!r}"

    async def test_a_split_is_read_from_its_json_and_holds_no_secret(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "splits")
        identifier, _ = subject.a_table()
        async with _plan(able, identifier) as plan:
            split = plan.splits[0]
            text = json.dumps(split.to_dict())
            assert Split.from_dict(json.loads(text)) == split, "the split after JSON"
            expected = [batch.num_rows for batch in await _read(able, split)]
            received = await _read(able, Split.from_dict(json.loads(text)))
            assert [batch.num_rows for batch in received] == expected, "the rows after JSON"
        secrets = able.options.secret_values() if able.options is not None else []
        assert not any(secret in text for secret in secrets), "a secret is in the split"

    async def test_splits_have_the_columns_asked_for(self, able: Any, subject: Subject) -> None:
        _needs(subject, "splits")
        identifier, _ = subject.a_table()
        async with _plan(able, identifier) as plan:
            last = plan.schema.names[-1]
            batches = [batch for split in plan.splits for batch in await _read(able, split, [last])]
        assert batches, "the table has rows"
        assert all(batch.schema.names == [last] for batch in batches), f"the columns but {last!r}"

    async def test_a_plan_of_a_missing_item_is_item_not_found(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "splits")
        with pytest.raises(ItemNotFoundError):
            async with _plan(able, subject.missing):
                pass

    async def test_a_reader_of_a_split_can_stop_early(self, able: Any, subject: Subject) -> None:
        _needs(subject, "splits")
        identifier, rows = subject.a_table()
        async with _plan(able, identifier) as plan:
            for split in plan.splits:
                async with aclosing(able.read_split(split)) as batches:
                    async for _ in batches:
                        break
            again = [batch for split in plan.splits for batch in await _read(able, split)]
        assert sum(batch.num_rows for batch in again) == rows

    async def test_splits_keep_the_loop_free(self, able: Any, subject: Subject) -> None:
        _needs(subject, "splits")
        identifier, _ = subject.a_table()

        async def read_all() -> None:
            async with _plan(able, identifier) as plan:
                for split in plan.splits:
                    await _read(able, split)

        await read_all()  # imports what only the first call needs
        await assert_never_stalls(read_all, "read_split")


def _plan(able: Any, identifier: str) -> Any:
    return able.plan_splits(identifier, target_bytes=1, max_splits=_MAX_SPLITS)


async def _read(able: Any, split: Split, columns: list[str] | None = None) -> list[Any]:
    return [batch async for batch in able.read_split(split, columns)]
