"""Names with brackets, `*` and `?`: as they stand if there is such an item, else as patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources import (
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    glob_prefix,
    glob_regex,
)
from datasources.tabular import glob_escape

NAMES = [
    "Sales [EU]/q1.csv",
    "Sales [EU]/deep/q2.csv",
    "Sales E/q3.csv",
    "report[1].csv",
    "report1.csv",
    "notes[2].csv",
    "what?.csv",
    "whatx.csv",
    "a*b/c.csv",
    "axb/c.csv",
]


@pytest.fixture
def registry(tmp_path: Path) -> DataSourceRegistry:
    for name in NAMES:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return DataSourceRegistry()


@pytest.mark.parametrize(
    ("path", "fetched"),
    [
        ("Sales [EU]", ["Sales [EU]/deep/q2.csv", "Sales [EU]/q1.csv"]),
        ("Sales [EU]/", ["Sales [EU]/deep/q2.csv", "Sales [EU]/q1.csv"]),
        ("Sales [[]EU]/*", ["Sales [EU]/q1.csv"]),
        ("Sales [EU]/*", ["Sales E/q3.csv"]),
        ("report[1].csv", ["report[1].csv"]),
        ("report[[]1].csv", ["report[1].csv"]),
        ("notes[2].csv", ["notes[2].csv"]),
        ("report[0-9].csv", ["report1.csv"]),
        ("what?.csv", ["what?.csv"]),
        ("what[?].csv", ["what?.csv"]),
        ("wha?x.csv", ["whatx.csv"]),
        ("a*b", ["a*b/c.csv"]),
        ("a*b/*", ["a*b/c.csv", "axb/c.csv"]),
    ],
)
async def test_name_goes_before_the_pattern_that_it_looks_like(
    path: str, fetched: list[str], registry: DataSourceRegistry, tmp_path: Path
) -> None:
    async with registry:
        await registry.register_data_source(
            DataSourceConfig(
                "desk", DataSourceType.LOCAL_FILE, "Desk", {"path": str(tmp_path / "source")}
            )
        )
        results = await registry.fetch_tree("desk", path, tmp_path / "workspace")
        again = await registry.fetch_tree("desk", path, tmp_path / "workspace")
    assert sorted(result.request.identifier for result in results) == fetched
    for result in results:
        assert result.receipt is not None
        assert Path(result.receipt.path).read_text() == result.request.identifier
    assert all(result.receipt and result.receipt.unchanged for result in again)


@pytest.mark.parametrize("name", [*NAMES, "**/[x].csv"])
def test_escaped_name_is_the_whole_prefix_of_its_pattern(name: str) -> None:
    assert glob_prefix(glob_escape(name)) == name


@pytest.mark.parametrize("name", NAMES)
def test_escaped_name_matches_itself_alone(name: str) -> None:
    assert [n for n in NAMES if glob_regex(glob_escape(name)).fullmatch(n)] == [name]
