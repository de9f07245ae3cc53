"""Many small files of a directory, beside a plain loop that copies and hashes them, in one run.

Time is that of the process: whatever else runs on the machine does not count.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from pathlib import Path

import pytest

from datasources import DataSourceConfig, DataSourceRegistry

pytestmark = pytest.mark.bench

FILES = 2_000
SIZE = 1_000  # bytes
ROUNDS = 5


def copied(source: Path, target: Path) -> float:
    """Copy and hash every file, each under another name until it is whole; return CPU seconds."""
    target.mkdir()
    started = time.process_time()
    for entry in os.scandir(source):
        part = target / f".{entry.name}"
        with open(entry.path, "rb", buffering=0) as file, open(part, "wb", buffering=0) as copy:
            content = file.read()
            copy.write(content)
            hashlib.sha256(content).hexdigest()
        part.rename(target / entry.name)
    return time.process_time() - started


async def test_small_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number:05}.txt").write_bytes(b"x" * SIZE)
    requests = [("files", f"{number:05}.txt") for number in range(FILES)]
    took: dict[str, list[float]] = {"fetch_many": [], "fetch_tree": [], "unchanged": []}
    floors = []
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(
            DataSourceConfig("files", "local_file", "Files", {"path": str(source)})
        )
        await registry.fetch("files", requests[0][1], tmp_path / "warm")
        for round_ in range(ROUNDS):
            floors.append(copied(source, tmp_path / f"floor-{round_}"))
            for job, seconds in took.items():
                where = tmp_path / f"{'fetch_many' if job == 'fetch_many' else 'tree'}-{round_}"
                started = time.process_time()
                if job == "fetch_many":
                    results = await registry.fetch_many(requests, where)
                else:
                    results = await registry.fetch_tree("files", None, where)
                seconds.append(time.process_time() - started)
                assert len(results) == FILES
                assert all(result.receipt for result in results)
    floor = statistics.median(floors)
    print()
    for job, seconds in took.items():
        each = statistics.median(seconds)
        print(
            f"{job} of {FILES:,} files of {SIZE:,} bytes: {each / FILES * 1e6:6.0f} us a file, "
            f"a plain loop {floor / FILES * 1e6:4.0f} us, ratio {each / floor:5.2f}"
        )
