"""Streams end whole with a receipt, or in an error; ranges, limits, and what is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from datasources import (
    DataFetchError,
    DataSourceNotFoundError,
    DataSourceRegistry,
    Grant,
    ItemNotFoundError,
    ItemStream,
    LimitExceededError,
    Limits,
    Operation,
    OptionError,
    Outcome,
    PolicyError,
    PoolClosedError,
    PoolError,
    Principal,
    UnsupportedError,
    byte_range,
    hookimpl,
)
from tests.core.fakes import AbleConnector, blocking_registry_of, registry_of, source
from tests.waiting import clock_ahead, wait_until

CONTENT = b"x,y\n1,2\n"


class Streaming(AbleConnector):
    closed: ClassVar[int] = 0
    fetched: ClassVar[int] = 0
    waiting: ClassVar[int] = 0
    """How many streams have become silent."""

    async def open_stream(
        self,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> ItemStream:
        if format is not None:
            raise UnsupportedError("as it is")
        names = {"short": "a.csv", "endless": "a.csv", "silent": "a.csv", "broken": "a.csv"}
        try:
            content = self._connection[names.get(identifier, identifier)]
        except KeyError:
            raise ItemNotFoundError(identifier) from None
        first, stop = byte_range(len(content), start, end)

        async def chunks() -> AsyncIterator[bytes]:
            for position in range(first, stop, 3):
                yield content[position : min(stop, position + 3)]
                if identifier == "short":
                    return
                if identifier == "broken":
                    raise DataFetchError("open-sesame-4711 was lost")
                if identifier == "silent":
                    type(self).waiting += 1
                    await asyncio.sleep(60)
            while identifier == "endless":
                yield b"more"

        def close() -> None:
            type(self).closed += 1

        size = None if identifier == "endless" else stop - first
        return ItemStream(chunks(), size=size, etag="v1", media_type="text/csv", close=close)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        type(self).fetched += 1
        return await super().fetch_data(identifier, workspace)


@pytest.fixture(params=[Streaming, AbleConnector])
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[DataSourceRegistry]:
    async with registry_of(request.param) as registry:
        await registry.register_data_source(source())
        yield registry


@pytest.fixture
async def native() -> AsyncIterator[DataSourceRegistry]:
    Streaming.closed = Streaming.fetched = Streaming.connects = Streaming.waiting = 0
    async with registry_of(Streaming) as registry:
        await registry.register_data_source(source(password="open-sesame-4711"))
        yield registry


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of temporary files, which has to be empty after each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert os.listdir(folder) == []


async def read(stream: ItemStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_a_stream_has_the_content_and_then_a_receipt(registry: DataSourceRegistry) -> None:
    async with registry.open_stream("s", "a.csv") as stream:
        assert (stream.size, stream.receipt) == (8, None)
        assert await read(stream) == CONTENT
    receipt = stream.receipt
    assert receipt is not None
    assert (receipt.size, receipt.sha256) == (8, hashlib.sha256(CONTENT).hexdigest())
    assert (receipt.source_id, receipt.identifier, receipt.path) == ("s", "a.csv", "")
    assert receipt.version == stream.etag
    assert registry.get_pool_stats("s")["in_use"] == 0


@pytest.mark.parametrize("start", [None, 0, 1, 7, 8])
@pytest.mark.parametrize("end", [None, 0, 1, 5, 8, 9, 10**9])
async def test_a_range_has_these_bytes(
    registry: DataSourceRegistry, start: int | None, end: int | None
) -> None:
    if end is not None and (start or 0) > end:
        with pytest.raises(OptionError, match="'start' of a range must be at least 0"):
            await registry.open_stream("s", "a.csv", start=start, end=end).__aenter__()
        return
    async with registry.open_stream("s", "a.csv", start=start, end=end) as stream:
        assert stream.size == len(CONTENT[start:end])
        assert await read(stream) == CONTENT[start:end]


@pytest.mark.parametrize("given", [{"start": 9}, {"start": -1}, {"end": -1}, {"start": True}])
async def test_a_range_outside_the_content_is_refused(
    registry: DataSourceRegistry, given: Any
) -> None:
    with pytest.raises(OptionError, match="range"):
        await registry.open_stream("s", "a.csv", **given).__aenter__()
    assert registry.get_pool_stats("s")["in_use"] == 0


async def test_a_limit_of_bytes_is_an_error_before_the_first_byte(
    registry: DataSourceRegistry,
) -> None:
    with pytest.raises(LimitExceededError):
        await registry.open_stream("s", "a.csv", limits=Limits(max_bytes=7)).__aenter__()
    async with registry.open_stream("s", "a.csv", limits=Limits(max_bytes=8)) as stream:
        assert await read(stream) == CONTENT


async def test_a_missing_item_is_an_error_on_entering(registry: DataSourceRegistry) -> None:
    with pytest.raises(ItemNotFoundError):
        await registry.open_stream("s", "missing").__aenter__()
    with pytest.raises(DataSourceNotFoundError):
        await registry.open_stream("other", "a.csv").__aenter__()


@pytest.mark.parametrize(
    ("identifier", "error"),
    [
        ("short", DataFetchError),
        ("broken", DataFetchError),
        ("endless", LimitExceededError),
        ("silent", LimitExceededError),
    ],
)
async def test_a_stream_that_does_not_end_whole_raises(
    native: DataSourceRegistry, identifier: str, error: type[Exception]
) -> None:
    limits = Limits(max_bytes=1_000, timeout=60 if identifier == "silent" else None)
    streams: list[ItemStream] = []

    async def read_until_the_time_is_over() -> None:
        async with native.open_stream("s", identifier, limits=limits) as stream:
            streams.append(stream)
            reading = asyncio.create_task(read(stream))
            await wait_until(lambda: Streaming.waiting or reading.done())
            with clock_ahead(60):
                await reading

    with pytest.raises(error) as caught:
        await read_until_the_time_is_over()
    (stream,) = streams
    assert stream.receipt is None
    assert "sesame" not in str(caught.value)
    assert Streaming.closed == 1
    assert native.get_pool_stats("s")["in_use"] == 0


async def test_a_slow_reader_is_within_the_limit_of_time(registry: DataSourceRegistry) -> None:
    async with registry.open_stream("s", "a.csv", limits=Limits(timeout=60)) as stream:
        with (
            clock_ahead(60),
            pytest.raises(LimitExceededError, match="within the limit of 60 seconds"),
        ):
            await read(stream)


@pytest.mark.parametrize("chunks", [0, 1])
async def test_a_stream_that_is_left_early_leaves_nothing_open(
    native: DataSourceRegistry, chunks: int
) -> None:
    async with native.open_stream("s", "a.csv") as stream:
        for _ in range(chunks):
            await anext(stream)
        assert native.get_pool_stats("s")["in_use"] == 1
    assert stream.receipt is None
    assert Streaming.closed == 1
    assert native.get_pool_stats("s")["in_use"] == 0


@pytest.mark.parametrize("call", ["tempfile.mkdtemp", "datasources.registry.streaming.open"])
async def test_a_stream_that_is_cancelled_while_it_opens_leaves_nothing_open(
    native: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    function = tempfile.mkdtemp if call == "tempfile.mkdtemp" else open
    entered, released = threading.Event(), threading.Event()
    files: list[Any] = []

    def slow(*arguments: Any, **keywords: Any) -> Any:
        entered.set()
        released.wait()
        files.append(function(*arguments, **keywords))
        return files[-1]

    monkeypatch.setattr(call, slow, raising=False)

    async def stream() -> None:
        async with native.open_stream("s", "a.csv", format="csv"):
            raise AssertionError("it was cancelled")

    task = asyncio.create_task(stream())
    await wait_until(entered.is_set)
    task.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (file,) = files
    if not isinstance(file, str):  # of a directory, the fixture sees that it is gone
        assert file.closed


async def test_a_format_that_cannot_be_streamed_is_fetched(native: DataSourceRegistry) -> None:
    async with native.open_stream("s", "a.csv", format="csv") as stream:
        assert await read(stream) == CONTENT
    assert Streaming.fetched == 1


async def test_removing_the_source_ends_its_streams(native: DataSourceRegistry) -> None:
    async with native.open_stream("s", "silent") as stream:
        await anext(stream)
        waiting = asyncio.ensure_future(read(stream))
        await asyncio.sleep(0)
        with pytest.raises(PoolError, match="never returned"):  # the block still holds it
            await native.unregister_data_source("s", timeout=0)
        with pytest.raises(PoolClosedError):
            await waiting


async def test_a_stream_may_be_read_in_another_task(registry: DataSourceRegistry) -> None:
    async with registry.open_stream("s", "a.csv") as stream:
        assert await asyncio.create_task(read(stream)) == CONTENT


async def test_observers_see_a_stream_from_its_opening_to_its_end(
    native: DataSourceRegistry,
) -> None:
    seen: list[Any] = []

    class Audit:
        @hookimpl
        def datasources_operation_finished(
            self, operation: Operation, error: BaseException | None, outcome: Outcome
        ) -> None:
            seen.append((operation.name, operation.user, outcome.size, type(error).__name__))

    native.plugins.register_plugin(Audit())
    access = native.access(Principal("ann", grants=[Grant("s", {"read", "query"})]))
    async with access.open_stream("s", "a.csv") as stream:
        await read(stream)
    with pytest.raises(ItemNotFoundError):
        await access.open_stream("s", "missing").__aenter__()
    assert seen == [
        ("open_stream", "ann", 8, "NoneType"),
        ("open_stream", "ann", None, "ItemNotFoundError"),
    ]


async def test_grants_hold_for_streams(native: DataSourceRegistry) -> None:
    access = native.access(Principal("ann", grants=[Grant("s", {"read"})]))
    with pytest.raises(PolicyError, match="'query'"):
        await access.open_stream("s", "a.csv").__aenter__()
    with pytest.raises(DataSourceNotFoundError):
        await access.open_stream("other", "a.csv").__aenter__()
    assert Streaming.connects == 0


async def test_a_stream_takes_a_place_of_its_principal(native: DataSourceRegistry) -> None:
    principal = Principal("ann", grants=[Grant("s", {"read", "query"})])
    async with native.access(principal, concurrency=1).open_stream("s", "a.csv"):
        other = native.access(principal, concurrency=1).open_stream("s", "b.csv")
        waiting = asyncio.ensure_future(other.__aenter__())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
    await wait_until(waiting.done)
    await other.__aexit__(None, None, None)


def test_the_blocking_registry_streams_too() -> None:
    with blocking_registry_of(Streaming) as registry:
        registry.register_data_source(source())
        with registry.open_stream("s", "a.csv", start=4) as stream:
            assert (stream.size, stream.etag, stream.media_type) == (4, "v1", "text/csv")
            assert b"".join(stream) == CONTENT[4:]
            assert stream.receipt is not None
            assert stream.receipt.size == 4
        access = registry.access(Principal("root", {"admin"}))
        with access.open_stream("s", "b.csv") as stream:
            assert next(stream) == b"x\n"
        with pytest.raises(ItemNotFoundError), registry.open_stream("s", "missing"):
            pass
