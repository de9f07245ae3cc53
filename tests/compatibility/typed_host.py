"""A host, checked strictly against the installed wheels; what it gets has types, never Any."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import assert_type

import datasources.blocking
from datasources import (
    ColumnStatistics,
    ConnectionCheck,
    CredentialManager,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceRegistry,
    DataSourceType,
    FetchReceipt,
    FetchResult,
    ItemNotFoundError,
    Limits,
    Policy,
    PoolConfig,
    Preview,
    SupportsReadTable,
    hookimpl,
)


class Observer:
    """Counts operations."""

    def __init__(self) -> None:
        self.finished: list[str] = []

    @hookimpl
    def datasources_operation_finished(self, error: BaseException | None, duration: float) -> None:
        self.finished.append(type(error).__name__ if error else f"{duration:g}")


async def fetch_all(folder: Path, workspace: Path) -> list[FetchReceipt]:
    """Bring every file of a directory."""
    config = DataSourceConfig("notes", DataSourceType.LOCAL_FILE, "Notes", {"path": str(folder)})
    policy = Policy(limits=Limits(max_bytes=1_000_000), allowed_roots=(str(folder),))
    key = CredentialManager.generate_key()
    async with DataSourceRegistry(
        CredentialManager(key), policy=policy, pool_config=PoolConfig(max_size=2)
    ) as registry:
        registry.plugins.register_plugin(Observer())
        await registry.register_data_source(config, test_connection=True)
        assert_type(await registry.check_connection("notes"), ConnectionCheck)
        items = await registry.list_items("notes")
        assert_type(items, list[DataItem])
        async for item in registry.iter_items("notes"):
            assert_type(item.size, int | None)
        assert_type(await registry.preview("notes", items[0].path, rows=3), Preview)
        async with registry.connection("notes") as connector:
            assert_type(connector, DataSourceConnector)
            assert not isinstance(connector, SupportsReadTable)
        try:
            await registry.fetch("notes", "nothing", workspace)
        except ItemNotFoundError as exc:
            assert_type(exc.code, str | None)
        results = await registry.fetch_many([("notes", item.path) for item in items], workspace)
        assert_type(results, list[FetchResult])
        return [result.receipt for result in results if result.receipt]


def wrong(registry: DataSourceRegistry) -> None:
    """What a type checker must refuse: were a name untyped, the comment would be one too many."""
    registry.get_config(7)  # type: ignore[arg-type]
    registry.exists()  # type: ignore[call-arg]
    Limits(max_rows="many")  # type: ignore[arg-type]
    registry.no_such_method()  # type: ignore[attr-defined]


def fetch_one(folder: Path, workspace: Path, name: str) -> tuple[str, datetime]:
    """Bring one file without an event loop."""
    with datasources.blocking.DataSourceRegistry() as registry:
        options: dict[str, object] = {"path": str(folder)}
        registry.register_data_source(
            DataSourceConfig("notes", DataSourceType("local_file"), "Notes", options)
        )
        receipt = registry.fetch("notes", name, workspace)
        assert_type(receipt, FetchReceipt)
        return receipt.sha256, receipt.fetched_at


async def figures(registry: DataSourceRegistry) -> dict[str, ColumnStatistics]:
    """Return the figures of a table."""
    return await registry.statistics("notes", "table")
