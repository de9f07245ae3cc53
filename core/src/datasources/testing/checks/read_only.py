"""Checks that a source that only reads refuses statements that write."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from datasources import DataSourceConnector, DataSourceError
from datasources.testing.base import Checks, Source
from datasources.testing.subject import Subject
from datasources.testing.watch import assert_unchanged


class ReadOnlyChecks(Checks):
    """Statements that would change something are refused, and change nothing."""

    async def test_statements_that_write_are_refused(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        for statement in subject.given("writes"):
            try:
                await source.fetch(statement, workspace)
            except DataSourceError as exc:
                assert "\n" not in str(exc).strip(), f"an error is one sentence, not {exc}"
            except Exception as exc:  # noqa: BLE001  (shown in the failure)
                pytest.fail(f"{statement!r} must be refused with a DataSourceError, not {exc!r}")
            else:
                pytest.fail(f"{statement!r} was not refused")
            assert_unchanged(workspace, {}, f"the refused {statement!r}")

    async def test_refused_statements_change_nothing(
        self, connector: DataSourceConnector, subject: Subject, workspace: Path
    ) -> None:
        listed = {item.path for item in await connector.list_items()}
        able: Any = connector
        for statement in subject.given("writes"):
            calls = [
                lambda text: able.fetch_data(text, str(workspace / "refused")),
                able.get_metadata,
                able.list_items,
            ]
            calls += [able.preview] if "preview" in subject.abilities else []
            calls += [able.statistics] if "statistics" in subject.abilities else []
            calls += [able.read_table] if "read_table" in subject.abilities else []
            for call in calls:
                with suppress(DataSourceError):
                    await call(statement)
            now = {item.path for item in await connector.list_items()}
            assert now == listed, f"{statement!r} changed the listing by {sorted(now ^ listed)}"
            for identifier, content in subject.items.items():
                path = Path(await connector.fetch_data(identifier, str(workspace)))
                assert path.read_bytes() == content, f"{statement!r} changed {identifier!r}"
