"""Blobs that change during a fetch, and blobs of every type, on Azurite."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import (
    AccessPolicy,
    BlobServiceClient,
    BlobType,
    ContainerClient,
    ContentSettings,
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
from datasources_azure_blob import AzureBlobConnector
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

    def expire_in(hours: int) -> None:
        expiry = datetime.now(UTC) + timedelta(hours=hours)
        container.set_container_access_policy({"policy": AccessPolicy("rl", expiry)})

    expire_in(1)
    sas = generate_container_sas(
        azurite.account_name, container.container_name, azurite.account_key, policy_id="policy"
    )
    connector = await connect(account_url=azurite.blob_endpoint, sas_token=sas, **SMALL)
    progress = at_half(lambda: expire_in(-1))
    with pytest.raises(AuthenticationError, match=r"blob 'a' of .*refuses the cred") as caught:
        await connector.fetch_data("a", Workspace(tmp_path, progress=progress))
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


@pytest.mark.parametrize("kind", ["append", "page"])
async def test_blob_that_was_written_to_after_its_md5_was_set_is_fetched(
    kind: str, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    blob = container.get_blob_client("log")
    first, second = b"1" * 512, b"2" * 512
    settings = ContentSettings(content_md5=bytearray(hashlib.md5(first).digest()))
    if kind == "append":
        blob.create_append_blob(content_settings=settings)
        blob.append_block(first)
        blob.append_block(second)
    else:
        blob.create_page_blob(1024, content_settings=settings)
        blob.upload_page(first + second, 0, 1024)
    path = await connector.fetch_data("log", str(tmp_path))
    assert Path(path).read_bytes() == first + second


async def test_block_blob_with_a_wrong_md5_is_fetched_with_the_check_off(
    container: ContainerClient, connect: Connect, tmp_path: Path
) -> None:
    wrong = ContentSettings(content_md5=bytearray(hashlib.md5(b"other").digest()))
    blob = container.upload_blob("a", b"content")
    blob.set_http_headers(wrong)
    connector = await connect()
    with pytest.raises(DataFetchError, match=r"its md5 is not .*; if it .*'check_md5' = false"):
        await connector.fetch_data("a", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    unchecking = await connect(check_md5=False)
    assert Path(await unchecking.fetch_data("a", str(tmp_path))).read_bytes() == b"content"
