"""A page of a listing at a time, and what a listing says about versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from datasources import ConnectError, DataItem, ItemNotFoundError, OptionError, Workspace
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import Connect
from tests.servers.blob_server import BlobService

NAMES = sorted(["top.csv", "ü/1", *(f"a/{n:02}.csv" for n in range(7)), "a/deep/1", "a/deep/2"])


@pytest.fixture
def tree(container: ContainerClient) -> ContainerClient:
    for name in NAMES:
        container.upload_blob(name, b"x")
    return container


async def pages(
    connector: AzureBlobConnector, path: str | None, limit: int
) -> list[list[DataItem]]:
    collected: list[list[DataItem]] = []
    continuation = None
    while True:
        items, continuation = await connector.list_page(
            path, limit=limit, continuation=continuation
        )
        collected.append(items)
        if continuation is None:
            return collected


def _path(item: DataItem) -> str:
    return item.path


@pytest.mark.parametrize("path", [None, "/", "a", "a/", "ü"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_in_a_row_are_the_listing(
    path: str | None, limit: int, tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    collected = await pages(connector, path, limit)
    together = [item for page in collected for item in page]
    # Azurite puts the folders of each page first.
    assert sorted(together, key=_path) == sorted(await connector.list_items(path), key=_path)
    assert all(len(page) == limit for page in collected[:-1])
    assert len(collected[-1]) <= limit


async def test_another_connector_goes_on_where_one_stopped(
    tree: ContainerClient, connector: AzureBlobConnector, connect: Connect
) -> None:
    first, continuation = await connector.list_page("a", limit=4)
    rest, end = await (await connect()).list_page("a", limit=100, continuation=continuation)
    assert [item.path for item in first + rest] == [name for name in NAMES if name[:2] == "a/"]
    assert end is None


async def test_pages_of_a_prefix_are_in_its_names(tree: ContainerClient, connect: Connect) -> None:
    connector = await connect(prefix="a")
    collected = await pages(connector, "/", 3)
    assert sorted(item.path for page in collected for item in page) == [
        *[f"{number:02}.csv" for number in range(7)],
        "deep/",
    ]


@pytest.mark.parametrize("damage", ["+", "/", "!", "\n", "AA==AA=="])
async def test_continuation_with_other_characters_than_ours_is_an_error(
    damage: str, tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    _, continuation = await connector.list_page("a", limit=2)
    assert continuation is not None
    damaged = continuation[:20] + damage + continuation[20:]
    with pytest.raises(OptionError, match="the continuation is not of this listing"):
        await connector.list_page("a", limit=2, continuation=damaged)


@pytest.mark.parametrize("other", [None, "/", "a/deep"])
async def test_continuation_of_another_listing_is_an_error(
    other: str | None, tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    _, continuation = await connector.list_page("a", limit=2)
    assert continuation is not None
    for wrong in (continuation, "", "nonsense", continuation[:17], continuation[:-1] + "é"):
        with pytest.raises(OptionError, match="the continuation is not of this listing"):
            await connector.list_page(other, limit=2, continuation=wrong)


async def test_continuation_of_another_container_is_an_error(
    tree: ContainerClient, connector: AzureBlobConnector, connect: Connect
) -> None:
    _, continuation = await connector.list_page("a", limit=2)
    async with BlobService() as service:
        other = await connect(account_url=service.url, credential="anonymous")
        with pytest.raises(OptionError, match="not of this listing"):
            await other.list_page("a", limit=2, continuation=continuation)


@pytest.mark.parametrize("limit", [0, -1])
async def test_page_of_nothing_is_an_error(limit: int, connector: AzureBlobConnector) -> None:
    with pytest.raises(OptionError, match="'limit' must be at least 1"):
        await connector.list_page(limit=limit)


async def test_page_of_a_folder_that_is_not_there_is_an_error(
    tree: ContainerClient, connector: AzureBlobConnector
) -> None:
    with pytest.raises(ItemNotFoundError, match="has nothing below 'nothing'"):
        await connector.list_page("nothing", limit=5)
    assert await connector.list_page(limit=100) == (await connector.list_items(), None)


async def test_limit_over_the_services_page_takes_several_and_asks_for_no_more(
    service: BlobService, local: AzureBlobConnector
) -> None:
    for number in range(12_000):
        service.put(f"{number:05}", b"x")
    items, continuation = await local.list_page(limit=5_010)
    assert [item.path for item in items] == [f"{number:05}" for number in range(5_010)]
    assert [request.query["maxresults"] for request in service.requests] == ["5000", "10"]
    rest = await local.list_page(limit=10_000, continuation=continuation)
    assert (len(rest[0]), rest[0][0].path, rest[1]) == (6_990, "05010", None)


async def test_pages_that_have_less_than_asked_for_are_filled_up(
    service: BlobService, local: AzureBlobConnector
) -> None:
    for number in range(20):
        service.put(f"{number:02}d", b"", properties="<ResourceType>directory</ResourceType>")
        service.put(f"{number:02}f", b"")
    collected = await pages(local, None, 3)
    assert [len(page) for page in collected] == [3] * 6 + [2]


async def test_listing_that_does_not_go_on_is_an_error(
    service: BlobService, local: AzureBlobConnector
) -> None:
    for number in range(6_000):
        service.put(f"{number:05}", b"")
    first = service.page({"maxresults": "5000"})
    service.page = lambda query: first  # type: ignore[method-assign]
    with pytest.raises(ConnectError, match="does not go on"):
        await local.list_items()


async def test_every_listing_tells_the_version_that_a_fetch_receives(
    tree: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    tree.upload_blob("quo\"t'e.csv", b"1")
    listed = await connector.list_items()
    versions = {item.path: item.version for item in listed}
    for name, version in versions.items():
        workspace = Workspace(tmp_path)
        path = await connector.fetch_data(name, workspace)
        assert workspace.written[path].version == version
        assert (await connector.get_metadata(name))["etag"] == version
    assert None not in versions.values()
    (page, _), globbed = await connector.list_page(limit=100), await connector.glob_items("**")
    one_level = await connector.list_items("a/")
    for items in (page, globbed, [item for item in one_level if item.path != "a/deep/"]):
        assert {item.path: item.version for item in items}.items() <= versions.items()
    assert [item.version for item in one_level if item.path == "a/deep/"] == [None]
    (tmp_path / "new").write_bytes(b"new")
    stored = await connector.upload_file(str(tmp_path / "new"), "top.csv")
    (again,) = await connector.glob_items("top.csv")
    assert again.version == stored.version != versions["top.csv"]
