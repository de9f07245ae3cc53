"""The host and the plugin that `nox -s packaging` checks against the wheels do run as well."""

from __future__ import annotations

from pathlib import Path

from datasources import DataSourceConfig, DataSourceRegistry, DataSourceType
from tests.compatibility import typed_host, typed_plugin


async def test_the_typed_host_works(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("read\n")
    receipts = await typed_host.fetch_all(tmp_path / "notes", tmp_path / "workspace")
    assert [receipt.identifier for receipt in receipts] == ["a.txt"]


def test_the_typed_host_works_without_an_event_loop(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("read\n")
    checksum, _ = typed_host.fetch_one(tmp_path, tmp_path / "workspace", "a.txt")
    assert len(checksum) == 64


async def test_the_typed_plugin_works(tmp_path: Path) -> None:
    async with DataSourceRegistry() as registry:
        (cls,) = typed_plugin.datasources_connectors()
        registry.register_connector_class("shelf", cls)
        options = {"owner": "ann"}
        await registry.register_data_source(
            DataSourceConfig("s", DataSourceType("shelf"), "Shelf", options)
        )
        receipt = await registry.fetch("s", "books", tmp_path)
        assert Path(receipt.path).read_text() == "name,count\nann,1\nother,\n"
        assert len((await registry.preview("s", "books", 1)).rows) == 1
