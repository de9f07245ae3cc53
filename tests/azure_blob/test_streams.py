"""Streams of blobs: pinned to one version, and ranges of it."""

from __future__ import annotations

import pytest
from azure.storage.blob import ContainerClient

from datasources import DataFetchError, UnsupportedError
from tests.azure_blob.conftest import Connect

CHUNK = 64 * 1024
CONTENT = bytes(range(256)) * 1_000


async def test_a_stream_has_the_etag_and_type_and_bytes_of_the_blob(
    container: ContainerClient, connect: Connect
) -> None:
    container.upload_blob("a.bin", CONTENT)
    connector = await connect(chunk_size=CHUNK)
    (item,) = await connector.list_items()
    for start, end in ((None, None), (1, CHUNK + 1), (CHUNK - 1, None), (len(CONTENT), None)):
        stream = await connector.open_stream("a.bin", start=start, end=end)
        assert (stream.etag, stream.media_type) == (item.version, "application/octet-stream")
        assert b"".join([chunk async for chunk in stream]) == CONTENT[start:end]
        await stream.aclose()
    with pytest.raises(UnsupportedError):
        await connector.open_stream("a.bin", format="csv")


async def test_a_blob_that_changes_ends_its_stream_with_an_error(
    container: ContainerClient, connect: Connect
) -> None:
    container.upload_blob("a.bin", CONTENT)
    connector = await connect(chunk_size=CHUNK)
    stream = await connector.open_stream("a.bin")
    await anext(aiter(stream))
    container.upload_blob("a.bin", CONTENT[::-1], overwrite=True)
    with pytest.raises(DataFetchError) as caught:
        async for _ in stream:
            pass
    assert caught.value.code == "ConditionNotMet"
    await stream.aclose()
