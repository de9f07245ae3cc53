"""Operations of a registry: fetch, describe, preview, list; and their observers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ConnectError,
    CredentialManager,
    DataFetchError,
    DataSourceNotFoundError,
    FetchRequest,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    MemoryStore,
    Operation,
    OptionError,
    Outcome,
    Policy,
    RegistryError,
    Workspace,
    caller,
    hookimpl,
)
from datasources.registry import pools
from tests.core.fakes import (
    AbleConnector,
    MemoryConnector,
    SeedConnector,
    fresh,
    registry_of,
    source,
)
from tests.waiting import wait_until


async def test_a_fetch_of_a_plain_connector_gets_a_receipt(tmp_path: Path) -> None:
    async with registry_of(SeedConnector) as registry:
        await registry.register_data_source(source())
        receipt = await registry.fetch("s", "a.csv", tmp_path)
        assert receipt.path == str(tmp_path / "a.csv")
        assert (receipt.size, receipt.rows, receipt.truncated) == (8, None, False)
        assert receipt.source_id == "s"
        assert json.loads(json.dumps(receipt.to_dict()))["identifier"] == "a.csv"


async def test_limits_come_from_the_call_then_the_source_then_the_policy(tmp_path: Path) -> None:
    policy = Policy(limits=Limits(max_bytes=1))
    async with registry_of(MemoryConnector, policy=policy) as registry:
        roomy = source("roomy")
        roomy.limits = Limits(max_bytes=8)
        await registry.register_data_sources([source("tight"), roomy])
        with pytest.raises(LimitExceededError, match="limit of 1 bytes"):
            await registry.fetch("tight", "a.csv", tmp_path)
        assert (await registry.fetch("roomy", "a.csv", tmp_path)).size == 8
        with pytest.raises(LimitExceededError, match="limit of 7 bytes"):
            await registry.fetch("roomy", "a.csv", tmp_path, limits=Limits(max_bytes=7))
        unlimited = Limits(max_bytes=None)
        assert (await registry.fetch("tight", "b.csv", tmp_path, limits=unlimited)).size == 2


async def test_a_fetch_that_takes_too_long_is_ended_and_named(tmp_path: Path) -> None:
    async with registry_of(fresh()) as registry:
        await registry.register_data_source(source())
        with pytest.raises(LimitExceededError, match=r"'slow' from source 's' .* 0.01 seconds"):
            await registry.fetch("s", "slow", tmp_path, limits=Limits(timeout=0.01))
        assert registry.get_pool_stats("s")["in_use"] == 0


async def test_every_request_of_a_batch_gets_its_result_in_order(tmp_path: Path) -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_sources([source("s"), source("down", host="unreachable")])
        progress: list[int] = []
        results = await registry.fetch_many(
            [
                ("s", "a.csv"),
                ("s", "missing"),
                FetchRequest("s", "b.csv"),
                ("x", "y"),
                ("down", "z"),
            ],
            tmp_path,
            progress={0: lambda done, _: progress.append(done)},
        )
        outcomes = [r.receipt.size if r.receipt else type(r.error) for r in results]
        assert outcomes == [8, ItemNotFoundError, 2, DataSourceNotFoundError, ConnectError]
        assert [r.request.identifier for r in results] == ["a.csv", "missing", "b.csv", "y", "z"]
        assert progress == [8]


async def test_a_batch_never_runs_more_at_once_than_asked(tmp_path: Path) -> None:
    running, most = 0, 0

    class Counting(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return await super().fetch_data("a.csv", workspace)

    async with registry_of(Counting) as registry:
        await registry.register_data_source(source())
        await registry.fetch_many([("s", "a.csv")] * 20, tmp_path, concurrency=3)
    assert most == 3


async def test_one_file_for_two_items_of_a_batch_is_an_error_of_the_second(tmp_path: Path) -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_sources([source("one"), source("two")])
        first, second, same = await registry.fetch_many(
            [("one", "a.csv"), ("two", "a.csv"), ("one", "a.csv")], tmp_path
        )
        assert first.receipt
        assert same.receipt
        assert isinstance(second.error, DataFetchError)
        assert "would overwrite what 'a.csv' of source 'one' brings" in str(second.error)


async def test_cancelling_a_batch_leaves_nothing_running(tmp_path: Path) -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        batch = asyncio.ensure_future(registry.fetch_many([("s", "slow")] * 5, tmp_path))
        await wait_until(lambda: registry.get_pool_stats("s")["in_use"] == 5)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        assert registry.get_pool_stats("s")["in_use"] == 0
    assert os.listdir(tmp_path) == []


async def test_a_cancelled_batch_waits_for_the_slowest_of_its_fetches(tmp_path: Path) -> None:
    ended: list[str] = []

    class Cleaning(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            try:
                return await super().fetch_data("slow", workspace)
            finally:
                for _ in range(10 * int(identifier)):
                    await asyncio.sleep(0)
                ended.append(identifier)

    async with registry_of(Cleaning) as registry:
        await registry.register_data_source(source())
        requests = [("s", str(number)) for number in range(5)]
        batch = asyncio.ensure_future(registry.fetch_many(requests, tmp_path))
        await wait_until(lambda: registry.get_pool_stats("s")["in_use"] == 5)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        assert sorted(ended) == ["0", "1", "2", "3", "4"]


async def test_metadata_is_kept_as_copies_until_refreshed_or_cleared() -> None:
    cls = fresh()
    async with registry_of(cls) as registry:
        await registry.register_data_source(source())
        first = await registry.get_metadata("s", "a.csv")
        first["columns"].append("changed")
        second = await registry.get_metadata("s", "a.csv")
        assert second == {"columns": ["x", "y"]}
        second.clear()
        assert await registry.get_metadata("s", "a.csv") == {"columns": ["x", "y"]}
        assert cls.described == 1
        await registry.get_metadata("s", "a.csv", refresh=True)
        registry.clear_cache("s")
        await registry.get_metadata("s", "a.csv")
        assert cls.described == 3


@pytest.mark.parametrize("refresh", [False, True])
async def test_metadata_that_were_asked_for_before_are_not_kept_after_a_clear_or_a_refresh(
    refresh: bool,
) -> None:
    columns, gates = ["old"], [asyncio.Event(), asyncio.Event()]

    class Waiting(MemoryConnector):
        async def get_metadata(self, identifier: str) -> dict[str, Any]:
            described = {"columns": [*columns]}
            Waiting.described += 1
            await gates[Waiting.described - 1].wait()
            return described

    async with registry_of(Waiting) as registry:
        await registry.register_data_source(source())
        first = asyncio.create_task(registry.get_metadata("s", "a.csv"))
        await wait_until(lambda: Waiting.described == 1)
        columns[:] = ["new"]
        if not refresh:
            registry.clear_cache("s")
        second = asyncio.create_task(registry.get_metadata("s", "a.csv", refresh=refresh))
        await wait_until(lambda: Waiting.described == 2)
        gates[1].set()
        assert await second == {"columns": ["new"]}
        gates[0].set()
        assert await first == {"columns": ["old"]}
        assert await registry.get_metadata("s", "a.csv") == {"columns": ["new"]}


async def test_metadata_of_a_source_that_another_process_has_replaced_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Naming(MemoryConnector):
        async def get_metadata(self, identifier: str) -> dict[str, Any]:
            return {"host": self.options.host}

    shared: dict[str, Any] = {"store": MemoryStore(), "credential_manager": CredentialManager()}
    async with registry_of(Naming, **shared) as ours, registry_of(Naming, **shared) as theirs:
        await ours.register_data_source(source(host="old"))
        monkeypatch.setattr(pools, "_RECHECK_AFTER", 3600.0)
        assert await ours.get_metadata("s", "a.csv") == {"host": "old"}
        await theirs.update_data_source("s", {"config": {"host": "new"}})
        await ours.get_metadata("s", "a.csv")
        monkeypatch.setattr(pools, "_RECHECK_AFTER", 0.0)
        assert await ours.get_metadata("s", "a.csv") == {"host": "new"}


@pytest.mark.parametrize(("ttl", "expected"), [(60.0, {"tables": []}), (0.0, None)])
async def test_cached_metadata_lives_for_the_ttl_of_the_registry(ttl: float, expected: Any) -> None:
    registry = registry_of(MemoryConnector, cache_ttl=ttl)
    registry.cache_metadata("s", {"tables": []})
    assert registry.get_cached_metadata("s") == expected


async def test_a_preview_without_the_ability_comes_from_the_file() -> None:
    async with registry_of(SeedConnector) as registry:
        await registry.register_data_source(source())
        preview = await registry.preview("s", "a.csv")
        assert (preview.columns, list(preview.rows)) == (("x", "y"), [("1", "2")])


@pytest.mark.parametrize(
    ("size", "rows", "truncated"), [(1024 * 1024, 6, False), (1024 * 1024 + 1, 5, True)]
)
async def test_a_preview_by_fetching_reads_a_mebibyte_and_shows_no_row_that_is_cut(
    size: int, rows: int, truncated: bool
) -> None:
    content = b"\n".join([b"x" * 200_000] * 6)[:size]

    class Large(SeedConnector):
        async def connect(self) -> bool:
            self._connection = {"large.txt": content}
            return True

    async with registry_of(Large) as registry:
        await registry.register_data_source(source())
        preview = await registry.preview("s", "large.txt", rows=10)
    assert (len(preview.rows), preview.truncated) == (rows, truncated)


async def test_an_error_of_a_preview_by_fetching_names_item_and_source_and_no_temporary_path() -> (
    None
):
    class Binary(SeedConnector):
        async def connect(self) -> bool:
            self._connection = {"image.bin": bytes(range(256))}
            return True

    async with registry_of(Binary) as registry:
        await registry.register_data_source(source())
        with pytest.raises(DataFetchError) as caught:
            await registry.preview("s", "image.bin")
    assert str(caught.value).startswith("item 'image.bin' of source 's': 'image.bin' is not a text")
    assert tempfile.gettempdir() not in str(caught.value)


async def test_what_a_connector_cannot_do_is_said_with_what_it_can() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        with pytest.raises(RegistryError, match="'s' of type 'memory' cannot compute statistics"):
            await registry.statistics("s", "a.csv")
        with pytest.raises(RegistryError, match="cannot take files; its optional abilities: none"):
            await registry.upload("s", "/etc/hostname")


async def test_abilities_are_used_where_a_connector_has_them() -> None:
    async with registry_of(AbleConnector) as registry:
        await registry.register_data_source(source())
        assert (await registry.statistics("s", "a.csv"))["x"].mean == 1.0
        assert (await registry.upload("s", "/f", "n", overwrite=False)).metadata == {
            "overwrite": False
        }
        assert [i.path async for i in registry.iter_items("s")] == ["a.csv", "b.csv"]
        assert [i.path for i in await registry.glob_items("s", "a.*")] == ["a.csv"]


async def test_items_iterate_without_the_ability_too() -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        assert [item.path async for item in registry.iter_items("s")] == ["a.csv", "b.csv"]


async def test_a_failed_operation_is_logged_once_with_who_asked_and_without_secrets(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    class Leaky(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            raise ConnectError("refused: postgresql://u:hunter2@db/x")

    async with registry_of(Leaky) as registry:
        await registry.register_data_source(source())
        with (
            caplog.at_level(logging.DEBUG),
            caller(user="ann", request_id="r1"),
            pytest.raises(ConnectError),
        ):
            await registry.fetch("s", "a.csv", tmp_path)
    (record,) = [r for r in caplog.records if r.name.startswith("datasources")]
    assert record.getMessage() == (
        "fetch of source 's' failed (request r1, user ann): "
        "ConnectError: refused: postgresql://u:***REDACTED***@db/x"
    )


async def test_what_names_a_caller_or_a_source_forges_no_line_of_the_log_and_leaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with registry_of(MemoryConnector) as registry:
        forged = "x\nWARNING fetch of source 's' failed password=hunter2"
        with caller(user=forged, request_id=forged), pytest.raises(DataSourceNotFoundError):
            await registry.list_items(forged)
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("datasources")]
    assert len(message.splitlines()) == 1
    assert "hunter2" not in message


async def test_a_caller_or_an_id_that_is_no_text_leaves_the_error_what_it_is() -> None:
    async with registry_of(MemoryConnector) as registry:
        with caller(user=7), pytest.raises(DataSourceNotFoundError):  # type: ignore[arg-type]
            await registry.list_items(5)  # type: ignore[arg-type]


class Audit:
    """Written before observers were told of outcomes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    @hookimpl
    def datasources_source_registered(self, config: Any) -> None:
        self.seen.append(("registered", config.id, str(config.config)))

    @hookimpl
    def datasources_source_unregistered(self, source_id: str) -> None:
        self.seen.append(("unregistered", source_id))

    @hookimpl
    def datasources_operation_finished(
        self, operation: Operation, error: BaseException | None
    ) -> None:
        self.seen.append((operation.name, operation.user or "", type(error).__name__))


