"""Files back into the container."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from datasources import ConnectorError, DataFetchError
from datasources_azure_blob import AzureBlobConnector
from tests.azure_blob.conftest import Connect
from tests.servers import AzuriteServer


@pytest.mark.parametrize("size", [0, 10, 4 * 1024 * 1024, 13_000_001])
async def test_uploaded_blob_is_the_file(
    size: int, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    file = tmp_path / "results.csv"
    file.write_bytes(os.urandom(size))
    item = await connector.upload_file(str(file), "out/results.csv")
    properties = container.get_blob_client("out/results.csv").get_blob_properties()
    assert container.download_blob("out/results.csv").readall() == file.read_bytes()
    assert (item.name, item.path, item.size) == ("results.csv", "out/results.csv", size)
    assert item.modified_at == properties.last_modified.timestamp()
    assert item.metadata["etag"] == item.version == properties.etag.strip('"')
    assert properties.content_settings.content_type == "text/csv"
    # Readers, ours among them, can check what they receive.
    digest = bytes(properties.content_settings.content_md5 or b"")
    assert digest == hashlib.md5(file.read_bytes()).digest()


async def test_name_is_the_files_own_by_default(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    (tmp_path / "a.unknown").write_bytes(b"1")
    assert (await connector.upload_file(str(tmp_path / "a.unknown"))).path == "a.unknown"
    properties = container.get_blob_client("a.unknown").get_blob_properties()
    assert properties.content_settings.content_type == "application/octet-stream"


@pytest.mark.parametrize("size", [10, 9_000_000])
async def test_existing_blob_stays_without_overwrite(
    size: int, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    container.upload_blob("a", b"old")
    (tmp_path / "new").write_bytes(bytes(size))
    with pytest.raises(DataFetchError, match=r"blob 'a' of .*exists already") as caught:
        await connector.upload_file(str(tmp_path / "new"), "a", overwrite=False)
    assert caught.value.code == "BlobAlreadyExists"
    assert container.download_blob("a").readall() == b"old"
    await connector.upload_file(str(tmp_path / "new"), "a")
    assert container.download_blob("a").readall() == bytes(size)


@pytest.mark.parametrize("size", [10, 5_000_000])
async def test_of_two_uploads_at_once_without_overwrite_one_wins(
    size: int, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    files = [tmp_path / str(number) for number in range(5)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * size)
    results = await asyncio.gather(
        *(connector.upload_file(str(file), "a", overwrite=False) for file in files),
        return_exceptions=True,
    )
    won = [number for number, result in enumerate(results) if not isinstance(result, Exception)]
    assert len(won) == 1
    assert container.download_blob("a").readall() == files[won[0]].read_bytes()
    assert sum(isinstance(result, DataFetchError) for result in results) == 4


@pytest.mark.parametrize("name", ["ünï cöde/ü.txt", "100%", "p%41", "/lead", "a//b", "q?x#y", " "])
async def test_odd_name_is_stored_as_given(
    name: str, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"content")
    await connector.upload_file(str(tmp_path / "a"), name)
    assert list(container.list_blob_names()) == [name]


@pytest.mark.parametrize("name", ["../other/a", "a/../b", "..", "."])
async def test_name_that_could_lead_elsewhere_is_refused(
    name: str, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with pytest.raises(DataFetchError, match="cannot be stored"):
        await connector.upload_file(str(tmp_path / "a"), name)
    assert list(container.list_blob_names()) == []


async def test_cancelled_upload_leaves_no_task_and_no_blob(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(40_000_000))
    await connector.upload_file(str(tmp_path / "a"), "warm")
    for delay in (0.0, 0.01, 0.05):
        before = asyncio.all_tasks()
        task = asyncio.create_task(connector.upload_file(str(tmp_path / "a"), "a"))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == before
    assert list(container.list_blob_names()) == ["warm"]


async def test_pipe_or_folder_is_not_uploaded(
    connector: AzureBlobConnector, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataFetchError, match="not a regular file"):
            await connector.upload_file(str(path), "a")


async def test_missing_local_file_is_an_error(connector: AzureBlobConnector) -> None:
    with pytest.raises(DataFetchError, match="cannot read '/no/such/file': No such file"):
        await connector.upload_file("/no/such/file")


@pytest.mark.parametrize("size", [0, 10, 13_000_001])
async def test_progress_goes_up_to_the_files_size(
    size: int, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(size))
    seen: list[tuple[int, int]] = []
    await connector.upload_file(
        str(tmp_path / "a"), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)
    assert len(seen) == (4 if size > 4 * 1024 * 1024 else 1)


async def test_error_of_the_progress_callback_ends_the_upload_as_it_is(
    container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(13_000_001))

    def fail(done: int, total: int) -> None:
        raise TimeoutError("of the host's own")

    with pytest.raises(TimeoutError, match="of the host's own"):
        await connector.upload_file(str(tmp_path / "a"), progress=fail)
    assert list(container.list_blob_names()) == []


@pytest.mark.parametrize("change", ["grows", "shrinks"])
async def test_file_that_changes_while_it_is_read_is_not_stored(
    change: str, container: ContainerClient, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    file = tmp_path / "a"
    file.write_bytes(bytes(40_000_000))

    def alter(done: int, total: int) -> None:
        os.truncate(file, 50_000_000 if change == "grows" else 30_000_000)

    with pytest.raises(DataFetchError, match=r"blob 'a' of .* changed while it was read"):
        await connector.upload_file(str(file), progress=alter)
    assert list(container.list_blob_names()) == []


@asynccontextmanager
async def losing(azurite: AzuriteServer, request: bytes) -> AsyncIterator[str]:
    """Stand in front of Azurite, and lose the first answer to a request that has `request`.

    Yields the endpoint of the account.
    """
    lost = False
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, behind = await asyncio.open_connection("127.0.0.1", azurite.port)
        losing_this = False

        async def forward() -> None:
            nonlocal lost, losing_this
            while data := await reader.read(1 << 16):
                losing_this = losing_this or (request in data and not lost)
                lost = lost or losing_this
                behind.write(data)
            behind.close()

        forwarding = asyncio.create_task(forward())
        while (data := await there.read(1 << 16)) and not losing_this:
            writer.write(data)
        writer.close()
        await forwarding

    def serve_in_a_task(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(serve_in_a_task, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield azurite.blob_endpoint.replace(str(azurite.port), str(port))
        await asyncio.gather(*serving)
    assert lost


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("size", [10, 9_000_000])
async def test_lost_answer_to_an_upload_is_not_taken_for_somebody_elses_blob(
    size: int,
    overwrite: bool,
    azurite: AzuriteServer,
    container: ContainerClient,
    connect: Connect,
    tmp_path: Path,
) -> None:
    (tmp_path / "a").write_bytes(os.urandom(size))
    at_once = size == 10 and overwrite
    async with losing(azurite, b"PUT /" if at_once else b"comp=blocklist") as endpoint:
        connector = await connect(account_url=endpoint, account_key=azurite.account_key)
        item = await connector.upload_file(str(tmp_path / "a"), overwrite=overwrite)
        properties = container.get_blob_client("a").get_blob_properties()
        assert item.version == properties.etag.strip('"')
        assert item.modified_at == properties.last_modified.timestamp()
        assert container.download_blob("a").readall() == (tmp_path / "a").read_bytes()
        with pytest.raises(ConnectorError, match="exists already"):
            await connector.upload_file(str(tmp_path / "a"), overwrite=False)
        await connector.disconnect()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv.gz", "application/gzip"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.json.bz2", "application/x-bzip2"),
        ("a.csv.xz", "application/x-xz"),
        ("a.json", "application/json"),
    ],
)
async def test_compressed_file_is_stored_with_the_type_of_its_compression(
    name: str,
    expected: str,
    container: ContainerClient,
    connector: AzureBlobConnector,
    tmp_path: Path,
) -> None:
    (tmp_path / name).write_bytes(b"x")
    await connector.upload_file(str(tmp_path / name))
    settings = container.get_blob_client(name).get_blob_properties().content_settings
    assert (settings.content_type, settings.content_encoding) == (expected, None)
