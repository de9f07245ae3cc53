"""What the README shows, run."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datasources import DataSourceConfig, DataSourceRegistry
from datasources.plugins import Plugins
from tests.docs.blocks import python_blocks

README = Path(__file__).parent.parent / "README.md"
EMBED, CHAT, ON_DISK, CONNECTOR, PLUGIN = python_blocks(README)


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, str(README), "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_embedding_example_fetches_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("hello")
    run(EMBED, __name__="__main__")
    assert re.search(r"/workspace/a\.txt: 5 bytes, sha256 2cf24dba", capsys.readouterr().out)
    assert Path("workspace/a.txt").read_text() == "hello"


def test_the_example_of_a_workspace_fetches_audits_and_cleans_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("hello")
    run(CHAT, __name__="__main__")
    (shown,) = capsys.readouterr().out.splitlines()
    assert "identifier='a.txt'" in shown
    (path,) = re.findall(r"path='([^']+)'", shown)
    assert not Path(path).parent.exists()
    lines = [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]
    fetched = [line for line in lines if line["operation"] == "fetch"]
    assert [(line["user"], line["bytes"], line["outcome"]) for line in fetched] == [
        ("ann", 5, "ok")
    ]


def test_the_example_of_a_store_opens_one() -> None:
    registry = run(ON_DISK, __name__="readme")["registry"]
    assert registry.list_data_sources() == []
    asyncio.run(registry.close())
    assert Path("sources.db").exists()


async def test_the_example_of_a_connector_works_as_a_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = run(CONNECTOR, __name__="datasources_shelf.connector")
    module = ModuleType("datasources_shelf.connector")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "datasources_shelf", ModuleType("datasources_shelf"))
    monkeypatch.setitem(sys.modules, "datasources_shelf.connector", module)
    (cls,) = run(PLUGIN, __name__="datasources_shelf.plugin")["datasources_connectors"]()
    async with DataSourceRegistry(plugins=Plugins(index=[])) as registry:
        registry.register_connector_class("shelf", cls)
        config = DataSourceConfig("mine", cls.type, "", {"owner": "ann", "token": "hunter2"})
        await registry.register_data_source(config, test_connection=True)
        assert registry.get_config("mine").config["token"] == "***REDACTED***"
        (item,) = await registry.list_items("mine")
        receipt = await registry.fetch("mine", item.path, "workspace")
        assert Path(receipt.path).read_bytes() == b"title\nann's diary\n"
        assert await registry.get_metadata("mine", "books") == {"columns": ["title"]}
