"""Listing, describing, previewing and fetching, against Azurite."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from azure.storage.blob import ContainerClient, ContentSettings

from datasources import (
    DataFetchError,
    DataItem,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    Workspace,
)
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import Connect
from tests.servers import AzuriteServer
from tests.waiting import wait_until

MIB = 1024 * 1024
SMALL = {"chunk_size": 64 * 1024}


@pytest.fixture
def tree(container: ContainerClient) -> ContainerClient:
    for name in ("top.csv", "sales/a.csv", "sales/b.txt", "sales/2024/c.csv", "salesman.csv"):
        container.upload_blob(name, name.encode())
    return container


def paths(items: list[DataItem]) -> list[str]:
    return [item.path for item in items]


async def test_list_has_size_date_type_and_etag(
    tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    (item,) = await connector.glob_items("top.csv")
    properties = tree.get_blob_client("top.csv").get_blob_properties()
    assert (item.name, item.path, item.size) == ("top.csv", "top.csv", 7)
    assert item.modified_at == properties.last_modified.timestamp()
    assert item.metadata["etag"] == properties.etag.strip('"')
    assert item.metadata["content_type"] == "application/octet-stream"
    assert item.metadata["kind"] == "blob"


async def test_list_without_a_path_has_every_blob(
    tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    assert sorted(paths(await connector.list_items())) == sorted(tree.list_blob_names())


async def test_list_below_a_folder_goes_deep_and_takes_no_namesake(
    tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    listed = paths(await connector.list_items("sales"))
    assert sorted(listed) == ["sales/2024/c.csv", "sales/a.csv", "sales/b.txt"]


@pytest.mark.parametrize(
    ("path", "folders", "blobs"),
    [
        ("/", ["sales/"], ["salesman.csv", "top.csv"]),
        ("sales/", ["sales/2024/"], ["sales/a.csv", "sales/b.txt"]),
        ("sales/2024/", [], ["sales/2024/c.csv"]),
    ],
)
async def test_path_with_a_slash_at_its_end_shows_one_level(
    path: str,
    folders: list[str],
    blobs: list[str],
    tree: ContainerClient,
    connector: AzureBlobConnector,
) -> None:
    items = await connector.list_items(path)
    by_kind = {
        kind: sorted(item.path for item in items if item.metadata["kind"] == kind)
        for kind in ("folder", "blob")
    }
    assert by_kind == {"folder": folders, "blob": blobs}
    assert all(item.size for item in items if item.metadata["kind"] == "blob")


@pytest.mark.parametrize("path", ["nothing", "nothing/", "top.csv/"])
async def test_folder_that_is_not_there_is_an_error(
    path: str, tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    with pytest.raises(ItemNotFoundError, match="has nothing below"):
        await connector.list_items(path)


async def test_empty_container_lists_nothing(connector: AzureBlobConnector) -> None:
    assert await connector.list_items() == []
    assert await connector.list_items("/") == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("sales/*.csv", ["sales/a.csv"]),
        ("*.csv", ["salesman.csv", "top.csv"]),
        ("**/*.csv", ["sales/2024/c.csv", "sales/a.csv", "salesman.csv", "top.csv"]),
        ("sales/**", ["sales/2024/c.csv", "sales/a.csv", "sales/b.txt"]),
        ("sales/*/c.csv", ["sales/2024/c.csv"]),
        ("sales/[ab].*", ["sales/a.csv", "sales/b.txt"]),
        ("sale?", []),
        ("sales", []),
    ],
)
async def test_patterns_match_within_and_across_folders(
    pattern: str, expected: list[str], tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    assert paths(await connector.glob_items(pattern)) == expected


async def test_prefix_confines_the_source_and_starts_its_names(
    tree: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    connector = await connect(prefix="sales")
    assert sorted(paths(await connector.list_items())) == ["2024/c.csv", "a.csv", "b.txt"]
    assert paths(await connector.list_items("2024")) == ["2024/c.csv"]
    assert paths(await connector.glob_items("*.csv")) == ["a.csv"]
    assert await connector.fetch_data("2024/c.csv", str(tmp_path)) == str(
        tmp_path / "2024" / "c.csv"
    )
    assert (await connector.get_metadata("a.csv"))["path"] == "a.csv"
    for outside in ("top.csv", "../top.csv", "/top.csv", "sales/a.csv"):
        with pytest.raises(ItemNotFoundError):
            await connector.fetch_data(outside, str(tmp_path))
    item = await connector.upload_file(str(tmp_path / "2024" / "c.csv"), "new.csv")
    assert item.path == "new.csv"
    assert "sales/new.csv" in tree.list_blob_names()


async def test_metadata_tells_properties_metadata_and_tags(
    container: ContainerClient, connector: AzureBlobConnector
) -> None:
    container.upload_blob(
        "a/b.csv",
        b"x,y\n",
        metadata={"owner": "data", "Run_Id": "7"},
        tags={"project": "x y", "n": "1"},
        content_settings=ContentSettings("text/csv", "gzip", "de", cache_control="no-cache"),
    )
    properties = container.get_blob_client("a/b.csv").get_blob_properties()
    metadata = await connector.get_metadata("a/b.csv")
    assert metadata["name"] == "b.csv"
    assert metadata["path"] == "a/b.csv"
    assert metadata["size"] == 4
    assert metadata["modified_at"] == properties.last_modified.timestamp()
    assert metadata["created_at"] == properties.creation_time.timestamp()
    assert metadata["etag"] == properties.etag.strip('"')
    assert (metadata["content_type"], metadata["content_encoding"]) == ("text/csv", "gzip")
    assert (metadata["content_language"], metadata["cache_control"]) == ("de", "no-cache")
    assert (metadata["blob_type"], metadata["tier"]) == ("BlockBlob", "Hot")
    assert {key.lower(): value for key, value in metadata["metadata"].items()} == {
        "owner": "data",
        "run_id": "7",
    }
    assert metadata["tags"] == {"project": "x y", "n": "1"}


async def test_metadata_of_a_missing_blob_is_an_error(connector: AzureBlobConnector) -> None:
    with pytest.raises(
        ItemNotFoundError, match=r"blob 'a' of container .* does not exist"
    ) as caught:
        await connector.get_metadata("a")
    assert caught.value.code == "BlobNotFound"


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_003])
async def test_fetched_file_is_the_blob_with_its_etag(
    size: int, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    content = os.urandom(size)
    etag = container.upload_blob("data/file.bin", content).get_blob_properties().etag
    connector = await connect(**SMALL)
    seen: list[tuple[int, int | None]] = []
    workspace = Workspace(tmp_path, progress=lambda done, total: seen.append((done, total)))
    path = await connector.fetch_data("data/file.bin", workspace)
    assert path == str(tmp_path / "data" / "file.bin")
    assert Path(path).read_bytes() == content
    written = workspace.written[path]
    assert written.sha256 == hashlib.sha256(content).hexdigest()
    assert (written.size, written.version) == (size, etag.strip('"'))
    assert seen[-1:] == ([(size, size)] if size else [])


@pytest.mark.parametrize("size", [1000, 500_000])
async def test_gzip_encoded_blob_is_stored_as_it_is(
    size: int, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    stored = gzip.compress(os.urandom(size))
    container.upload_blob(
        "a.json", stored, content_settings=ContentSettings(content_encoding="gzip")
    )
    connector = await connect(**SMALL)
    assert Path(await connector.fetch_data("a.json", str(tmp_path))).read_bytes() == stored


async def test_missing_blob_leaves_nothing(connector: AzureBlobConnector, tmp_path: Path) -> None:
    with pytest.raises(ItemNotFoundError, match="blob 'no/such' of container 'test-"):
        await connector.fetch_data("no/such", str(tmp_path / "workspace"))
    assert list(tmp_path.iterdir()) == []


async def test_limit_ends_a_fetch_before_the_first_byte_is_written(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    container.upload_blob("big", bytes(MIB))
    connector = await connect(**SMALL)
    with pytest.raises(LimitExceededError, match="'big' has 1048576 bytes"):
        await connector.fetch_data("big", Workspace(tmp_path, limits=Limits(max_bytes=MIB - 1)))
    assert list(tmp_path.iterdir()) == []


async def test_damaged_content_is_an_error_and_leaves_nothing(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    wrong = ContentSettings(content_md5=bytearray(hashlib.md5(b"other").digest()))
    blob = container.upload_blob("a", bytes(200_000))
    blob.set_http_headers(wrong)
    connector = await connect(**SMALL)
    with pytest.raises(DataFetchError, match="'a' arrived damaged: its md5"):
        await connector.fetch_data("a", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_blob_changed_while_read_is_an_error(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    blob = container.upload_blob("a", bytes(4 * MIB))
    connector = await connect(chunk_size=64 * 1024, concurrency=1)
    changed = False

    def change(done: int, total: int | None) -> None:
        nonlocal changed
        if not changed:
            changed = True
            blob.upload_blob(b"x" * (4 * MIB), overwrite=True)

    with pytest.raises(DataFetchError, match=r"blob 'a' of .* changed while it was read") as caught:
        await connector.fetch_data("a", Workspace(tmp_path, progress=change))
    assert caught.value.code == "ConditionNotMet"
    assert list(tmp_path.iterdir()) == []


async def test_preview_has_the_first_rows(
    container: ContainerClient, connector: AzureBlobConnector
) -> None:
    container.upload_blob("a.csv", "a;b,c\n" + "1,zwei\n" * 20)
    container.upload_blob("big.csv", "a,b\n" + "1,2\n" * 500_000)
    container.upload_blob("empty.csv", b"")
    short = await connector.preview("a.csv", 3)
    assert short.columns == ("a;b", "c")
    assert (list(short.rows), short.truncated) == ([("1", "zwei")] * 3, True)
    assert (await connector.preview("big.csv")).rows == [("1", "2")] * 10
    assert (await connector.preview("empty.csv")).rows == []


async def test_cancelled_fetch_leaves_no_task_file_or_socket(
    azurite: AzuriteServer, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    container.upload_blob("big", bytes(16 * MIB))
    port = azurite.port
    sockets = _sockets(port)
    connector = await connect(chunk_size=MIB)
    before = asyncio.all_tasks()
    task: asyncio.Task[str]

    def cancel(done: int, total: int | None) -> None:
        if done > 3 * MIB:
            task.cancel()

    task = asyncio.create_task(connector.fetch_data("big", Workspace(tmp_path, progress=cancel)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
    assert list(tmp_path.iterdir()) == []
    await connector.disconnect()
    # Transports close in the next rounds of the loop; the server ends idle connections of others.
    await wait_until(lambda: _sockets(port) <= sockets)


def _sockets(port: int) -> set[int]:
    """Return the local ports of this process's connections to a port."""
    connections = psutil.Process().net_connections("tcp")
    return {
        connection.laddr.port
        for connection in connections
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == port
    }


