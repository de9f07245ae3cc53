"""Listings that Azurite cannot give, from the loopback service."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from datasources import ConnectError, DataFetchError
from datasources.objects import http_time
from datasources_azure_blob import AzureBlobConnector
from datasources_azure_blob.listing import Page, item_of, name_of
from tests.azure_blob.conftest import make
from tests.servers.blob_server import BlobService

PAGE = """<?xml version="1.0" encoding="utf-8"?>
<EnumerationResults ServiceEndpoint="https://a.blob.core.windows.net/" ContainerName="data">
  <Prefix>é&amp;</Prefix>
  <Blobs>
    <BlobPrefix><Name>é&amp;/</Name></BlobPrefix>
    <Blob>
      <Name>é&amp;&lt;b&gt; 🦆.csv</Name>
      <Properties>
        <Last-Modified>Mon, 23 Nov 2026 03:45:22 GMT</Last-Modified>
        <Etag>0x8DE&amp;</Etag><Content-Length>12</Content-Length>
        <Content-Type>text/csv</Content-Type><Content-MD5 />
      </Properties>
    </Blob>
    <Blob><Name Encoded="true">a%01%25b</Name><Properties /></Blob>
    <Blob><Name>dir</Name><Properties><ResourceType>directory</ResourceType></Properties>
      <Metadata><Name>x</Name><Metadata>y</Metadata><Hdi_IsFolder>true</Hdi_IsFolder></Metadata>
    </Blob>
    <Blob><Name> a </Name><Properties><ResourceType>file</ResourceType></Properties></Blob>
  </Blobs>
  <NextMarker>2!76!é&amp;</NextMarker>
</EnumerationResults>""".encode()


@given(cuts=st.lists(st.integers(0, len(PAGE)), max_size=30).map(sorted))
def test_page_is_the_same_however_it_arrives(cuts: list[int]) -> None:
    page = Page()
    for start, end in zip([0, *cuts], [*cuts, len(PAGE)], strict=True):
        page.feed(PAGE[start:end])
    page.close()
    items = [item_of(entry, name_of(entry)) for entry in page.entries]
    assert page.entries[3]["ResourceType"] == "directory"
    assert page.entries[3]["hdi_isfolder"] == "true"
    del items[3]
    assert [(item.path, item.name, item.metadata["kind"]) for item in items] == [
        ("é&/", "é&", "folder"),
        ("é&<b> 🦆.csv", "é&<b> 🦆.csv", "blob"),
        ("a\x01%b", "a\x01%b", "blob"),
        (" a ", " a ", "blob"),
    ]
    assert (items[1].size, items[1].modified_at) == (12, 1795405522.0)
    assert items[1].metadata["etag"] == "0x8DE&"
    assert items[1].metadata["content_type"] == "text/csv"
    assert "content_md5" not in items[1].metadata
    assert (items[2].size, items[2].modified_at) == (None, None)
    assert page.next_marker == "2!76!é&"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 29 Feb 2024 23:59:59 GMT", 1709251199.0),
        ("", None),
        ("yesterday", None),
        ("Thu, 29 Foo 2024 23:59:59 GMT", None),
    ],
)
def test_http_times_are_unix_seconds(text: str, seconds: float | None) -> None:
    assert http_time(text) == seconds


@pytest.fixture
def connector(local: AzureBlobConnector) -> AzureBlobConnector:
    return local


@pytest.mark.parametrize(
    "name", ["a\x01b", "\n", "tab\there", "\x7f", "\ufffe", "a\\b", "a\\..\\b"]
)
async def test_names_of_control_characters_are_listed_and_fetched(
    name: str, service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put(name, b"content")
    assert [item.path for item in await connector.list_items()] == [name]
    path = Path(await connector.fetch_data(name, str(tmp_path)))
    assert path.read_bytes() == b"content"
    assert path.parent == tmp_path


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        '{"json": 1}',
        "<html><body>Log in to the network.</body></html>",
        "<EnumerationResults><Blobs><Blob><Name>a</Name></Blob></Blobs>",
        f'<!DOCTYPE x [<!ENTITY e0 "x">{ENTITIES}]><EnumerationResults>&e8;</EnumerationResults>',
    ],
)
async def test_answer_that_is_no_listing_is_an_error_and_not_an_empty_one(
    answer: str, service: BlobService, connector: AzureBlobConnector
) -> None:
    service.page = lambda query: answer.encode()  # type: ignore[method-assign]
    impatient = make(
        {"account_url": service.url, "container": "data", "credential": "anonymous", "retries": 1}
    )
    await impatient.connect()
    with pytest.raises(ConnectError, match="the answer is not a whole listing"):
        await impatient.list_items()
    await impatient.disconnect()


async def test_answer_that_is_no_tags_is_an_error(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("a", b"Log in to the network.", **{"x-ms-tag-count": "1"})
    with pytest.raises(DataFetchError, match="blob 'a' of container 'data': the answer is not its"):
        await connector.get_metadata("a")


@pytest.mark.parametrize("given_", ["a/../b", "..", "../outside"])
async def test_name_with_dots_is_read_by_its_listed_etag(
    given_: str, service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    etag = service.put(given_, b"content").etag
    await connector.fetch_data(given_, str(tmp_path))
    assert [r.headers.get("if-match") for r in service.requests if r.blob == given_] == [etag]


async def test_server_that_resolves_dots_does_not_lead_to_another_blob(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a/../b", b"asked for")
    other = service.put("b", b"another")
    service.find = lambda request: other  # type: ignore[method-assign]  # whatever is asked for
    for call in (connector.fetch_data("a/../b", str(tmp_path)), connector.get_metadata("a/../b")):
        with pytest.raises(DataFetchError, match="changed while it was read"):
            await call
    assert [r.blob for r in service.requests if r.blob] == ["a/../b"] * 2
    assert list(tmp_path.iterdir()) == []
