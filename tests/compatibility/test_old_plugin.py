"""A plugin of the first contract goes on working while arguments are added to hooks and calls."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    AuthenticationError,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    Grant,
    ItemNotFoundError,
    Limits,
    PolicyError,
    Principal,
    RegistryError,
    SecretRequiredError,
    SourcePausedError,
    abilities,
)
from datasources.plugins import Plugins, scan
from tests.conftest import IN_CI
from tests.core.subprocesses import run_python

OLD = Path(__file__).with_name("old_plugin")
SHELF = DataSourceConfig("s", DataSourceType("old_shelf"), "Shelf", {"password": "${old:it}"})
CABINET = DataSourceConfig(
    "c",
    DataSourceType("old_cabinet"),
    "Cabinet",
    {"host": "cabinet.example.com", "token": "${old:it}"},
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the wheel of the old plugin is installed."""
    if not IN_CI:
        pytest.importorskip("hatchling")
    work = tmp_path_factory.mktemp("old")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = ["--no-index", "--no-deps"]
    wheel = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(work), str(OLD)]
    subprocess.run(wheel, check=True, timeout=300)
    (path,) = work.glob("*.whl")
    install = [*pip, "install", *offline, "--target", str(work / "site"), str(path)]
    subprocess.run(install, check=True, timeout=300)
    return work / "site"


@pytest.fixture
def plugins(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugins]:
    """The plugins of that directory alone, freshly imported."""
    monkeypatch.syspath_prepend(str(built))
    yield Plugins(scan([str(built)], refresh=True))
    for name in [name for name in sys.modules if name.startswith("datasources_old")]:
        del sys.modules[name]


@pytest.fixture
async def registry(plugins: Plugins) -> AsyncIterator[DataSourceRegistry]:
    for name in ("old_shelf", "old_cabinet"):  # resolves the references that its sources hold
        plugins.connector_class(name)
    async with DataSourceRegistry(plugins=plugins) as registry:
        await registry.register_data_source(SHELF, test_connection=True)
        await registry.register_data_source(CABINET, test_connection=True)
        yield registry


def seen() -> list[tuple[Any, ...]]:
    return list(import_module("datasources_old.plugin").SEEN)


def test_it_is_listed_and_loads(plugins: Plugins) -> None:
    assert [(e.name, e.status) for e in plugins.check()] == [
        ("old_cabinet", "loaded"),
        ("old_shelf", "loaded"),
    ]


def test_all_operations_on_a_source_are_run_below() -> None:
    found = {
        name
        for name, method in vars(DataSourceRegistry).items()
        if not name.startswith("_") and "source_id" in getattr(method, "__annotations__", {})
    }
    below = "".join(
        inspect.getsource(test)
        for test in (
            test_six_methods_are_enough_for_every_operation,
            test_abilities_are_called_as_they_first_were,
            test_its_errors_and_options_are_what_they_were,
            test_its_hooks_are_called_with_the_arguments_they_name,
        )
    )
    without = {"cache_metadata", "clear_cache", "exists", "get_cached_metadata", "limits"}
    assert {name for name in found - without if f"registry.{name}(" not in below} == set()


