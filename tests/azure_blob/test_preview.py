"""Previews of text: the rows asked for, from as few bytes as hold them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from datasources import DataFetchError, Workspace
from datasources_azure_blob import AzureBlobConnector
from tests.core.workbooks import xlsx
from tests.servers.blob_server import BlobService

KIB = 1024


@pytest.fixture
def connector(local: AzureBlobConnector) -> AzureBlobConnector:
    return local


@pytest.mark.parametrize("name", ["large.csv", "large.txt", "large.tsv"])
async def test_ten_rows_of_a_large_blob_cost_one_small_request(
    name: str, service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put(name, b"one,two,three\n" * 1_000_000)
    preview = await connector.preview(name)
    assert (len(preview.rows), preview.truncated) == (10, True)
    assert service.sent[name] <= 64 * KIB
    assert service.counts()[name] == 1


async def test_wide_rows_cost_as_much_more_as_they_need(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    row = b"x" * 30_000
    service.put("wide.csv", b"a,b\n" + (row + b",2\n") * 1000)
    preview = await connector.preview("wide.csv")
    assert [len(value) for value, _ in preview.rows] == [30_000] * 10
    assert service.sent["wide.csv"] <= 1024 * KIB
    asked = [request.headers["range"] for request in service.requests]
    assert asked == ["bytes=0-65535", "bytes=65536-262143", "bytes=262144-1048575"]


async def test_row_that_is_cut_in_a_quoted_field_is_not_shown(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    long = "line\n" * 20_000
    service.put("quoted.csv", ('a,b\n1,"' + long + '"\n2,short\n').encode() * 30)
    (row,) = (await connector.preview("quoted.csv", 1)).rows
    assert row == ("1", long)


async def test_line_without_end_reads_no_more_than_it_may(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("endless.txt", b"x" * 10_000_000)
    preview = await connector.preview("endless.txt")
    assert (list(preview.rows), preview.truncated) == ([("x" * 64 * KIB,)], True)
    assert "the last row is cut" in preview.notes[0]
    assert service.sent["endless.txt"] <= 4096 * KIB


async def test_blob_that_changes_between_two_reads_is_an_error(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    def change(request: object) -> None:
        if len(service.requests) == 2:
            service.put("a.csv", b"new,row\n" * 100_000)

    service.put("a.csv", b"old,row\n" * 100_000)
    service.fault = change
    with pytest.raises(DataFetchError, match="changed while it was read"):
        await connector.preview("a.csv", 50_000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_encoded_text_is_shown_as_what_it_stands_for(
    encoding: str, service: BlobService, connector: AzureBlobConnector
) -> None:
    text = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(200_000))
    stored = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    service.put("a.csv", stored, **{"Content-Encoding": encoding})
    preview = await connector.preview("a.csv", 3)
    assert (preview.columns, preview.truncated) == (("a", "b"), True)
    assert list(preview.rows) == [("0", "0"), ("1", "1"), ("2", "4")]
    assert service.sent["a.csv"] <= 64 * KIB
    service.put("short.csv", gzip.compress(b"a\n1"), **{"Content-Encoding": "gzip"})
    short = await connector.preview("short.csv")
    assert (list(short.rows), short.truncated) == ([("1",)], False)


async def test_text_that_unpacks_without_end_is_read_to_a_bound(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("bomb.txt", gzip.compress(b"x" * 300_000_000), **{"Content-Encoding": "gzip"})
    preview = await connector.preview("bomb.txt")
    assert (list(preview.rows), preview.truncated) == ([("x" * 64 * KIB,)], True)


async def test_encoding_that_is_not_the_contents_is_a_clear_error(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("a.csv", b"a,b\n1,2\n", **{"Content-Encoding": "gzip"})
    with pytest.raises(DataFetchError, match=r"'a\.csv' is not gzip"):
        await connector.preview("a.csv")


async def test_compressed_table_is_shown_with_and_without_content_encoding(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    content = gzip.compress(b"id;name\n") + gzip.compress("1;Müller\n".encode("cp1252"))
    service.put("a.csv.gz", content)
    service.put("b.csv.gz", content, **{"Content-Encoding": "gzip"})
    service.put("c.csv.gz", gzip.compress(content), **{"Content-Encoding": "gzip"})
    for name in ("a.csv.gz", "b.csv.gz", "c.csv.gz"):
        preview = await connector.preview(name)
        assert (preview.columns, list(preview.rows)) == (("id", "name"), [("1", "Müller")])
        assert preview.format is not None
        assert preview.format.guessed == ("encoding", "delimiter")


async def test_document_of_one_line_is_shown_cut_after_all_that_may_be_read(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    service.put("a.json", b'[{"a": 1}' + b', {"a": 2}' * 600_000 + b"]")
    preview = await connector.preview("a.json")
    assert preview.rows[0][0].startswith('[{"a": 1}, {"a": 2}')
    assert service.sent["a.json"] == 4096 * KIB
    service.put("b.json", b'[{"a": 1}' + b', {"a": 2}' * 10_000 + b"]")
    preview = await connector.preview("b.json")
    assert (len(preview.rows[0][0]), preview.notes) == (service.blobs["b.json"].size, ())


async def test_workbook_is_shown_and_converted(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    pytest.importorskip("python_calamine")
    etag = service.put("a.xlsx", xlsx(Data=[["x", "y"], [1, "é"]])).etag
    preview = await connector.preview("a.xlsx")
    assert (preview.columns, list(preview.rows)) == (("x", "y"), [(1, "é")])
    workspace = Workspace(tmp_path, file_format="csv")
    path = await connector.fetch_data("a.xlsx", workspace)
    assert Path(path).read_text("utf-8") == "x,y\n1,é\n"
    assert workspace.written[path].version == etag.strip('"')