async def test_many_fetches_at_once_share_the_session(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    contents = {f"f{number}": os.urandom(100_000 + number) for number in range(30)}
    for name, content in contents.items():
        container.upload_blob(name, content)
    connector = await connect(**SMALL)
    await asyncio.gather(*(connector.fetch_data(name, str(tmp_path)) for name in contents))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents


NAMES = [
    "..",
    ".",
    "../x",
    "a/../../b",
    "./c",
    "d/.",
    "/lead",
    "//two",
    "e//f",
    "trail/",
    "dot.",
    "100%",
    "p%41",
    "%2F",
    "%2e%2e",
    "ü",
    "u\u0308",
    "日本/語.csv",
    "🦆",
    "sp ace",
    " lead",
    "plus+",
    "q?x=1",
    "h#x",
    "a&b=c;d",
    "qu'o\"te",
    "<tag>",
    "~t",
    "con:",
    "A",
    "[x]",
    "*",
    "end ",
    "a /b ",
    " ",
    "dots...",
    "a./b.",
    "?snapshot=x/a",
    "$root",
    "nul",
    "\u200b",
    "a" * 255,
    "/".join(["seg" * 20] * 16)[:1024],
    "-rf",
    "tab\tx",
]


@pytest.mark.parametrize("name", NAMES)
async def test_odd_name_is_listed_and_fetched_inside_the_workspace(
    name: str, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    await _put(connector, name, b"content")
    if name.isprintable():
        assert paths(await connector.list_items()) == [name]
    workspace = tmp_path / "inner" / "workspace"
    path = Path(await connector.fetch_data(name, str(workspace)))
    assert path.read_bytes() == b"content"
    assert path.resolve().is_relative_to(workspace)
    assert (await connector.get_metadata(name))["path"] == name


async def test_name_that_no_file_can_have_is_a_clear_error(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    name = "x" * 1024
    container.upload_blob(name, b"1")
    assert paths(await connector.list_items()) == [name]
    with pytest.raises(DataFetchError, match="segment over 255 bytes"):
        await connector.fetch_data(name, str(tmp_path))


async def test_twins_give_distinct_files(connector: AzureBlobConnector, tmp_path: Path) -> None:
    twins = ["a/b", "a//b", "/a/b", "a%2Fb", "a/./b", "a/../b", "A/b", "ü", "u\u0308"]
    for name in twins:
        await _put(connector, name, name.encode())
    fetched = [await connector.fetch_data(name, str(tmp_path)) for name in twins]
    assert len(set(fetched)) == len(twins)
    assert [Path(path).read_bytes().decode() for path in fetched] == twins


async def test_blob_that_is_also_a_folder_is_a_clear_error_in_the_same_workspace(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    container.upload_blob("a", b"blob")
    container.upload_blob("a/b", b"below")
    await connector.fetch_data("a/b", str(tmp_path / "1"))
    with pytest.raises(DataFetchError, match="a folder of that name is in the workspace"):
        await connector.fetch_data("a", str(tmp_path / "1"))
    await connector.fetch_data("a", str(tmp_path / "2"))
    items = await connector.list_items("/")
    assert sorted((item.path, item.metadata["kind"]) for item in items) == [
        ("a", "blob"),
        ("a/", "folder"),
    ]


async def test_backslash_is_a_slash_as_azurite_has_it(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    container.upload_blob("back\\slash", b"content")
    assert paths(await connector.list_items()) == ["back/slash"]
    path = Path(await connector.fetch_data("back\\slash", str(tmp_path)))
    assert path.read_bytes() == b"content"
    assert path.parent == tmp_path


async def test_blob_outside_is_not_reached_through_dots(
    container: ContainerClient, connect: Connect, tmp_path: Path, account: Any
) -> None:
    container.upload_blob("inside/a", b"1")
    container.upload_blob("outside", b"2")
    connector = await connect(prefix="inside")
    other = f"../../{container.container_name}/outside"
    for name in ("../outside", other, "%2e%2e/outside", "..%2Foutside", "..\\outside"):
        with pytest.raises(ItemNotFoundError):
            await connector.fetch_data(name, str(tmp_path))
        with pytest.raises(ItemNotFoundError):
            await connector.get_metadata(name)


async def _put(connector: AzureBlobConnector, name: str, content: bytes) -> None:
    """Store a blob under a name that the SDK cannot send."""
    from yarl import URL

    from datasources.objects import quote_name
    from datasources_azure_blob.authorization import API_VERSION, Request

    service = connector._service
    path = f"{service._path}/{quote_name(name)}"
    headers = {
        "Content-Length": str(len(content)),
        "Content-Type": "text/plain",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-version": API_VERSION,
    }
    await service.authorization.apply(Request("PUT", path, {}, headers))
    url = URL(service._origin + path, encoded=True)
    async with service.session.put(url, headers=headers, data=content) as response:
        assert response.status == 201, await response.text()