async def test_observers_are_told_what_came_of_an_operation(tmp_path: Path) -> None:
    seen: list[Outcome] = []

    class Watching:
        @hookimpl
        def datasources_operation_finished(self, outcome: Outcome) -> None:
            seen.append(outcome)

    async with registry_of(AbleConnector) as registry:
        await registry.register_data_source(source())
        registry.plugins.register_plugin(Watching())
        await registry.list_items("s")
        items = registry.iter_items("s")
        await anext(items)
        await items.aclose()  # type: ignore[attr-defined]
        receipt = await registry.fetch("s", "a.csv", tmp_path)
        (result,) = await registry.fetch_many([("s", "b.csv")], tmp_path)
        await registry.preview("s", "a.csv")
        with pytest.raises(ItemNotFoundError):
            await registry.fetch("s", "missing", tmp_path)
    assert seen == [
        Outcome(items=2),
        Outcome(items=1),
        Outcome(size=8, receipt=receipt),
        Outcome(size=2, receipt=result.receipt),
        Outcome(rows=1),
        Outcome(),
    ]


class Raising:
    @hookimpl
    def datasources_operation_started(self) -> None:
        raise RuntimeError

    @hookimpl
    def datasources_source_registered(self) -> None:
        raise SystemExit


async def test_observers_see_everything_and_one_that_raises_disturbs_nobody(
    tmp_path: Path,
) -> None:
    audit = Audit()
    async with registry_of(MemoryConnector) as registry:
        for plugin in (Raising(), audit):
            registry.plugins.register_plugin(plugin)
        with caller(user="ann"):
            await registry.register_data_source(source(password="hunter2"))
            await registry.fetch("s", "a.csv", tmp_path)
            with pytest.raises(ItemNotFoundError):
                await registry.fetch("s", "missing", tmp_path)
            await registry.unregister_data_source("s")
    assert audit.seen == [
        ("register", "ann", "NoneType"),
        ("registered", "s", "{'password': '***REDACTED***'}"),
        ("fetch", "ann", "NoneType"),
        ("fetch", "ann", "ItemNotFoundError"),
        ("unregister", "ann", "NoneType"),
        ("unregistered", "s"),
    ]


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_a_batch_needs_room_for_one(tmp_path: Path, concurrency: int) -> None:
    async with registry_of(MemoryConnector) as registry:
        with pytest.raises(OptionError, match="'concurrency' must be at least 1"):
            await registry.fetch_many([("s", "a.csv")], tmp_path, concurrency=concurrency)


