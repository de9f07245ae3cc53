"""Snapshots, from Azurite, and versions, which only the loopback service knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from datasources import DataFetchError, ItemNotFoundError, PermissionDeniedError, Workspace
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import Connect
from tests.azure_blob.test_connecting import container_sas
from tests.servers import AzuriteServer
from tests.servers.blob_server import Blob, BlobService

THEN = "2023-11-14T10:00:00.1234567Z"
BEFORE = "2023-11-13T10:00:00.1234567Z"


@pytest.fixture
def snapshots(container: ContainerClient) -> list[str]:
    """The times at which `folder/a.csv` had one line, and two; it has three now."""
    times = []
    for lines in (1, 2, 3):
        blob = container.upload_blob(
            "folder/a.csv", b"x,y\n" + b"1,2\n" * lines, overwrite=True, metadata={"n": str(lines)}
        )
        if lines < 3:
            times.append(str(blob.create_snapshot()["snapshot"]))
    container.upload_blob("folder/a.csv.bak", b"")
    return times


async def test_snapshots_are_listed_described_previewed_and_fetched(
    snapshots: list[str], connector: AzureBlobConnector, tmp_path: Path
) -> None:
    identifiers = [f"?snapshot={time}/folder/a.csv" for time in snapshots]
    kept = await connector.list_versions("folder/a.csv")
    assert [(item.path, item.size, item.metadata["kind"]) for item in kept] == [
        (identifiers[0], 8, "snapshot"),
        (identifiers[1], 12, "snapshot"),
    ]
    assert (await connector.get_metadata("folder/a.csv"))["snapshots"] == identifiers
    for lines, (identifier, item) in enumerate(zip(identifiers, kept, strict=True), 1):
        metadata = await connector.get_metadata(identifier)
        assert (metadata["size"], metadata["metadata"]) == (item.size, {"n": str(lines)})
        assert metadata["name"] == item.name == "a.csv"
        assert len((await connector.preview(identifier)).rows) == lines
        workspace = Workspace(tmp_path)
        path = await connector.fetch_data(identifier, workspace)
        assert path == str(tmp_path / identifier)
        assert Path(path).read_bytes() == b"x,y\n" + b"1,2\n" * lines
        assert workspace.written[path].version == item.version == metadata["etag"]
    now = await connector.fetch_data("folder/a.csv", str(tmp_path))
    assert Path(now).read_bytes() == b"x,y\n" + b"1,2\n" * 3


async def test_listings_are_of_blobs_as_they_are_now(
    snapshots: list[str], connector: AzureBlobConnector
) -> None:
    items = await connector.list_items()
    assert [item.path for item in items] == ["folder/a.csv", "folder/a.csv.bak"]
    assert "snapshots" not in await connector.get_metadata("folder/a.csv.bak")
    assert await connector.list_versions("folder/a.csv.bak") == []
    with pytest.raises(ItemNotFoundError):
        await connector.list_versions("folder/b.csv")


async def test_snapshots_below_a_prefix_are_in_its_names(
    snapshots: list[str], connect: Connect, tmp_path: Path
) -> None:
    connector = await connect(prefix="folder")
    identifier = f"?snapshot={snapshots[0]}/a.csv"
    assert (await connector.list_versions("a.csv"))[0].path == identifier
    path = await connector.fetch_data(identifier, str(tmp_path))
    assert Path(path).stat().st_size == 8
    with pytest.raises(ItemNotFoundError):
        await connector.fetch_data(f"?snapshot={snapshots[0]}/folder/a.csv", str(tmp_path))


async def test_snapshot_that_is_not_there_is_named(
    snapshots: list[str], connector: AzureBlobConnector, tmp_path: Path
) -> None:
    identifier = f"?snapshot={THEN}/folder/a.csv"
    with pytest.raises(ItemNotFoundError, match=r"blob '\?snapshot=.*/folder/a\.csv' of"):
        await connector.fetch_data(identifier, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_blob_of_exactly_such_a_name_goes_first(
    snapshots: list[str],
    container: ContainerClient,
    connector: AzureBlobConnector,
    tmp_path: Path,
) -> None:
    identifier = f"?snapshot={snapshots[0]}/folder/a.csv"
    container.upload_blob(identifier, b"a blob like any other")
    path = await connector.fetch_data(identifier, str(tmp_path))
    assert Path(path).read_bytes() == b"a blob like any other"


async def test_who_may_not_list_is_told_all_but_snapshots(
    snapshots: list[str], azurite: AzuriteServer, container: ContainerClient, connect: Connect
) -> None:
    connector = await connect(
        account_url=azurite.blob_endpoint, sas_token=container_sas(azurite, container, "r")
    )
    metadata = await connector.get_metadata("folder/a.csv")
    assert metadata["size"] == 16
    assert "snapshots" not in metadata
    with pytest.raises(PermissionDeniedError):
        await connector.list_versions("folder/a.csv")


@pytest.mark.parametrize("name", ["a.csv", "x/../a.csv"])
async def test_versions_are_listed_described_and_fetched(
    name: str, service: BlobService, local: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put(name, b"now").versions = {BEFORE: Blob(b"first"), THEN: Blob(b"second")}
    identifiers = [f"?versionid={time}/{name}" for time in (BEFORE, THEN)]
    metadata = await local.get_metadata(name)
    assert metadata["versions"] == identifiers
    assert [item.path for item in await local.list_versions(name)] == identifiers
    fetched = [
        await local.fetch_data(identifier, str(tmp_path)) for identifier in (*identifiers, name)
    ]
    assert [Path(path).read_bytes() for path in fetched] == [b"first", b"second", b"now"]
    assert (await local.get_metadata(identifiers[0]))["version_id"] == BEFORE
    assert [item.path for item in await local.list_items()] == [name]


async def test_service_without_versions_does_not_pass_off_the_blob_for_one(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    container.upload_blob("a", b"now")
    for use in (connector.get_metadata, lambda name: connector.fetch_data(name, str(tmp_path))):
        with pytest.raises((ItemNotFoundError, DataFetchError)):
            await use(f"?versionid={THEN}/a")
    assert list(tmp_path.iterdir()) == []
