"""Fetches of splits: a directory of Parquet files that appears as a whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from datasources import (
    ConnectorError,
    DataFetchError,
    DataSourceConfig,
    DataSourceRegistry,
    FetchRequest,
    Grant,
    LimitExceededError,
    Limits,
    OptionError,
    PolicyError,
    Principal,
    Split,
    SplitPlan,
    UnsupportedError,
    Workspace,
    blocking,
)
from datasources.workspace import WorkspaceFolder, folders, lock
from tests.core.fakes import AbleConnector, registry_of, source
from tests.waiting import wait_until

ROWS = 1000


class Numbers(AbleConnector):
    """Splits an item in three, each of two batches; one split may fail or hang."""

    at_fault: ClassVar[int | None] = None
    hang: ClassVar[bool] = False
    hanging: ClassVar[int] = 0

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:
        return "item"

    @asynccontextmanager
    async def plan_splits(
        self, identifier: str, *, target_bytes: int, max_splits: int, **_: Any
    ) -> AsyncIterator[SplitPlan]:
        count = min(3, max_splits)
        splits = [Split("s", identifier, index, count, {}) for index in range(count)]
        yield SplitPlan(pa.schema([("n", pa.int64())]), splits)

    async def read_split(
        self, split: Split, columns: Sequence[str] | None = None
    ) -> AsyncIterator[Any]:
        yield pa.record_batch({"n": [10 * split.index]})
        if split.index == Numbers.at_fault and Numbers.hang:
            Numbers.hanging += 1
            await asyncio.Event().wait()
        if split.index == Numbers.at_fault:
            raise DataFetchError("the split is broken")
        yield pa.record_batch({"n": [10 * split.index + 1]})


@pytest.fixture(autouse=True)
def faults() -> None:
    Numbers.at_fault, Numbers.hang, Numbers.hanging = None, False, 0


@pytest.fixture
async def numbers() -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(Numbers) as registry:
        await registry.register_data_source(source())
        yield registry


def folder_source(folder: Path) -> DataSourceConfig:
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{n},text {n}\n" for n in range(ROWS))
    (folder / "a.csv").write_text(f"n,text\n{rows}")
    (folder / "b.csv").write_text(f"n,text\n{rows}")
    return DataSourceConfig("files", "local_file", "Files", {"path": str(folder)})


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[DataSourceRegistry]:
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(folder_source(tmp_path / "source"))
        yield registry


async def test_a_fetch_of_splits_writes_parquet_files_and_their_manifest(
    files: DataSourceRegistry, tmp_path: Path
) -> None:
    receipt = await files.fetch("files", "a.csv", tmp_path / "w", splits=4)
    folder = tmp_path / "w" / "a.csv.dataset"
    assert receipt.path == str(folder)
    assert os.listdir(tmp_path / "w") == [folder.name]
    content = (folder / "_manifest.json").read_bytes()
    manifest = json.loads(content)
    assert receipt.sha256 == hashlib.sha256(content).hexdigest()
    assert (receipt.rows, receipt.size) == (manifest["rows"], manifest["bytes"])
    assert manifest["rows"] == ROWS
    assert manifest["schema"] == [
        {"name": "n", "type": "int64", "nullable": True},
        {"name": "text", "type": "string", "nullable": True},
    ]
    assert [part["name"] for part in manifest["parts"]] == [
        f"part-0000{index}.parquet" for index in range(4)
    ]
    for part in manifest["parts"]:
        file = folder / part["name"]
        assert part["bytes"] == file.stat().st_size
        assert part["rows"] == pq.read_metadata(file).num_rows
        assert part["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    table = pq.read_table(folder)
    assert table["n"].to_pylist() == list(range(ROWS))
    assert table["text"].to_pylist() == [f"text {n}" for n in range(ROWS)]


async def test_an_item_without_rows_is_a_dataset_with_its_columns(
    files: DataSourceRegistry, tmp_path: Path
) -> None:
    (tmp_path / "source" / "none.csv").write_text("n,text\n")
    receipt = await files.fetch("files", "none.csv", tmp_path / "w", splits=4)
    assert receipt.rows == 0
    assert pq.read_table(receipt.path).schema.names == ["n", "text"]


async def test_another_fetch_replaces_the_dataset_and_nothing_else(
    files: DataSourceRegistry, tmp_path: Path
) -> None:
    receipt = await files.fetch("files", "a.csv", tmp_path, splits=8)
    again = await files.fetch("files", "a.csv", tmp_path, splits=2)
    assert len(os.listdir(again.path)) == 3
    assert pq.read_table(again.path).num_rows == ROWS
    (Path(receipt.path) / "notes.txt").write_text("mine")
    with pytest.raises(DataFetchError, match="something else has this name"):
        await files.fetch("files", "a.csv", tmp_path, splits=2)
    assert (Path(receipt.path) / "notes.txt").read_text() == "mine"
    (tmp_path / "b.csv.dataset").symlink_to(tmp_path / "source")
    with pytest.raises(DataFetchError, match="cannot write"):
        await files.fetch("files", "b.csv", tmp_path, splits=2)
    assert sorted(os.listdir(tmp_path / "source")) == ["a.csv", "b.csv"]
    assert not list(tmp_path.glob(".datasources-*"))


async def test_a_split_that_fails_leaves_nothing(
    numbers: DataSourceRegistry, tmp_path: Path
) -> None:
    Numbers.at_fault = 1
    with pytest.raises(ConnectorError, match="the split is broken"):
        await numbers.fetch("s", "a", tmp_path, splits=3)
    assert os.listdir(tmp_path) == []


async def test_a_failed_fetch_keeps_the_dataset_of_an_earlier_one(
    numbers: DataSourceRegistry, tmp_path: Path
) -> None:
    receipt = await numbers.fetch("s", "a", tmp_path, splits=3)
    Numbers.at_fault = 2
    with pytest.raises(ConnectorError):
        await numbers.fetch("s", "a", tmp_path, splits=3)
    assert pq.read_table(receipt.path)["n"].to_pylist() == [0, 1, 10, 11, 20, 21]


@pytest.mark.parametrize("timeout", [None, 0.05], ids=["cancelled", "too-slow"])
async def test_a_fetch_that_is_ended_leaves_nothing(
    numbers: DataSourceRegistry, tmp_path: Path, timeout: float | None
) -> None:
    Numbers.at_fault, Numbers.hang = 0, True
    limits = Limits(timeout=timeout)
    fetching = asyncio.ensure_future(numbers.fetch("s", "a", tmp_path, splits=3, limits=limits))
    if timeout is None:
        await wait_until(lambda: Numbers.hanging)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
    else:
        with pytest.raises(LimitExceededError, match="within the limit"):
            await fetching
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_bytes=5000), "over the limit of 5000 bytes"),
        (Limits(max_rows=ROWS - 1), "more than the limit of 999 rows"),
    ],
    ids=["bytes", "rows"],
)
async def test_limits_hold_for_all_files_together(
    files: DataSourceRegistry, tmp_path: Path, limits: Limits, reason: str
) -> None:
    with pytest.raises(LimitExceededError, match=reason):
        await files.fetch("files", "a.csv", tmp_path / "w", splits=4, limits=limits)
    assert os.listdir(tmp_path / "w") == []


async def test_a_quota_holds_for_all_files_and_is_given_back(
    files: DataSourceRegistry, tmp_path: Path
) -> None:
    async with files.workspace("w", root=tmp_path, quota=3000) as session:
        with pytest.raises(LimitExceededError):
            await session.fetch("files", "a.csv", splits=8)
        assert session.path.quota is not None
        assert session.path.quota.used == 0
    async with files.workspace("w", root=tmp_path, quota=1 << 20) as session:
        for splits in (8, 3):
            receipt = await session.fetch("files", "a.csv", splits=splits)
            used = sum(file.stat().st_size for file in Path(receipt.path).iterdir())
            assert session.path.quota is not None
            assert session.path.quota.used == used


async def test_progress_is_that_of_all_files(files: DataSourceRegistry, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    receipt = await files.fetch(
        "files", "a.csv", tmp_path, splits=4, progress=lambda *done: seen.append(done)
    )
    await wait_until(lambda: seen and seen[-1][0] >= receipt.size)
    assert seen == sorted(seen, key=lambda done: done[0])
    assert seen[-1] == (receipt.size, None)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"splits": 0}, "'splits' must be at least 1"),
        ({"splits": 2, "format": "csv"}, "leave 'format' out"),
        ({"splits": 2, "parameters": {"a": 1}}, "with parameters"),
    ],
    ids=["number", "format", "parameters"],
)
async def test_what_splits_do_not_have_is_refused(
    files: DataSourceRegistry, tmp_path: Path, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(OptionError, match=reason):
        await files.fetch("files", "a.csv", tmp_path / "w", **arguments)
    assert not (tmp_path / "w").exists()


async def test_a_connector_without_splits_is_named(tmp_path: Path) -> None:
    async with registry_of(AbleConnector) as registry:
        await registry.register_data_source(source())
        with pytest.raises(UnsupportedError, match="cannot split items"):
            await registry.fetch("s", "a.csv", tmp_path, splits=2)


async def test_many_items_are_fetched_as_datasets(
    files: DataSourceRegistry, tmp_path: Path
) -> None:
    requests = [FetchRequest("files", name, splits=2) for name in ("a.csv", "b.csv", "c.csv")]
    results = await files.fetch_many(requests, tmp_path / "w")
    assert [result.error is None for result in results] == [True, True, False]
    assert sorted(os.listdir(tmp_path / "w")) == ["a.csv.dataset", "b.csv.dataset"]


async def test_two_fetches_of_one_item_leave_one_whole_dataset(
    files: DataSourceRegistry, tmp_path: Path
) -> None:
    fetches = [files.fetch("files", "a.csv", tmp_path / "w", splits=4) for _ in range(4)]
    assert {receipt.rows for receipt in await asyncio.gather(*fetches)} == {ROWS}
    assert os.listdir(tmp_path / "w") == ["a.csv.dataset"]
    assert pq.read_table(tmp_path / "w" / "a.csv.dataset").num_rows == ROWS


@pytest.mark.parametrize("earlier", [False, True])
def test_a_dataset_that_another_writer_puts_in_place_meanwhile_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    def written(content: bytes) -> WorkspaceFolder:
        folder = WorkspaceFolder(Workspace(tmp_path), "a.dataset")
        with folder.create("_manifest.json") as file:
            file.write(content)
        return folder

    def commit(folder: WorkspaceFolder) -> None:
        folder.commit()
        folder.close()

    if earlier:
        commit(written(b"first"))
    others = [written(b"second"), written(b"third")]
    move_aside = WorkspaceFolder._move_aside

    def move_aside_and_wait(self: WorkspaceFolder, name: str, directory: int) -> str | None:
        moved = move_aside(self, name, directory)
        if self is folder and others:
            commit(others.pop(0))
        return moved

    monkeypatch.setattr(WorkspaceFolder, "_move_aside", move_aside_and_wait)
    folder = written(b"last")
    commit(folder)
    assert os.listdir(tmp_path) == ["a.dataset"]
    assert (tmp_path / "a.dataset" / "_manifest.json").read_bytes() == b"last"


def test_a_dataset_whose_folder_is_deleted_before_it_is_locked_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_late(descriptor: int) -> bool:
        assert len(Workspace(tmp_path).clean()) == 1
        return lock(descriptor)

    monkeypatch.setattr(folders, "lock", lock_late)
    with pytest.raises(DataFetchError, match=r"cannot write 'a.dataset' to the workspace"):
        WorkspaceFolder(Workspace(tmp_path), "a.dataset")


@pytest.mark.parametrize("plant", [os.mkfifo, Path.touch], ids=["pipe", "file"])
async def test_what_is_no_dataset_and_has_its_name_stays(
    files: DataSourceRegistry, tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    planted = tmp_path / "a.csv.dataset"
    plant(planted)
    fetching = asyncio.ensure_future(files.fetch("files", "a.csv", tmp_path, splits=2))
    done, _ = await asyncio.wait([fetching], timeout=60)
    if not done:  # end the thread that waits for a writer of the pipe
        os.close(os.open(planted, os.O_WRONLY | os.O_NONBLOCK))
    assert done
    with pytest.raises(DataFetchError, match="something else has this name"):
        await fetching
    assert sorted(os.listdir(tmp_path)) == ["a.csv.dataset", "source"]


async def test_a_pattern_brings_only_what_is_granted(
    files: DataSourceRegistry, tmp_path: Path
) -> None:
    """The pattern itself matches the grant, and the second of its files does not."""
    granted = Principal("ann", grants=[Grant("files", {"read"}, items=["[!b]*"])])
    access = files.access(granted)
    receipt = await access.fetch("files", "a*.csv", tmp_path / "w", splits=2)
    assert receipt.rows == ROWS
    with pytest.raises(PolicyError):
        await access.fetch("files", "*.csv", tmp_path / "w", splits=2)
    (result,) = await access.fetch_many([FetchRequest("files", "*.csv", splits=2)], tmp_path / "w")
    assert isinstance(result.error, PolicyError)
    with pytest.raises(PolicyError):
        async with access.plan("files", "*.csv"):
            pass
    async with files.plan("files", "*.csv") as plan:
        with pytest.raises(PolicyError):
            async for _ in access.read_split(plan.splits[0]):
                pass
    assert os.listdir(tmp_path / "w") == ["a*.csv.dataset"]


def test_a_registry_without_an_event_loop_fetches_splits(tmp_path: Path) -> None:
    with blocking.DataSourceRegistry() as registry:
        registry.register_data_source(folder_source(tmp_path / "source"))
        receipt = registry.fetch("files", "a.csv", tmp_path, splits=3)
        assert pq.read_table(receipt.path).num_rows == ROWS


KILLED = """
import os, signal, sys
from datasources.workspace import WorkspaceFolder, Workspace
folder = WorkspaceFolder(Workspace(sys.argv[1]), "a.dataset")
with folder.create("part-00000.parquet") as file:
    file.write(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_what_a_killed_process_left_is_deleted_and_what_is_written_is_not(
    tmp_path: Path,
) -> None:
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, str(tmp_path)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    folder = WorkspaceFolder(Workspace(tmp_path), "b.dataset")
    assert Workspace(tmp_path).clean() == [left]
    with folder.create("_manifest.json") as file:
        file.write(b"{}")
    folder.commit()
    folder.close()
    assert os.listdir(tmp_path) == ["b.dataset"]
