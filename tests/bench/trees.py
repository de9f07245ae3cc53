"""Trees of small local files: time and memory by the number of files, in one run.

`BENCH_FILES` sets the numbers: `BENCH_FILES=1000,200000 nox -s bench -- tests/bench/trees.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasources import DataSourceConfig, DataSourceRegistry
from tests.bench.measuring import measured

pytestmark = pytest.mark.bench

NUMBERS = [int(number) for number in os.environ.get("BENCH_FILES", "1000,4000").split(",")]
SIZE = 400  # bytes


def fill(root: Path, number: int) -> None:
    for index in range(number):
        folder = root / f"{index // 1000:03}"
        if index % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{index % 1000:03}.csv").write_bytes(b"x" * SIZE)


@pytest.mark.parametrize("number", NUMBERS)
async def test_trees(tmp_path: Path, number: int) -> None:
    fill(tmp_path / "source", number)
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(
            DataSourceConfig("tree", "local_file", "", {"path": str(tmp_path / "source")})
        )

        async def fetch(name: str) -> int:
            return len(await registry.fetch_tree("tree", None, tmp_path / name))

        async def iterate(name: str) -> int:
            results = registry.iter_fetch_tree("tree", None, tmp_path / name)
            return sum([1 async for result in results if result.receipt])

        for title, run, name in (
            ("fetch_tree", fetch, "whole"),
            ("iter_fetch_tree", iterate, "iterated"),
            ("iter_fetch_tree, unchanged", iterate, "iterated"),
        ):
            fetched, figures = await measured(lambda run=run, name=name: run(name))  # type: ignore[misc]
            assert fetched == number
            print(
                f"{number} files, {title}: {figures['seconds'] / number * 1e3:.2f} ms a file, "
                f"processor {figures['cpu'] / number * 1e3:.2f} ms, "
                f"memory {figures['memory'] / 2**20:.1f} MiB"
            )