async def test_six_methods_are_enough_for_every_operation(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    assert abilities(registry.plugins.connector_class("old_shelf")) == frozenset()
    assert (await registry.check_connection("s")).ok
    assert await registry.test_connection("s")
    assert [item.path for item in await registry.list_items("s")] == ["emma.csv", "notes/plan.txt"]
    assert [item.path async for item in registry.iter_items("s", "notes/")] == ["notes/plan.txt"]
    page = await registry.list_page("s", limit=1)
    rest = await registry.list_page("s", limit=9, cursor=page.cursor)
    assert [item.path for item in page.items + rest.items] == ["emma.csv", "notes/plan.txt"]
    async with registry.open_stream("s", "emma.csv", start=6) as stream:
        assert b"".join([chunk async for chunk in stream]) == b"pages\nEmma,474\n"
    assert [item.path for item in await registry.glob_items("s", "*.csv")] == ["emma.csv"]
    assert [item.path for item in await registry.expand("s", "notes/")] == ["notes/plan.txt"]
    assert await registry.get_metadata("s", "emma.csv") == {"size": 21}
    preview = await registry.preview("s", "emma.csv", 5)
    assert (preview.columns, preview.rows) == (("title", "pages"), [("Emma", "474")])
    receipt = await registry.fetch("s", "emma.csv", tmp_path)
    assert Path(receipt.path).read_text() == "title,pages\nEmma,474\n"
    done = await registry.fetch_many([("s", "emma.csv"), ("s", "notes/plan.txt")], tmp_path)
    assert [result.error for result in done] == [None, None]
    done = await registry.fetch_tree("s", None, tmp_path / "tree")
    assert [result.error for result in done] == [None, None]
    results = registry.iter_fetch_tree("s", None, tmp_path / "stream")
    assert [result.error async for result in results] == [None, None]
    async with registry.workspace("w", root=tmp_path, quota=100) as session:
        assert Path((await session.fetch("s", "emma.csv")).path).is_relative_to(session.path)
    with pytest.raises(RegistryError, match="cannot compute statistics"):
        await registry.statistics("s", "emma.csv")
    with pytest.raises(RegistryError, match="cannot split items"):
        async with registry.plan("s", "emma.csv"):
            pass
    with pytest.raises(RegistryError, match="cannot take files"):
        await registry.upload("s", receipt.path)
    assert [item.path for item in (await registry.list_page("s", limit=1)).items] == ["emma.csv"]
    async with registry.connection("s") as connector:
        assert await connector.test_connection()
    assert (await registry.get_connector("s")).config.id == "s"
    assert registry.get_pool_stats("s")["total"] >= 1
    assert await registry.check_update("s", {"name": "Other shelf"})
    updated = await registry.update_data_source("s", {"name": "Other shelf"})
    assert (updated.name, len(await registry.list_items("s"))) == ("Other shelf", 2)
    await registry.pause("s", "the shelf is moved")
    with pytest.raises(SourcePausedError, match="the shelf is moved"):
        await registry.list_items("s")
    await registry.resume("s")
    with pytest.raises(SecretRequiredError) as caught:
        await registry.update_data_source("c", {"config": {"host": "other.example.com"}})
    assert caught.value.options == ("token",)


async def test_it_does_not_classify_identifiers_so_each_is_a_query(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    reader = registry.access(Principal("ann", grants=[Grant("s", {"read"})]))
    assert len(await reader.list_items("s")) == 2
    with pytest.raises(PolicyError, match="does not have the right 'query'"):
        await reader.fetch("s", "emma.csv", tmp_path)
    able = registry.access(Principal("ann", grants=[Grant("s", {"query"})]))
    assert (await able.fetch("s", "emma.csv", tmp_path)).size == 21


async def test_abilities_are_called_as_they_first_were(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    listed = [item.path async for item in registry.iter_items("c")]
    assert listed == [item.path for item in await registry.list_items("c")]
    assert [item.path for item in await registry.glob_items("c", "n*.csv")] == ["numbers.csv"]
    assert (await registry.preview("c", "numbers.csv", 2)).rows == [("1", "one"), ("2", "two")]
    assert (await registry.statistics("c", "numbers.csv"))["n"].mean == 2
    receipt = await registry.fetch(
        "c", "numbers.csv", tmp_path, format="csv", limits=Limits(max_rows=2)
    )
    assert (receipt.rows, receipt.truncated, receipt.version) == (2, True, "v1")
    uploaded = await registry.upload("c", receipt.path, "copy.csv", overwrite=False)
    assert (uploaded.path, uploaded.size) == ("copy.csv", receipt.size)
    assert await registry.get_metadata("c", "copy.csv") == {"size": receipt.size}
    async with registry.connection("c") as connector:
        assert (await connector.read_table("copy.csv")).startswith(b"n,text\n")  # type: ignore[attr-defined]
    with pytest.raises(ItemNotFoundError):
        await registry.fetch("c", "nothing", tmp_path)


async def test_its_errors_and_options_are_what_they_were(registry: DataSourceRegistry) -> None:
    wrong = {"host": "cabinet.example.com", "token": "something-else"}
    other = DataSourceConfig("w", DataSourceType("old_cabinet"), "W", wrong)
    await registry.register_data_source(other)
    with pytest.raises(AuthenticationError) as caught:
        await registry.list_items("w")
    assert caught.value.code == "28P01"
    assert registry.get_config("w").config["token"] == "***REDACTED***"


async def test_its_hooks_are_called_with_the_arguments_they_name(
    registry: DataSourceRegistry,
) -> None:
    with pytest.raises(ItemNotFoundError):
        await registry.get_metadata("c", "nothing")
    await registry.unregister_data_source("c")
    assert [each for each in seen() if each[0] != "started"][-3:] == [
        ("finished", "get_metadata", "ItemNotFoundError"),
        ("finished", "unregister", "NoneType"),
        ("unregistered", "c"),
    ]
    assert ("registered", "c") in seen()


def test_a_hook_may_gain_arguments(plugins: Plugins) -> None:
    plugins.connector_class("old_shelf")
    plugins.notify("datasources_source_unregistered", source_id="s", reason="of a later core")
    assert seen() == [("unregistered", "s")]
    assert plugins.first("datasources_resolve_secret", scheme="old", name="x", caller="later")
    assert (
        plugins.first("datasources_resolve_secret", scheme="new", name="x", caller="later") is None
    )


def test_the_command_line_checks_and_describes_it(built: Path) -> None:
    program = "from datasources.cli import main; main()"
    told = run_python(program, "types", "--abilities", PYTHONPATH=str(built))
    assert "old_shelf" in told
    template = run_python(program, "template", "old_cabinet", PYTHONPATH=str(built))
    assert "cabinet.example.com" in template
