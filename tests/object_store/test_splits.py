"""Splits of objects and files of web servers: each is of the version that was planned."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datasources import DataFetchError, DataSourceConfig
from datasources_object_store import GCSConnector, HTTPFilesConnector
from tests.local_file.test_splits import parts_of, rows_of, table_of
from tests.object_store.conftest import Bucket, Connect, new_bucket
from tests.parquet import parquet
from tests.servers.gcs import FakeGCSServer
from tests.servers.s3 import SeaweedServer
from tests.servers.scripted import Answer, Received, scripted

TEXT = b"n,text\n" + b"".join(b'%d,"a\n%d"\n' % (n, n) for n in range(1000))
ROWS = [(n, f"a\n{n}") for n in range(1000)]


async def check_splits(connector: Any, put: Callable[[str, bytes], object]) -> None:
    """Check the splits of text, of Parquet, of a pattern, and of what has changed since."""
    content = parquet(n=range(1000), text=[row[1] for row in ROWS], row_group_size=100)
    await connector.connect()
    try:
        for name, data in (("t/a.csv", TEXT), ("t/b.csv", TEXT), ("a.parquet", content)):
            put(name, data)
        for name in ("t/a.csv", "a.parquet"):
            plan, parts = await parts_of(connector, name)
            assert len(plan.splits) > 4
            assert [row for part in parts for row in part] == ROWS
        assert sorted(await table_of(connector, "t/*.csv")) == sorted(ROWS * 2)
        assert sorted(await table_of(connector, "t/", max_splits=1)) == sorted(ROWS * 2)
        for name, data in (("t/a.csv", TEXT + b"1000,x\n"), ("a.parquet", parquet(n=[1]))):
            async with connector.plan_splits(name, target_bytes=1, max_splits=4) as plan:
                put(name, data)
                for split in plan.splits:
                    with pytest.raises(DataFetchError):
                        await rows_of(connector.read_split(split))
    finally:
        await connector.disconnect()


async def test_splits_of_objects_in_s3(bucket: Bucket, connect: Connect) -> None:
    await check_splits(await connect(bucket.options), bucket.put)


async def test_splits_of_objects_in_google_cloud_storage() -> None:
    with FakeGCSServer() as server:
        server.create_bucket("splits")
        options = {
            "bucket": "splits",
            "credential": "anonymous",
            "endpoint": server.endpoint,
            "retries": 2,
        }
        connector = GCSConnector(DataSourceConfig("lake", "gcs", "Lake", options))
        await check_splits(connector, functools.partial(server.put, "splits"))


def files_at(url: str, **options: Any) -> HTTPFilesConnector:
    config = DataSourceConfig("files", "http_files", "Files", {"url": url, "retries": 2, **options})
    return HTTPFilesConnector(config)


async def test_splits_of_files_by_webdav(seaweed: SeaweedServer) -> None:
    bucket = next(new_bucket(seaweed))
    bucket.put("first", b"")
    url = f"{seaweed.webdav_url}buckets/{bucket.name}"
    await check_splits(files_at(url, listing="webdav"), bucket.put)


@contextmanager
def folder_served(folder: Path) -> Iterator[str]:
    """Serve a folder by the standard library, which knows neither ranges nor ETags."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_splits_of_files_of_a_server_without_ranges(tmp_path: Path) -> None:
    def put(name: str, data: bytes) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    with folder_served(tmp_path) as url:
        await check_splits(files_at(url), put)


async def test_a_file_without_a_mark_has_no_splits() -> None:
    def answer(request: Received) -> Answer:
        if request.target.endswith("/"):
            return 200, {"Content-Type": "text/html"}, b""
        return 200, {}, TEXT

    async with scripted(answer) as (port, _):
        connector = files_at(f"http://127.0.0.1:{port}")
        await connector.connect()
        with pytest.raises(DataFetchError, match="does not tell when it changes"):
            await table_of(connector, "a.csv")
        await connector.disconnect()
