"""Listing, describing, reading and writing through the file system."""

from __future__ import annotations

import asyncio
import io
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from datasources import (
    DataSourceConfig,
    DataSourceRegistry as AsyncRegistry,
    Grant,
    Operation,
    Outcome,
    Principal,
    hookimpl,
)
from datasources.blocking import DataSourceRegistry
from datasources_fsspec import DataSourceFileSystem
from tests.core.test_iter_fetch_tree import Many
from tests.servers import Database

READER = Principal("ann", grants=[Grant("lake", {"read"})])


class Operations:
    """Notes the operations of a registry."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @hookimpl
    def datasources_operation_finished(self, operation: Operation) -> None:
        self.names.append(operation.name)


def names(infos: list[dict[str, Any]]) -> list[str]:
    return [info["name"] for info in infos]


def test_sources_and_folders_are_listed_as_directories(
    fs: DataSourceFileSystem, reports: Path
) -> None:
    assert fs.ls("") == [{"name": "lake", "size": 0, "type": "directory"}]
    assert fs.ls("datasource://lake/") == [{"name": "lake/reports", "size": 0, "type": "directory"}]
    assert fs.ls("lake/reports", detail=False) == ["lake/reports/2023.csv", "lake/reports/2024.csv"]
    assert fs.isdir("lake/reports")
    assert not fs.exists("lake/other")


def test_files_have_sizes_and_times(fs: DataSourceFileSystem, reports: Path) -> None:
    os.utime(reports / "2023.csv", (1e9, 1e9))
    info = fs.info("datasource://lake/reports/2023.csv")
    assert info == {"name": "lake/reports/2023.csv", "size": 8, "type": "file", "mtime": 1e9}
    assert info == fs.ls("lake/reports")[0] == fs.ls("lake/reports/2023.csv")[0]
    assert fs.modified("lake/reports/2023.csv") == datetime.fromtimestamp(1e9, UTC)


def test_tables_are_listed_in_both_formats_and_without_a_size(
    fs: DataSourceFileSystem, shop: Database
) -> None:
    listed = fs.ls("shop")
    assert names(listed) == [
        "shop/public.big.csv",
        "shop/public.big.parquet",
        "shop/public.orders.csv",
        "shop/public.orders.parquet",
    ]
    assert listed[0] == {"name": "shop/public.big.csv", "size": None, "type": "file"}
    assert fs.info("shop/public.orders.csv") == listed[2]
    assert fs.glob("datasource://shop/public.*.csv") == names(listed)[::2]
    assert fs.find("shop") == names(listed)


def test_a_table_without_an_ending_is_not_found(fs: DataSourceFileSystem, shop: Database) -> None:
    with pytest.raises(FileNotFoundError, match=r"read it as 'shop/public.orders.parquet'"):
        fs.info("shop/public.orders")
    with pytest.raises(FileNotFoundError):
        fs.info("shop/public.nothing.csv")


def test_a_format_in_a_url_is_the_ending_of_a_table(
    fs: DataSourceFileSystem, shop: Database
) -> None:
    assert fs.isfile("datasource://shop/public.orders?format=csv")
    assert fs.cat("datasource://shop/public.orders?format=csv").startswith(b"id,country,amount\n")


def test_find_reads_one_listing_however_deep_the_folders(
    fs: DataSourceFileSystem, registry: DataSourceRegistry, lake: Path
) -> None:
    (lake / "a/b/c").mkdir(parents=True)
    (lake / "a/b/c/x.csv").touch()
    (lake / "a/y.csv").touch()
    operations = Operations()
    registry.wrapped.plugins.register_plugin(operations, "test")
    assert fs.find("lake/a") == ["lake/a/b/c/x.csv", "lake/a/y.csv"]
    assert operations.names == ["iter_items"]
    folders = ["lake/a", "lake/a/b", "lake/a/b/c"]
    assert fs.find("lake/a", withdirs=True) == sorted([*folders, *fs.find("lake/a")])
    assert fs.find("lake/a", maxdepth=1) == ["lake/a/y.csv"]
    assert fs.find("lake/a/y.csv") == ["lake/a/y.csv"]
    assert fs.find("lake/nothing") == []


def test_find_in_a_folder_that_goes_away_meanwhile_is_an_error(
    fs: DataSourceFileSystem, registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Many, "count", 20)
    monkeypatch.setattr(Many, "gone_at", 10)
    registry.register_connector_class("memory", Many)
    registry.register_data_source(DataSourceConfig("many", "memory", "", {}))
    with pytest.raises(FileNotFoundError, match="the folder is gone"):
        fs.find("many")


def test_a_range_is_read_as_a_range(
    fs: DataSourceFileSystem, registry: DataSourceRegistry, lake: Path
) -> None:
    (lake / "digits").write_bytes(b"0123456789")
    received: list[int | None] = []

    class Sizes:
        @hookimpl
        def datasources_operation_finished(self, operation: Operation, outcome: Outcome) -> None:
            if operation.name == "open_stream":
                received.append(outcome.size)

    registry.wrapped.plugins.register_plugin(Sizes(), "test")
    assert fs.cat_file("lake/digits", 2, 5) == b"234"
    assert fs.cat_file("lake/digits", -3) == b"789"
    assert fs.cat_file("lake/digits", 8, 99) == b"89"
    assert received == [3, 3, 2]
    assert fs.cat_file("lake/digits", 10) == fs.cat_file("lake/digits", 5, 5) == b""
    assert fs.cat_ranges(["lake/digits"] * 2, [0, 9], [1, 10]) == [b"0", b"9"]


def test_an_open_file_reads_blocks(fs: DataSourceFileSystem, lake: Path) -> None:
    (lake / "digits").write_bytes(b"0123456789")
    with fs.open("lake/digits", block_size=3) as file:
        assert (file.size, file.read(2), file.seek(-1, 2), file.read()) == (10, b"01", 9, b"9")


def test_a_file_that_changes_between_two_ranges_is_an_error(
    fs: DataSourceFileSystem, lake: Path
) -> None:
    (lake / "digits").write_bytes(b"0123456789")
    with fs.open("lake/digits", cache_type="none") as file:
        assert file.read(1) == b"0"
        (lake / "digits").write_bytes(b"abcdefghijk")
        with pytest.raises(OSError, match="'digits' changed while it was read; open it again"):
            file.read(1)


def test_a_file_that_changes_between_opening_and_reading_is_an_error(
    fs: DataSourceFileSystem, lake: Path
) -> None:
    (lake / "digits").write_bytes(b"0123456789")
    with fs.open("lake/digits") as file:
        (lake / "digits").write_bytes(b"0123456789, and more")
        with pytest.raises(OSError, match="'digits' changed while it was read; open it again"):
            file.read()


def test_a_table_stays_as_it_was_when_it_was_opened(
    fs: DataSourceFileSystem, shop: Database
) -> None:
    import psycopg

    with fs.open("shop/public.orders.csv") as file, psycopg.connect(shop.dsn()) as connection:
        connection.execute("DELETE FROM orders")
        connection.commit()
        assert fs.size("shop/public.orders.csv") == file.size
        assert len(file.readlines()) == 13
    assert fs.size("shop/public.orders.csv") is None
    assert fs.cat("shop/public.orders.csv") == b"id,country,amount\n"


def test_files_are_written_in_blocks_and_appear_when_they_are_closed(
    fs: DataSourceFileSystem, lake: Path
) -> None:
    with fs.open("lake/new/file", "wb", block_size=4) as file:
        file.write(b"01234")
        file.write(b"56789")
        assert not (lake / "new").exists()
    assert (lake / "new/file").read_bytes() == b"0123456789"
    with pytest.raises(FileExistsError):
        fs.open("lake/new/file", "xb")


def test_a_block_that_ends_in_an_error_stores_nothing(fs: DataSourceFileSystem, lake: Path) -> None:
    def fail() -> None:
        with fs.open("lake/file", "wb", block_size=1) as file:
            file.write(b"01234")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(lake.iterdir()) == []


def test_get_replaces_the_local_file_and_reports_progress(
    fs: DataSourceFileSystem, reports: Path, tmp_path: Path
) -> None:
    callback = fsspec.Callback()
    fs.get_file("lake/reports/2023.csv", str(tmp_path / "new/file"), callback=callback)
    assert (callback.size, callback.value) == (8, 8)
    assert os.listdir(tmp_path / "new") == ["file"]
    fs.get("datasource://lake/reports", str(tmp_path / "all"), recursive=True)
    assert sorted(os.listdir(tmp_path / "all")) == ["2023.csv", "2024.csv"]


def test_names_of_all_kinds_are_found_by_path_and_by_url(
    fs: DataSourceFileSystem, lake: Path
) -> None:
    for name in ("a b.csv", "100%.csv", "a%20b", "ä#.csv", "a=1/?x"):
        path = lake / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        assert fs.cat_file(f"lake/{name}") == name.encode()
        assert fs.cat_file(fs.unstrip_protocol(f"lake/{name}").replace("?", "%3F")) == name.encode()
    assert fs.cat_file("datasource://lake/a b.csv") == b"a b.csv"
    assert fs.cat_file("datasource://lake/a%20b.csv") == b"a b.csv"


def test_listings_are_cached_only_if_asked_for(
    registry: DataSourceRegistry, fs: DataSourceFileSystem, reports: Path
) -> None:
    caching = fsspec.filesystem("datasource", registry=registry, use_listings_cache=True)
    before = caching.ls("lake/reports")
    (reports / "2025.csv").touch()
    assert caching.ls("lake/reports") == before
    assert len(fs.ls("lake/reports")) == 3
    caching.invalidate_cache()
    assert len(caching.ls("lake/reports")) == 3


def test_listing_that_began_before_a_file_was_stored_is_not_cached(
    registry: DataSourceRegistry, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caching = fsspec.filesystem("datasource", registry=registry, use_listings_cache=True)
    read_listing = caching._list

    async def list_before_a_file_is_stored(path: str) -> list[dict[str, Any]]:
        listed = await read_listing(path)
        await caching._pipe_file("lake/reports/2025.csv", b"x,y\n")
        return listed

    with monkeypatch.context() as patch:
        patch.setattr(caching, "_list", list_before_a_file_is_stored)
        assert "lake/reports/2025.csv" not in caching.ls("lake/reports", detail=False)
    assert "lake/reports/2025.csv" in caching.ls("lake/reports", detail=False)


def test_caches_of_fsspec_read_through(registry: DataSourceRegistry, reports: Path) -> None:
    url = "simplecache::datasource://lake/reports/2023.csv"
    with fsspec.open(url, datasource={"registry": registry}) as file:
        assert file.read() == b"x,y\n1,2\n"


def test_a_table_over_the_limit_of_rows_is_an_error_that_names_it(
    registry: DataSourceRegistry, shop: Database, tmp_path: Path
) -> None:
    fs = fsspec.filesystem("datasource", registry=registry, limits={"max_rows": 5})
    for read in (fs.cat_file, fs.open, lambda path: fs.get_file(path, str(tmp_path / "x"))):
        with pytest.raises(OSError, match=r"'public.orders' .* more rows than the limit of 5;"):
            read("shop/public.orders.csv")
    assert list(tmp_path.iterdir()) == []
    everything = fsspec.filesystem("datasource", registry=registry, limits={"max_rows": None})
    assert len(everything.cat_file("shop/public.orders.csv").splitlines()) == 13


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("lake/none", FileNotFoundError, "source 'lake' has no file 'none'"),
        ("sea/file", FileNotFoundError, "'sea'"),
        ("lost/file", ConnectionError, "is not a directory"),
    ],
)
def test_errors_are_those_of_files(
    registry: DataSourceRegistry,
    fs: DataSourceFileSystem,
    lake: Path,
    path: str,
    error: type[Exception],
    message: str,
) -> None:
    registry.register_data_source(
        DataSourceConfig("lost", "local_file", "", {"path": str(lake / "lost")})
    )
    for call in (fs.info, fs.cat_file, fs.open):
        with pytest.raises(error, match=message) as raised:
            call(path)
        assert "\n" not in str(raised.value)


def test_a_source_that_takes_no_files_says_so(
    registry: DataSourceRegistry, fs: DataSourceFileSystem, lake: Path, shop: Database
) -> None:
    registry.update_data_source("lake", {"config": {"writable": False}})
    with pytest.raises(io.UnsupportedOperation, match="its option 'writable' admits them"):
        fs.pipe_file("lake/new", b"x")
    with pytest.raises(io.UnsupportedOperation):
        fs.pipe_file("shop/new", b"x")
    with pytest.raises(NotImplementedError, match="nothing is deleted"):
        fs.rm_file("lake/new")


def test_an_access_reads_what_is_granted_and_nothing_else(
    registry: DataSourceRegistry, reports: Path, shop: Database
) -> None:
    fs = fsspec.filesystem("datasource", registry=registry.access(READER))
    assert names(fs.ls("")) == ["lake"]
    assert fs.find("lake") == ["lake/reports/2023.csv", "lake/reports/2024.csv"]
    with pytest.raises(FileNotFoundError, match="'shop'"):
        fs.info("shop/public.orders.csv")
    with pytest.raises(PermissionError):
        fs.pipe_file("lake/new", b"x")


async def test_coroutines_work_on_the_loop_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "digits").write_bytes(b"0123456789")
    async with AsyncRegistry() as registry:
        await registry.register_data_source(
            DataSourceConfig("lake", "local_file", "", {"path": str(tmp_path), "writable": True})
        )
        fs = DataSourceFileSystem(registry=registry, asynchronous=True, skip_instance_cache=True)
        await fs._pipe_file("lake/other", b"x")
        found = await fs._find("lake")
        assert found == ["lake/digits", "lake/other"]
        parts = [fs._cat_file("lake/digits", start, start + 2) for start in (0, 4)]
        assert await asyncio.gather(*parts) == [b"01", b"45"]
        file = await fs.open_async("datasource://lake/digits")
        assert [await file.read(4), await file.read()] == [b"0123", b"456789"]
        await file.close()
        assert registry.get_pool_stats("lake")["total"] > 0  # a pool of this loop


async def test_a_name_that_leads_out_of_a_folder_is_not_copied(tmp_path: Path) -> None:
    async with AsyncRegistry() as registry:
        await registry.register_data_source(
            DataSourceConfig("lake", "local_file", "", {"path": str(tmp_path)})
        )
        fs = DataSourceFileSystem(registry=registry, asynchronous=True, skip_instance_cache=True)
        with pytest.raises(OSError, match="is no safe name for a local file"):
            await fs._get_file("lake/a/../../b", str(tmp_path / "copy"))
