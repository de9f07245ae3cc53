"""Checks of optional abilities: claimed ones work, calls of others raise an error."""

from __future__ import annotations

import random
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ColumnStatistics,
    DataItem,
    DataSourceConnector,
    DataSourceError,
    ItemNotFoundError,
    Preview,
    RegistryError,
)
from datasources.connector import ABILITIES
from datasources.testing.base import Checks, registry_of
from datasources.testing.stalls import assert_never_stalls
from datasources.testing.subject import Subject


class AbilityChecks(Checks):
    """Listing page by page, patterns, previews, statistics, uploads, Arrow tables."""

    @pytest.fixture
    def able(self, connector: DataSourceConnector) -> Any:
        """The connected connector, as `Any`: it is checked by calls, not by type."""
        return connector

    async def test_iter_items_yields_what_list_items_returns(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "iter_items")
        results = [item async for item in able.iter_items()]
        assert all(isinstance(item, DataItem) for item in results)
        listed = await able.list_items()
        assert sorted(item.path for item in results) == sorted(item.path for item in listed)

    async def test_iter_items_can_be_left_early(self, able: Any, subject: Subject) -> None:
        _needs(subject, "iter_items")
        async with aclosing(able.iter_items()) as items:
            async for _ in items:
                break
        assert len([item async for item in able.iter_items()]) == len(await able.list_items())

    async def test_a_pattern_without_wildcards_is_the_item(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "glob")
        for identifier in subject.items:
            if not set("*?[]") & set(identifier):
                results = [item.path for item in await able.glob_items(identifier)]
                assert results == [identifier], f"the pattern {identifier!r} found {results}"

    async def test_two_stars_are_everything_in_order(self, able: Any, subject: Subject) -> None:
        _needs(subject, "glob")
        results = [item.path for item in await able.glob_items("**")]
        assert set(results) == {item.path for item in await able.list_items()}
        assert results == sorted(results), "glob_items returns items in order of their paths"

    async def test_a_pattern_that_matches_nothing_finds_nothing(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "glob")
        for pattern in (subject.missing, f"{subject.missing}/**", f"{subject.missing}*"):
            assert await able.glob_items(pattern) == []

    async def test_preview_shows_the_rows_of_a_table(self, able: Any, subject: Subject) -> None:
        _needs(subject, "preview")
        identifier, rows = subject.a_table()
        preview = await able.preview(identifier, rows)
        assert isinstance(preview, Preview)
        assert preview.columns, "a table has columns"
        assert all(isinstance(row, tuple) for row in preview.rows), "rows are tuples"
        assert {len(row) for row in preview.rows} == {len(preview.columns)}
        assert len(preview.rows) == rows

    async def test_preview_shows_no_more_rows_than_asked_for_and_says_so(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "preview")
        identifier, rows = subject.a_table()
        complete = await able.preview(identifier, rows)
        assert complete.truncated is False, "there are no more rows: truncated is False"
        for number in (1, rows - 1):
            part = await able.preview(identifier, number)
            assert list(part.rows) == list(complete.rows)[:number], "a preview is the first rows"
            assert part.truncated is True, "there are more rows: truncated is True"

    async def test_preview_of_a_missing_item_is_item_not_found(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "preview")
        with pytest.raises(ItemNotFoundError):
            await able.preview(subject.missing)

    async def test_statistics_are_of_numeric_columns(self, able: Any, subject: Subject) -> None:
        _needs(subject, "statistics")
        identifier, rows = subject.a_table()
        results = await able.statistics(identifier)
        assert all(isinstance(figures, ColumnStatistics) for figures in results.values())
        for name, figures in results.items():
            assert figures.count + figures.nulls == rows, f"the counts of {name!r} are not {rows}"
            if figures.count:
                mean = figures.min if figures.mean is None else figures.mean
                assert figures.min <= mean <= figures.max, f"the figures of {name!r}"
            else:
                assert (figures.min, figures.mean, figures.max) == (None, None, None)

    async def test_statistics_of_a_missing_item_are_item_not_found(
        self, able: Any, subject: Subject
    ) -> None:
        _needs(subject, "statistics")
        with pytest.raises(ItemNotFoundError):
            await able.statistics(subject.missing)

    async def test_an_uploaded_file_is_listed_and_fetched(
        self, able: Any, subject: Subject, tmp_path: Path
    ) -> None:
        _needs(subject, "upload")
        name, content = "contract-upload.csv", b"x\n1\n"
        item = await able.upload_file(str(_local(tmp_path, content)), name)
        assert item.path == name
        assert name in {listed.path for listed in await able.list_items()}
        path = await able.fetch_data(name, str(tmp_path / "workspace"))
        assert Path(path).read_bytes() == content

    async def test_an_upload_overwrites_only_if_allowed(
        self, able: Any, subject: Subject, tmp_path: Path
    ) -> None:
        _needs(subject, "upload")
        name = "contract-overwrite.csv"
        await able.upload_file(str(_local(tmp_path, b"first\n")), name)
        with pytest.raises(DataSourceError):
            await able.upload_file(str(_local(tmp_path, b"second\n")), name, overwrite=False)
        path = Path(await able.fetch_data(name, str(tmp_path / "workspace")))
        assert path.read_bytes() == b"first\n"
        await able.upload_file(str(_local(tmp_path, b"third\n")), name)
        path = Path(await able.fetch_data(name, str(tmp_path / "workspace")))
        assert path.read_bytes() == b"third\n"

    async def test_an_upload_of_many_parts_is_whole(
        self, able: Any, subject: Subject, tmp_path: Path
    ) -> None:
        _needs(subject, "upload")
        content = random.Random(1).randbytes(subject.given("upload_size"))
        name = "contract-parts.bin"
        for size in (len(content), len(content) - 1):  # the second replaces the first
            item = await able.upload_file(str(_local(tmp_path, content[:size])), name)
            assert item.size in (None, size)
            path = Path(await able.fetch_data(name, str(tmp_path / "workspace")))
            assert path.read_bytes() == content[:size], f"{size} bytes came back otherwise"

    async def test_read_table_has_the_tables_rows(self, able: Any, subject: Subject) -> None:
        _needs(subject, "read_table")
        identifier, rows = subject.a_table()
        table = await able.read_table(identifier)
        assert table.num_rows == rows
        assert table.column_names
        with pytest.raises(ItemNotFoundError):
            await able.read_table(subject.missing)

    async def test_rights_are_sentences(self, able: Any, subject: Subject) -> None:
        _needs(subject, "rights")
        for sentence in await able.excess_rights():
            assert sentence.strip(" .\n") == sentence != "", "a sentence without a period"

    @pytest.mark.parametrize("ability", ["glob", "preview", "statistics", "upload", "read_table"])
    async def test_abilities_keep_the_loop_free(
        self, able: Any, subject: Subject, tmp_path: Path, ability: str
    ) -> None:
        _needs(subject, ability)
        given = {"glob": "**", "upload": str(_local(tmp_path, b"n\n1\n"))}
        argument = given.get(ability) or subject.a_table()[0]
        method = getattr(able, ABILITIES[ability])
        await assert_never_stalls(lambda: method(argument), ABILITIES[ability])

    async def test_abilities_that_are_not_claimed_are_refused_by_name(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        identifier = next(iter(subject.items))
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            if "statistics" not in subject.abilities:
                with pytest.raises(RegistryError, match="cannot compute statistics"):
                    await registry.statistics("subject", identifier)
            if "upload" not in subject.abilities:
                with pytest.raises(RegistryError, match="cannot take files"):
                    await registry.upload("subject", str(_local(tmp_path, b"")))


def _needs(subject: Subject, ability: str) -> None:
    if ability not in subject.abilities:
        pytest.skip(f"not applicable: the subject does not claim the ability {ability!r}")


def _local(folder: Path, content: bytes) -> Path:
    path = folder / "local.csv"
    path.write_bytes(content)
    return path
