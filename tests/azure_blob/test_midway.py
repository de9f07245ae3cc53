"""Blobs that change during a fetch, and blobs of every type, on Azurite."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import (
    BlobServiceClient,
    BlobType,
    ContainerClient,
    ContainerSasPermissions,
    StandardBlobTier,
    generate_container_sas,
)

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    PermissionDeniedError,
    Workspace,
)
from tests.azure_blob.conftest import Connect
from tests.servers import AzuriteServer

SIZE = 2_000_000
SMALL = {"chunk_size": 64 * 1024, "concurrency": 1}


def at_half(action: Callable[[], Any]) -> Callable[[int, int | None], None]:
    """Return a progress callback that acts once, half-way."""
    pending = [action]

    def progress(done: int, total: int | None) -> None:
        if done > SIZE // 2 and pending:
            pending.pop()()

    return progress


async def test_sas_that_expires_midway_is_an_authentication_error(
    azurite: AzuriteServer, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    container.upload_blob("a", bytes(SIZE))
    expiry = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    sas = generate_container_sas(
        azurite.account_name,
        container.container_name,
        azurite.account_key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=expiry,
    )
    connector = await connect(account_url=azurite.blob_endpoint, sas_token=sas, **SMALL)

    def wait() -> None:
        while datetime.now(UTC) <= expiry:
            time.sleep(0.05)

    with pytest.raises(AuthenticationError, match=r"blob 'a' of .*refuses the cred") as caught:
        await connector.fetch_data("a", Workspace(tmp_path, progress=at_half(wait)))
    assert sas not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("gone", "kind", "code"),
    [
        ("container", ConnectError, "ContainerNotFound"),
        ("blob", DataFetchError, "ConditionNotMet"),  # its ETag is not there, Azurite says
    ],
)
async def test_what_is_deleted_midway_is_named(
    gone: str,
    kind: type[ConnectorError],
    code: str,
    account: BlobServiceClient,
    connect: Connect,
    tmp_path: Path,
) -> None:
    other = account.create_container(f"test-{secrets.token_hex(6)}")
    blob = other.upload_blob("a", bytes(SIZE))
    connector = await connect(container=other.container_name, **SMALL)
    delete = other.delete_container if gone == "container" else blob.delete_blob
    with pytest.raises(kind, match=f"^blob 'a' of container '{other.container_name}'") as caught:
        await connector.fetch_data("a", Workspace(tmp_path, progress=at_half(delete)))
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []
    if gone == "blob":
        other.delete_container()


@pytest.mark.parametrize("kind", [BlobType.APPENDBLOB, BlobType.PAGEBLOB, BlobType.BLOCKBLOB])
async def test_blob_of_every_kind_is_fetched(
    kind: BlobType, container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    content = os.urandom(512 * 400)
    container.upload_blob("a", content, blob_type=kind, length=len(content))
    connector = await connect(**SMALL)
    path = await connector.fetch_data("a", str(tmp_path))
    assert Path(path).read_bytes() == content
    assert (await connector.get_metadata("a"))["blob_type"] == kind.value


async def test_append_blob_that_grows_midway_is_an_error_never_a_mixture(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    blob = container.upload_blob("a", bytes(SIZE), blob_type=BlobType.APPENDBLOB)
    connector = await connect(**SMALL)
    grow = at_half(lambda: blob.append_block(b"more"))
    with pytest.raises(DataFetchError, match="changed while it was read"):
        await connector.fetch_data("a", Workspace(tmp_path, progress=grow))
    assert list(tmp_path.iterdir()) == []


async def test_archived_blob_is_a_clear_error(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    blob = container.upload_blob("a", b"content")
    blob.set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    connector = await connect()
    with pytest.raises(DataFetchError, match=r"blob 'a' of .* in the archive tier; rehydrate"):
        await connector.fetch_data("a", str(tmp_path))
    assert (await connector.get_metadata("a"))["tier"] == "Archive"
    (item,) = await connector.list_items()
    assert item.metadata["tier"] == "Archive"


async def test_leased_blob_is_read_and_not_overwritten(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    blob = container.upload_blob("a", b"content")
    lease = blob.acquire_lease()
    connector = await connect()
    path = await connector.fetch_data("a", str(tmp_path))
    assert (await connector.get_metadata("a"))["lease_state"] == "leased"
    with pytest.raises(PermissionDeniedError, match="leased by someone else"):
        await connector.upload_file(path)
    lease.release()


async def test_root_container_is_a_source(
    account: BlobServiceClient, connect: Connect, tmp_path: Path
) -> None:
    root = account.create_container("$root")
    try:
        root.upload_blob("a b.txt", b"content")
        connector = await connect(container="$root")
        assert [item.path for item in await connector.list_items()] == ["a b.txt"]
        path = await connector.fetch_data("a b.txt", str(tmp_path))
        assert Path(path).read_bytes() == b"content"
        await connector.upload_file(path, "back.txt")
        assert root.download_blob("back.txt").readall() == b"content"
    finally:
        root.delete_container()
