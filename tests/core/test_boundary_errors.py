"""Whatever a connector raises reaches the host as a `DataSourceError` that names source and connector."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceRegistry,
    FetchResult,
    ItemStream,
    PoolConfig,
    Preview,
)
from tests.core.fakes import AbleConnector, MemoryOptions, fresh, registry_of, source

SECRET = "correct-horse"


class RawOptions(MemoryOptions):
    fail_at: str = ""


class Raw(AbleConnector):
    """Lets the exceptions of its driver out, in the method that its option names."""

    options_class = RawOptions
    options: RawOptions
    error: type[BaseException] = RuntimeError

    def fail(self, method: str) -> None:
        if self.options.fail_at == method:
            raise self.error(f"{method} went wrong with {SECRET}")

    async def connect(self) -> bool:
        self.fail("connect")
        return await super().connect()

    async def disconnect(self) -> None:
        await super().disconnect()
        self.fail("disconnect")

    async def test_connection(self) -> bool:
        self.fail("test_connection")
        return await super().test_connection()

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        self.fail("list_items")
        return await super().list_items(path)

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        yield DataItem("a.csv", "a.csv")
        self.fail("iter_items")

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        self.fail("fetch_data")
        return await super().fetch_data(identifier, workspace)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        self.fail("get_metadata")
        return await super().get_metadata(identifier)

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        self.fail("preview")
        return Preview((), (), truncated=False)

    async def statistics(self, identifier: str) -> dict[str, Any]:
        self.fail("statistics")
        return {}

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        self.fail("upload")
        return await super().upload_file(local_path, blob_name, overwrite)


async def _iterate(registry: DataSourceRegistry, _: Path) -> None:
    async for _item in registry.iter_items("s"):
        pass


async def _fetch_many(registry: DataSourceRegistry, folder: Path) -> None:
    results: list[FetchResult] = await registry.fetch_many([("s", "a.csv")], folder)
    assert results[0].error is not None
    raise results[0].error


OPERATIONS: dict[str, tuple[str, Callable[[DataSourceRegistry, Path], Awaitable[object]]]] = {
    "connect": ("connect", lambda registry, _: registry.list_items("s")),
    "list": ("list_items", lambda registry, _: registry.list_items("s")),
    "glob": ("list_items", lambda registry, _: registry.glob_items("s", "*.csv")),
    "iterate": ("iter_items", _iterate),
    "metadata": ("get_metadata", lambda registry, _: registry.get_metadata("s", "a.csv")),
    "preview": ("preview", lambda registry, _: registry.preview("s", "a.csv")),
    "statistics": ("statistics", lambda registry, _: registry.statistics("s", "a.csv")),
    "upload": ("upload", lambda registry, folder: registry.upload("s", str(folder), "x")),
    "fetch": ("fetch_data", lambda registry, folder: registry.fetch("s", "a.csv", folder)),
    "fetch_many": ("fetch_data", _fetch_many),
}


@pytest.mark.parametrize("error", [RuntimeError, KeyError, OSError, SystemExit])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_of_a_driver_is_a_connector_error_that_names_source_and_connector(
    operation: str, error: type[BaseException], tmp_path: Path
) -> None:
    method, run = OPERATIONS[operation]
    if (operation, error) == ("connect", SystemExit):
        pytest.skip("what a pool does then is the claim of test_pool_connecting")
    connector_class = fresh(Raw)
    connector_class.error = error  # type: ignore[attr-defined]
    async with registry_of(connector_class) as registry:
        await registry.register_data_source(source("s", password=SECRET, fail_at=method))
        with pytest.raises(ConnectorError) as caught:
            await run(registry, tmp_path)
    assert "the connector 'memory' of source 's' raised " + error.__name__ in str(caught.value)
    assert isinstance(caught.value.__cause__, error)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("method", ["connect", "test_connection", "disconnect"])
async def test_failing_test_of_a_connection_is_a_result_and_stores_nothing(method: str) -> None:
    async with registry_of(fresh(Raw)) as registry:
        config = source("s", password=SECRET, fail_at=method)
        with pytest.raises(ConnectorError, match="source 's' raised RuntimeError"):
            await registry.register_data_source(config, test_connection=True)
        assert registry.list_data_sources() == []
        await registry.register_data_source(config)
        assert await registry.test_connection("s") is False
        check = await registry.check_connection("s")
        assert isinstance(check.error, ConnectorError)
        assert SECRET not in str(check.error)


async def test_error_of_disconnecting_does_not_hide_why_a_test_failed() -> None:
    class Refused(Raw):
        async def connect(self) -> bool:
            raise AuthenticationError("the password is wrong")

    async with registry_of(Refused) as registry:
        with pytest.raises(AuthenticationError, match="the password is wrong"):
            await registry.register_data_source(
                source("s", fail_at="disconnect"), test_connection=True
            )


@pytest.mark.parametrize("method", ["__init__", "connect", "test_connection", "disconnect"])
async def test_connector_that_hangs_ends_a_test_of_the_connection(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    async def hang(_: object) -> bool:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return True

    monkeypatch.setattr("datasources.registry.checking.DISCONNECT_TIMEOUT", 0.01)
    hanging = hang if method != "__init__" else lambda *_: released.wait() and None
    connector_class = type("Hanging", (AbleConnector,), {method: hanging})
    pool_config = PoolConfig(connect_timeout=0.01)
    async with registry_of(connector_class, pool_config=pool_config) as registry:
        try:
            with pytest.raises(ConnectError, match=r"source 's' .*did not .* within 0\.01 seconds"):
                await registry.register_data_source(source("s"), test_connection=True)
        finally:
            released.set()


class Unmakeable(DataSourceConnector):
    """Raises in its constructor, and quotes an option that it never declared."""

    def __init__(self, config: DataSourceConfig) -> None:
        super().__init__(config)
        raise LookupError(f"no {config.config['token']}")

    connect = disconnect = test_connection = None  # type: ignore[assignment]
    list_items = fetch_data = get_metadata = None  # type: ignore[assignment]


async def test_error_of_a_constructor_names_source_and_connector_and_no_option() -> None:
    async with registry_of(Unmakeable) as registry:
        await registry.register_data_source(source("s", token=SECRET))
        with pytest.raises(ConnectorError, match="of source 's' raised LookupError") as caught:
            await registry.list_items("s")
    assert isinstance(caught.value.__cause__, LookupError)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
@pytest.mark.parametrize("method", ["hosts", "paths", "ambient", "check"])
async def test_error_of_an_options_class_is_a_connector_error(
    method: str, error: type[BaseException]
) -> None:
    def fail(*_: Any) -> Any:
        raise error(f"{method} went wrong with {SECRET}")

    class Failing(MemoryOptions):
        pass

    connector_class = fresh(AbleConnector)
    connector_class.options_class = Failing
    async with registry_of(connector_class) as registry:
        await registry.register_data_source(source("stored", password=SECRET))
        setattr(Failing, method, classmethod(fail) if method == "check" else fail)
        with pytest.raises(ConnectorError, match=f"raised {error.__name__}") as caught:
            await registry.register_data_source(source("s", password=SECRET))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        if method != "check":  # which is not called to connect
            with pytest.raises(ConnectorError, match="of source 'stored' raised") as caught:
                await registry.list_items("stored")
            assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
async def test_error_of_a_discovery_is_a_connector_error(error: type[BaseException]) -> None:
    class Discovering(AbleConnector):
        @classmethod
        async def discover(cls, options: Any, *, check_address: Any) -> dict[str, list[str]]:
            raise error(f"no choice for {options['password']}")

    async with registry_of(Discovering) as registry:
        with pytest.raises(ConnectorError, match=f"raised {error.__name__}") as caught:
            await registry.discover("memory", {"password": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
@pytest.mark.parametrize("step", ["open", "read", "close"])
async def test_error_of_a_stream_is_a_connector_error(
    step: str, error: type[BaseException]
) -> None:
    def fail(at: str) -> None:
        if at == step:
            raise error(f"{at} went wrong with {SECRET}")

    class Streaming(AbleConnector):
        async def open_stream(self, identifier: str, **_: Any) -> ItemStream:
            async def chunks() -> AsyncIterator[bytes]:
                fail("read")
                yield b"x"

            fail("open")
            return ItemStream(chunks(), close=lambda: fail("close"))

    async with registry_of(Streaming) as registry:
        await registry.register_data_source(source("s", password=SECRET))
        with pytest.raises(ConnectorError, match=f"raised {error.__name__}") as caught:
            async with registry.open_stream("s", "a.csv") as stream:
                assert [chunk async for chunk in stream] == [b"x"]
    assert SECRET not in "".join(traceback.format_exception(caught.value))
