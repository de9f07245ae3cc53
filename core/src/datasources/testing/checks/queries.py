"""Checks of queries: identifiers of results that no listing shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources import LimitExceededError, Limits
from datasources.testing.base import Checks, Source
from datasources.testing.subject import Subject
from datasources.testing.watch import (
    assert_unchanged,
    cancel_everywhere,
    disconnect_at_each_step,
    files,
)


class QueryChecks(Checks):
    """Queries bring exact bytes, within limits, and can be ended like fetches of items."""

    async def test_a_query_brings_exactly_its_bytes(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        for query, content in subject.given("queries").items():
            file = await source.fetch(query, workspace)
            assert Path(file.path).read_bytes() == content, f"{query!r} came otherwise"
            assert (file.size, file.truncated) == (len(content), False)

    async def test_distinct_queries_are_distinct_files(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        paths = [(await source.fetch(query, workspace)).path for query in subject.given("queries")]
        assert len(set(paths)) == len(paths), f"queries overwrite each other: {sorted(paths)}"

    async def test_a_query_over_max_bytes_leaves_nothing(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        for query, content in subject.given("queries").items():
            for limit in {0, len(content) // 2, len(content) - 1} - {len(content), -1}:
                with pytest.raises(LimitExceededError):
                    await source.fetch(query, workspace, Limits(max_bytes=limit))
                assert_unchanged(workspace, {}, f"a query over the limit of {limit} bytes")

    async def test_a_query_is_cut_after_max_rows(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        queries = subject.given("queries")
        if not subject.counts_rows:
            pytest.skip("not applicable: the subject says that its connector counts no rows")
        for query, content in queries.items():
            file = await source.fetch(query, workspace, Limits(max_rows=0))
            header = Path(file.path).read_bytes()
            assert content.startswith(header), f"{query!r} cut short is not its beginning"
            assert (file.rows, file.truncated) == (0, header != content)

    async def test_a_cancelled_query_leaves_no_half_file(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        query, content = _longest(subject)
        async for _ in cancel_everywhere(lambda: source.fetch(query, workspace), "a query"):
            written = files(workspace) if workspace.is_dir() else {}
            assert set(written.values()) <= {content}, f"a cancelled query left {sorted(written)}"
            for path in written:
                (workspace / path).unlink()

    async def test_disconnecting_during_a_query_ends_it(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        query, content = _longest(subject)
        await disconnect_at_each_step(subject.connector, query, content, tmp_path)


def _longest(subject: Subject) -> tuple[str, bytes]:
    queries: dict[str, bytes] = dict(subject.given("queries"))
    return max(queries.items(), key=lambda query: len(query[1]))
