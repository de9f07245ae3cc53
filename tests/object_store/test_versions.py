"""Earlier versions of objects, on each service that keeps some, and on buckets that keep none."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from datasources import DataItem, DataSourceConfig, ItemNotFoundError, Workspace
from datasources.objects import ObjectConnector
from datasources_object_store import GCSConnector, S3Connector
from tests.object_store.conftest import KEYS, Bucket, Connect, new_bucket
from tests.servers.gcs import FakeGCSServer
from tests.servers.scripted import Answer, Received, scripted

CONTENTS = [b"x,y\n" + b"1,2\n" * lines for lines in (1, 2, 3)]
NAME = "folder/a b.csv"


class S3System:
    """A bucket of S3, as one who may change it sees it."""

    connector_class: ClassVar[type[ObjectConnector]] = S3Connector
    prefix = "?versionid"
    unknown = "0123456789abcdef0123456789abcdef"

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._where = {"Bucket": bucket.name}
        self.options: dict[str, Any] = bucket.options
        self.put = bucket.put

    def keep_versions(self) -> None:
        setting = {"Status": "Enabled"}
        self._bucket.client.put_bucket_versioning(**self._where, VersioningConfiguration=setting)

    def delete(self, name: str, version: str | None = None) -> None:
        where = {**self._where, "Key": name, **({"VersionId": version} if version else {})}
        self._bucket.client.delete_object(**where)


class GCSSystem:
    """A bucket of Google Cloud Storage, as one who may change it sees it."""

    connector_class: ClassVar[type[ObjectConnector]] = GCSConnector
    prefix = "?generation"
    unknown = "5"

    def __init__(self, server: FakeGCSServer) -> None:
        self._server = server
        self._bucket = f"versions-{secrets.token_hex(6)}"
        server.create_bucket(self._bucket)
        self.options: dict[str, Any] = {
            "endpoint": server.endpoint,
            "bucket": self._bucket,
            "credential": "anonymous",
        }

    def keep_versions(self) -> None:
        self._server.keep_versions(self._bucket)

    def put(self, name: str, content: bytes) -> None:
        self._server.put(self._bucket, name, content)

    def delete(self, name: str, version: str | None = None) -> None:
        self._server.delete(self._bucket, name, version)


System = S3System | GCSSystem


@pytest.fixture(scope="module")
def gcs() -> Iterator[FakeGCSServer]:
    with FakeGCSServer() as server:
        yield server


@pytest.fixture(params=["seaweed", "moto", "gcs"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """A new bucket that keeps no versions."""
    server = request.getfixturevalue(request.param)
    if isinstance(server, FakeGCSServer):
        yield GCSSystem(server)
    else:
        yield from map(S3System, new_bucket(server))


@pytest.fixture
async def connector(system: System) -> AsyncIterator[Any]:
    config = DataSourceConfig("lake", "lake", "Lake", system.options)
    connector = system.connector_class(config)
    await connector.connect()
    yield connector
    await connector.disconnect()


def fill(system: System, name: str = NAME) -> None:
    """Store three contents, the first before the bucket keeps versions, and a longer name."""
    system.put(name, CONTENTS[0])
    system.keep_versions()
    for content in CONTENTS[1:]:
        system.put(name, content)
    system.put(f"{name}.bak", b"")


async def check(connector: Any, name: str, folder: Path) -> list[str]:
    """Check the two earlier versions of an object; return their identifiers."""
    kept: list[DataItem] = await connector.list_versions(name)
    assert [(item.size, item.metadata["kind"]) for item in kept] == [
        (8, "version"),
        (12, "version"),
    ]
    identifiers = [item.path for item in kept]
    assert (await connector.get_metadata(name))["versions"] == identifiers
    for content, item in zip(CONTENTS[:2], kept, strict=True):
        metadata = await connector.get_metadata(item.path)
        assert (metadata["size"], metadata["etag"]) == (len(content), item.version)
        assert metadata["name"] == item.name == name.rpartition("/")[2]
        assert len((await connector.preview(item.path)).rows) == content.count(b"\n") - 1
        workspace = Workspace(folder)
        path = await connector.fetch_data(item.path, workspace)
        assert Path(path).read_bytes() == content
        assert workspace.written[path].version == item.version
    return identifiers


async def test_versions_are_listed_described_previewed_and_fetched(
    system: System, connector: Any, tmp_path: Path
) -> None:
    fill(system)
    identifiers = await check(connector, NAME, tmp_path)
    assert [path.partition("=")[0] for path in identifiers] == [system.prefix] * 2
    now = await connector.fetch_data(NAME, str(tmp_path))
    assert Path(now).read_bytes() == CONTENTS[2]
    assert [item.path for item in await connector.list_items()] == [NAME, f"{NAME}.bak"]
    assert await connector.list_versions(f"{NAME}.bak") == []


# SeaweedFS keeps objects as files, and has no such names.
@pytest.mark.parametrize("system", ["moto", "gcs"], indirect=True)
async def test_versions_of_a_name_with_dots_are_pinned_to_the_listing(
    system: System, connector: Any, tmp_path: Path
) -> None:
    fill(system, "x/../a.csv")
    await check(connector, "x/../a.csv", tmp_path)


# fake-gcs-server keeps an earlier generation that is deleted.
@pytest.mark.parametrize("system", ["seaweed", "moto"], indirect=True)
async def test_version_that_was_deleted_is_named(
    system: System, connector: Any, tmp_path: Path
) -> None:
    fill(system)
    first, second = [item.path for item in await connector.list_versions(NAME)]
    system.delete(NAME, first.partition("=")[2].partition("/")[0])
    for call in (connector.get_metadata(first), connector.fetch_data(first, str(tmp_path))):
        with pytest.raises(ItemNotFoundError, match=r"object '\?.*/folder/a b\.csv' of bucket"):
            await call
    assert [item.path for item in await connector.list_versions(NAME)] == [second]
    assert list(tmp_path.iterdir()) == []


async def test_versions_of_a_deleted_object_can_still_be_fetched(
    system: System, connector: Any, tmp_path: Path
) -> None:
    fill(system)
    first, _ = await connector.list_versions(NAME)
    system.delete(NAME)
    with pytest.raises(ItemNotFoundError):
        await connector.list_versions(NAME)
    assert [item.path for item in await connector.list_items()] == [f"{NAME}.bak"]
    path = await connector.fetch_data(first.path, str(tmp_path))
    assert Path(path).read_bytes() == CONTENTS[0]


async def test_bucket_that_keeps_none_does_not_pass_off_the_object_for_a_version(
    system: System, connector: Any, tmp_path: Path
) -> None:
    system.put(NAME, b"now")
    assert await connector.list_versions(NAME) == []
    assert "versions" not in await connector.get_metadata(NAME)
    wrong = f"{system.prefix}={system.unknown}/{NAME}"
    for call in (connector.get_metadata(wrong), connector.fetch_data(wrong, str(tmp_path))):
        with pytest.raises(ItemNotFoundError, match="does not exist"):
            await call
    assert list(tmp_path.iterdir()) == []


async def test_object_of_exactly_such_a_name_goes_first(
    system: System, connector: Any, tmp_path: Path
) -> None:
    fill(system)
    first, _ = await connector.list_versions(NAME)
    system.put(first.path, b"an object like any other")
    path = await connector.fetch_data(first.path, str(tmp_path))
    assert Path(path).read_bytes() == b"an object like any other"


@pytest.mark.parametrize("status", [404, 405])
async def test_mark_of_a_deletion_is_no_version(
    status: int, connect: Connect, tmp_path: Path
) -> None:
    """As AWS answers: 404 for a deleted object, 405 for the version that marks its deletion."""

    def answer(request: Received) -> Answer:
        if "/a" not in request.target:
            return 200, {}, b"<ListBucketResult/>"
        marked = "versionId" in request.target or status == 404
        return status if marked else 404, {"x-amz-delete-marker": "true"}, b""

    async with scripted(answer) as (port, _):
        endpoint = f"http://127.0.0.1:{port}"
        connector = await connect({**KEYS, "bucket": "data", "endpoint": endpoint, "retries": 0})
        for call in (
            connector.get_metadata("?versionid=7/a"),
            connector.fetch_data("?versionid=7/a", str(tmp_path)),
        ):
            with pytest.raises(ItemNotFoundError, match="it was deleted"):
                await call
        await connector.disconnect()


async def test_service_that_ignores_versions_does_not_pass_off_the_object_for_one(
    connect: Connect, tmp_path: Path
) -> None:
    def answer(request: Received) -> Answer:
        if "/a" not in request.target:
            return 200, {}, b"<ListBucketResult/>"
        return 200 if "versionId" in request.target else 404, {"ETag": '"1"'}, b"now"

    async with scripted(answer) as (port, _):
        endpoint = f"http://127.0.0.1:{port}"
        connector = await connect({**KEYS, "bucket": "data", "endpoint": endpoint, "retries": 0})
        for call in (
            connector.get_metadata("?versionid=7/a"),
            connector.fetch_data("?versionid=7/a", str(tmp_path)),
        ):
            with pytest.raises(ItemNotFoundError, match="does not exist"):
                await call
        await connector.disconnect()
    assert list(tmp_path.iterdir()) == []