@pytest.mark.parametrize("answer", [None, 5, b"a.csv", "a\0b", "", "/etc/hostname", []])
async def test_a_connector_that_returns_no_file_of_the_workspace_is_told_so(
    tmp_path: Path, answer: Any
) -> None:
    class Lying(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            return answer

    async with registry_of(Lying) as registry:
        await registry.register_data_source(source())
        with pytest.raises(DataFetchError, match="no file of the workspace"):
            await registry.fetch("s", "a.csv", tmp_path)


@pytest.mark.parametrize("slow", ["one", "two"])
async def test_of_two_items_for_one_file_the_earlier_request_has_it(
    tmp_path: Path, slow: str
) -> None:
    class Paced(MemoryConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            with Workspace.of(workspace).create("same") as file:
                for _ in range(50 if self.config.id == slow else 1):
                    await asyncio.sleep(0)
                file.write(self.config.id.encode())
            return file.path

    async with registry_of(fresh(Paced)) as registry:
        await registry.register_data_sources([source("one"), source("two")])
        first, second = await registry.fetch_many([("one", "a"), ("two", "a")], tmp_path)
        assert first.receipt is not None
        assert isinstance(second.error, DataFetchError)
        assert "would overwrite what 'a' of source 'one' brings" in str(second.error)
        assert (tmp_path / "same").read_text() == "one"
