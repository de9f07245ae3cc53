"""Folders: those of a hierarchical namespace, and those that only a marker blob or a name makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from datasources import (
    DataItem,
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    ItemNotFoundError,
)
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import Connect, make
from tests.servers import AzuriteServer
from tests.servers.blob_server import BlobService, Fault

IS_FOLDER = {"hdi_isfolder": "true"}


def paths(items: Sequence[DataItem]) -> list[str]:
    return sorted(item.path for item in items)


@pytest.fixture(params=["with hdi_isfolder", "empty blob", "name with slash"])
def tree(request: pytest.FixtureRequest, container: ContainerClient) -> ContainerClient:
    """A folder `sales` with a marker, names that sort between both, and empty files."""
    marker = "sales/" if request.param == "name with slash" else "sales"
    metadata = IS_FOLDER if request.param == "with hdi_isfolder" else None
    container.upload_blob(marker, b"", metadata=metadata)
    for name in ["sales-old.csv", "sales.csv", "sales/part-0.csv", "sales/part-1.csv", "zero"]:
        container.upload_blob(name, b"a\n1\n")
    for name in ["sales/_SUCCESS", "empty.csv", "sales-", "zero.csv"]:
        container.upload_blob(name, b"")
    return container


FILES = [
    "empty.csv",
    "sales-",
    "sales-old.csv",
    "sales.csv",
    "sales/_SUCCESS",
    "sales/part-0.csv",
    "sales/part-1.csv",
    "zero",
    "zero.csv",
]


async def test_marker_of_a_folder_is_no_file(
    tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    assert paths(await connector.list_items()) == FILES
    assert paths(await connector.glob_items("**")) == FILES
    assert paths(await connector.glob_items("sales*")) == ["sales-", "sales-old.csv", "sales.csv"]
    below = ["sales/_SUCCESS", "sales/part-0.csv", "sales/part-1.csv"]
    assert paths(await connector.list_items("sales")) == below
    assert paths(await connector.list_items("sales/")) == below
    assert paths(await connector.list_items("/")) == [
        "empty.csv",
        "sales-",
        "sales-old.csv",
        "sales.csv",
        "sales/",
        "zero",
        "zero.csv",
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("path", [None, "/", "sales/"])
async def test_marker_is_recognized_wherever_a_page_ends(
    path: str | None, limit: int, tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    collected: list[DataItem] = []
    continuation = None
    while True:
        items, continuation = await connector.list_page(
            path, limit=limit, continuation=continuation
        )
        collected += items
        if continuation is None:
            break
    assert paths(collected) == paths(await connector.list_items(path))


async def test_whole_tree_with_markers_is_fetched(
    tree: ContainerClient, azurite: AzuriteServer, tmp_path: Path
) -> None:
    options = {
        "connection_string": azurite.connection_string,
        "container": tree.container_name,
    }
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(
            DataSourceConfig("lake", DataSourceType.AZURE_BLOB, "Lake", options)
        )
        results = await registry.fetch_tree("lake", None, str(tmp_path))
    assert {result.request.identifier: result.error for result in results} == dict.fromkeys(FILES)


async def test_folder_is_no_blob_to_fetch_preview_or_describe(
    tree: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    for identifier in ("sales", "sales/"):
        calls: list[Any] = [
            connector.fetch_data(identifier, str(tmp_path / "workspace")),
            connector.preview(identifier),
            connector.get_metadata(identifier),
        ]
        for call in calls:
            with pytest.raises(ItemNotFoundError, match=f"blob {identifier!r} .*: it is a folder"):
                await call
    assert not (tmp_path / "workspace").exists()
    await connector.fetch_data("empty.csv", str(tmp_path))
    assert (tmp_path / "empty.csv").read_bytes() == b""


async def test_folder_without_marker_is_named_as_one(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    container.upload_blob("deep/down/a.csv", b"x")
    for identifier in ("deep", "deep/down"):
        with pytest.raises(ItemNotFoundError, match="it is a folder"):
            await connector.fetch_data(identifier, str(tmp_path))
    for identifier in ("dee", "dee/", "deep/down/a"):
        with pytest.raises(ItemNotFoundError, match="it does not exist"):
            await connector.fetch_data(identifier, str(tmp_path))


@pytest.mark.parametrize("marker", ["hdi_isfolder", "slash"])
async def test_empty_folder_is_a_folder_with_nothing_below(
    marker: str, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    name = "empty/" if marker == "slash" else "empty"
    container.upload_blob(name, b"", metadata=IS_FOLDER if marker == "hdi_isfolder" else None)
    assert await connector.list_items() == []
    assert paths(await connector.list_items("/")) == ["empty/"]
    assert await connector.list_items("empty") == []
    assert await connector.list_items("empty/") == []
    assert await connector.list_page("empty/", limit=5) == ([], None)
    with pytest.raises(ItemNotFoundError, match="it is a folder"):
        await connector.fetch_data("empty", str(tmp_path))
    with pytest.raises(ItemNotFoundError, match="has nothing below 'other'"):
        await connector.list_items("other")


async def test_blob_with_content_is_a_file_whatever_it_is_called(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    container.upload_blob("both", b"content", metadata=IS_FOLDER)
    container.upload_blob("both/below", b"content")
    container.upload_blob("slash/", b"content")
    connector = await connect()
    assert paths(await connector.list_items()) == ["both", "both/below", "slash/"]
    for name in ("both", "slash/"):
        path = await connector.fetch_data(name, str(tmp_path / "workspace"))
        assert Path(path).read_bytes() == b"content"


async def test_marker_of_the_sources_own_prefix_is_no_item(
    container: ContainerClient, connect: Connect
) -> None:
    container.upload_blob("exports", b"", metadata=IS_FOLDER)
    container.upload_blob("exports/", b"")
    container.upload_blob("exports/a.csv", b"x")
    connector = await connect(prefix="exports")
    assert paths(await connector.list_items()) == ["a.csv"]
    assert paths(await connector.list_items("/")) == ["a.csv"]


# From version 2020-06-12 on, with a hierarchical namespace, BlobPrefix has Properties.
DIRECTORY = """<Properties><Creation-Time>Mon, 23 Nov 2026 03:45:22 GMT</Creation-Time>
    <Etag>0x1</Etag><ResourceType>directory</ResourceType><Content-Length>0</Content-Length>
    </Properties>"""
FILE = (
    "<Properties><ResourceType>file</ResourceType><Content-Length>4</Content-Length></Properties>"
)


def listing(*entries: str, marker: str = "") -> bytes:
    return (
        f"<EnumerationResults><Blobs>{''.join(entries)}</Blobs><NextMarker>{marker}</NextMarker>"
        "</EnumerationResults>"
    ).encode()


async def test_level_of_a_hierarchical_namespace_has_its_folders(
    service: BlobService, local: AzureBlobConnector
) -> None:
    service.page = lambda query: listing(  # type: ignore[method-assign]
        f"<BlobPrefix><Name>reports/</Name>{DIRECTORY}</BlobPrefix>",
        f"<Blob><Name>a.csv</Name>{FILE}</Blob>",
    )
    for items in (await local.list_items("/"), (await local.list_page("/", limit=9))[0]):
        assert [(item.path, item.metadata["kind"]) for item in items] == [
            ("reports/", "folder"),
            ("a.csv", "blob"),
        ]


async def test_directories_of_a_hierarchical_namespace_are_not_items(
    service: BlobService, local: AzureBlobConnector
) -> None:
    service.put("a", b"", properties="<ResourceType>directory</ResourceType>")
    service.put("a/b", b"", properties="<ResourceType>file</ResourceType>")
    assert paths(await local.list_items()) == ["a/b"]


async def test_directory_of_a_hierarchical_namespace_is_not_fetched(
    service: BlobService, local: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a", b"", **{"x-ms-resource-type": "directory"})
    with pytest.raises(ItemNotFoundError, match="blob 'a' of container 'data': it is a folder"):
        await local.fetch_data("a", str(tmp_path))


async def test_empty_file_is_fetched_where_listing_is_not_allowed(
    service: BlobService, tmp_path: Path
) -> None:
    service.put("empty.csv", b"")
    service.fault = lambda request: (
        None if request.blob else Fault(status=403, code="AuthorizationPermissionMismatch")
    )
    connector = make({"account_url": service.url, "container": "data", "credential": "anonymous"})
    await connector.connect()
    path = await connector.fetch_data("empty.csv", str(tmp_path))
    assert Path(path).read_bytes() == b""
    await connector.disconnect()
