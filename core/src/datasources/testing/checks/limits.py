"""Checks that the limits of the host are applied exactly."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from datasources import LimitExceededError, Limits
from datasources.testing.base import Checks, Source
from datasources.testing.subject import Subject
from datasources.testing.watch import assert_unchanged, files

_SOME = 1 << 20  # bytes of a large item that are let through


class LimitChecks(Checks):
    """The limit on bytes ends a fetch and the limit on rows cuts it, each exactly."""

    async def test_exactly_max_bytes_is_enough(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        for identifier, content in subject.items.items():
            file = await source.fetch(identifier, workspace, Limits(max_bytes=len(content)))
            assert file.size == len(content)

    async def test_one_byte_less_is_an_error(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        limit = len(content) - 1
        with pytest.raises(LimitExceededError, match=str(limit)):
            await source.fetch(identifier, workspace, Limits(max_bytes=limit))

    async def test_over_max_bytes_nothing_is_left(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        for limit in {0, len(content) // 2, len(content) - 1}:
            with pytest.raises(LimitExceededError):
                await source.fetch(identifier, workspace, Limits(max_bytes=limit))
            assert_unchanged(workspace, {}, f"a fetch over the limit of {limit} bytes")

    async def test_over_max_bytes_the_older_file_stays(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        await source.fetch(identifier, workspace)
        before = files(workspace)
        with pytest.raises(LimitExceededError):
            await source.fetch(identifier, workspace, Limits(max_bytes=len(content) - 1))
        assert_unchanged(workspace, before, "a fetch over the limit")

    async def test_without_limits_everything_comes(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        limits = Limits(max_bytes=None, max_rows=None, timeout=None)
        for identifier, content in subject.items.items():
            file = await source.fetch(identifier, workspace, limits)
            assert (file.size, file.truncated) == (len(content), False)

    async def test_exactly_max_rows_is_not_truncated(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, rows = subject.a_table(counted=True)
        file = await source.fetch(identifier, workspace, Limits(max_rows=rows))
        assert Path(file.path).read_bytes() == subject.items[identifier]
        assert (file.rows, file.truncated) == (rows, False)

    async def test_one_row_less_cuts_exactly_one_and_says_so(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, rows = subject.a_table(counted=True)
        file = await source.fetch(identifier, workspace, Limits(max_rows=rows - 1))
        assert (file.rows, file.truncated) == (rows - 1, True)
        cut, complete = Path(file.path).read_bytes(), subject.items[identifier]
        assert len(cut) < len(complete)
        assert complete.startswith(cut), "the file must hold exactly the first rows"

    async def test_max_rows_of_none_at_all_is_a_table_without_rows(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, _ = subject.a_table(counted=True)
        file = await source.fetch(identifier, workspace, Limits(max_rows=0))
        assert (file.rows, file.truncated) == (0, True)
        assert subject.items[identifier].startswith(Path(file.path).read_bytes())

    async def test_each_number_of_rows_is_a_longer_beginning(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, rows = subject.a_table(counted=True)
        sizes = []
        for limit in range(min(rows, 5) + 1):
            file = await source.fetch(identifier, workspace, Limits(max_rows=limit))
            assert file.rows == limit
            sizes.append(file.size)
        assert sizes == sorted(set(sizes)), f"with each row allowed the file must grow: {sizes}"

    async def test_a_fetch_cut_short_does_not_spoil_the_next(
        self, source: Source, subject: Subject, workspace: Path
    ) -> None:
        identifier, content = subject.largest()
        cuts = [(identifier, Limits(max_bytes=len(content) // 2))]
        if subject.tables and subject.counts_rows:
            cuts.append((subject.a_table()[0], Limits(max_rows=1)))
        if subject.large:
            cuts.append((subject.large, Limits(max_bytes=_SOME)))
        if subject.large and subject.counts_rows:
            cuts.append((subject.large, Limits(max_bytes=None, max_rows=1)))
        for name, limits in cuts:
            with suppress(LimitExceededError):
                file = await source.fetch(name, workspace / "cut", limits)
                assert file.truncated, f"{name!r} is over {limits}, and must be cut or refused"
            for expected, complete in subject.items.items():
                file = await source.fetch(expected, workspace)
                assert Path(file.path).read_bytes() == complete, (
                    f"after a fetch of {name!r} that was cut short, {expected!r} came otherwise"
                )
