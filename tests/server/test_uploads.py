"""Uploads are streamed, within the limits of the source, and whole or not in the source at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasources import CredentialManager, DataSourceConfig, DataSourceRegistry, Principal, blocking
from datasources_server import ServerSettings, create_app
from tests.server.client import HOST, Answer, Client
from tests.server.conftest import ApiServer
from tests.servers import AzuriteServer
from tests.waiting import wait_until_blocking

ROWS = b"n\n1\n2\n"
MIB = 1 << 20


@pytest.fixture
def folder(server: ApiServer, new_id: str) -> str:
    """The id of a source that is a writable, empty directory."""
    (server.data / new_id).mkdir()
    server.admin.create(new_id, path=str(server.data / new_id), writable=True)
    return new_id


@pytest.fixture
def container(azurite: AzuriteServer) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as account:
        client = account.create_container(f"test-{secrets.token_hex(6)}")
        yield client
        client.delete_container()


@pytest.fixture
def blobs(
    server: ApiServer, new_id: str, azurite: AzuriteServer, container: ContainerClient
) -> str:
    """The id of a source that is an empty container of Azurite."""
    options = {
        "connection_string": azurite.connection_string,
        "container": container.container_name,
    }
    server.admin.create(new_id, "azure_blob", **options)
    return new_id


def upload(client: Client, source: str, item: str, body: bytes, **headers: str) -> Answer:
    path = f"/sources/{source}/upload"
    return client("POST", path, body, item=item, headers=headers)


def begin(
    server: ApiServer, source: str, item: str, length: int | None, token: str | None = "root"
) -> socket.socket:
    """Send the head of an upload; with a length of None, its body is in chunks."""
    connection = socket.create_connection((HOST, server.port), timeout=120)
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    head = f"POST /v1/sources/{source}/upload?item={item} HTTP/1.1\r\nHost: {HOST}\r\n"
    connection.sendall(f"{head}Authorization: Bearer {token}\r\n{size}\r\n\r\n".encode())
    return connection


def left_behind(server: ApiServer) -> list[str]:
    """Return the server's temporary files of uploads."""
    # `rglob` fails where a folder is deleted meanwhile.
    return [folder for folder, _, names in os.walk(server.temporary) if "upload" in names]


def test_upload_to_a_container_is_an_item_with_its_receipt(
    admin: Client, blobs: str, container: ContainerClient
) -> None:
    answer = upload(admin, blobs, "2026/new file.csv", ROWS)
    assert answer.status == 201, answer.body
    sha256 = hashlib.sha256(ROWS).hexdigest()
    assert (answer.json["size"], answer.json["sha256"]) == (len(ROWS), sha256)
    (listed,) = admin("GET", f"/sources/{blobs}/items").json["items"]
    for name in ("path", "name", "size", "version"):
        assert answer.json["item"][name] == listed[name]
    assert container.download_blob("2026/new file.csv").readall() == ROWS


def test_upload_to_a_directory_replaces_an_item_unless_it_may_not(
    server: ApiServer, admin: Client, folder: str
) -> None:
    assert upload(admin, folder, "a/b.csv", b"old").status == 201
    assert upload(admin, folder, "a/b.csv", ROWS).status == 201
    refused = upload(admin, folder, "a/b.csv", b"third", **{"If-None-Match": "*"})
    assert (refused.status, refused.slug) == (412, "item-exists")
    assert (server.data / folder / "a/b.csv").read_bytes() == ROWS
    refused = upload(admin, folder, "a/b.csv", b"third", **{"If-None-Match": '"1"'})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "If-None-Match")
    assert upload(admin, folder, "new.csv", b"", **{"If-None-Match": "*"}).status == 201


def test_blob_is_not_replaced_if_it_may_not(
    admin: Client, blobs: str, container: ContainerClient
) -> None:
    container.upload_blob("a.csv", ROWS)
    refused = upload(admin, blobs, "a.csv", b"other", **{"If-None-Match": "*"})
    assert (refused.status, refused.slug) == (412, "item-exists")
    assert container.download_blob("a.csv").readall() == ROWS


def test_body_is_larger_than_that_of_other_requests_and_memory_stays_flat(
    server: ApiServer, admin: Client, folder: str
) -> None:
    admin("PATCH", f"/sources/{folder}", {"limits": {"max_bytes": None}}, headers={"If-Match": "*"})
    assert server.pid
    process = psutil.Process(server.pid)
    upload(admin, folder, "first", bytes(MIB))
    before, block, digest = process.memory_info().rss, os.urandom(MIB), hashlib.sha256()
    peak = before
    with begin(server, folder, "large", 256 * MIB) as connection:
        for _ in range(256):
            connection.sendall(block)
            digest.update(block)
            peak = max(peak, process.memory_info().rss)
        assert b" 201 " in connection.recv(65536).split(b"\r\n")[0]
    assert (server.data / folder / "large").stat().st_size == 256 * MIB
    with (server.data / folder / "large").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
    assert peak - before < 64 * MIB
    wait_until_blocking(lambda: left_behind(server) == [])  # also those of tests before


@pytest.mark.parametrize("length", [1000, None])
def test_client_that_breaks_off_leaves_nothing(
    server: ApiServer, blobs: str, container: ContainerClient, length: int | None
) -> None:
    with begin(server, blobs, "a.csv", length) as connection:
        connection.sendall(b"a" * 500 if length else b"1f4\r\n" + b"a" * 500 + b"\r\n")
        wait_until_blocking(lambda: left_behind(server))
    wait_until_blocking(lambda: left_behind(server) == [])
    assert list(container.list_blobs()) == []
    assert "Traceback" not in server.log


def test_upload_over_the_limit_of_its_source_is_refused(
    server: ApiServer, admin: Client, folder: str
) -> None:
    limits = {"limits": {"max_bytes": 5}}
    admin("PATCH", f"/sources/{folder}", limits, headers={"If-Match": "*"})
    assert upload(admin, folder, "fits", b"12345").status == 201
    refused = upload(admin, folder, "large", b"123456")
    assert (refused.status, refused.slug) == (413, "limit-exceeded")
    # Announced in the head, it is refused before a byte of the body has come.
    for length, body in ((1 << 40, b""), (None, b"6\r\n123456\r\n")):
        with begin(server, folder, "large", length) as connection:
            connection.sendall(body)
            answer = connection.recv(65536)
        assert b" 413 " in answer.split(b"\r\n")[0]
        assert b"connection: close" in answer.lower()
    assert [path.name for path in (server.data / folder).iterdir()] == ["fits"]


def test_upload_needs_the_right_write_for_its_path(server: ApiServer, folder: str) -> None:
    reader = server.client(f"reader-{folder}", [folder, ["read", "query"]])
    assert upload(reader, folder, "a.csv", ROWS).slug == "not-allowed"
    writer = server.client(f"writer-{folder}", [folder, ["write"], ["in/*"]])
    assert upload(writer, folder, "a.csv", ROWS).slug == "not-allowed"
    assert upload(writer, folder, "in/a.csv", ROWS).status == 201
    assert [path.name for path in (server.data / folder).iterdir()] == ["in"]


@pytest.mark.parametrize("item", ["../x", "/etc/x", "a//b", ".hidden", "a\0b", "\x1b", "x" * 300])
def test_odd_path_is_an_error_or_an_item(
    server: ApiServer, admin: Client, folder: str, item: str
) -> None:
    answer = upload(admin, folder, item, ROWS)
    if answer.status == 201:
        assert [entry["path"] for entry in admin("GET", f"/sources/{folder}/items").json["items"]]
    else:
        assert (answer.status, answer.slug) == (502, "fetch-failed")
    assert not (server.data / "x").exists()


def test_source_without_the_ability_refuses_before_the_body_is_sent(
    server: ApiServer, admin: Client, lake: str
) -> None:
    shop = f"{lake}-shop"
    admin.create(shop, "postgresql", host=HOST, dbname="d", user="u", password="secret")
    with begin(server, shop, "a.csv", 1 << 40) as connection:
        assert b" 501 " in connection.recv(65536).split(b"\r\n")[0]
    assert upload(admin, lake, "a.csv", ROWS).slug == "not-supported"  # it is not `writable`


def test_uploads_of_one_principal_are_bounded(server: ApiServer, folder: str) -> None:
    writer = server.client(f"writer-{folder}", [folder, ["write"]])
    wait_until_blocking(lambda: left_behind(server) == [])  # uploads of tests before
    connections = [begin(server, folder, f"{number}", 10, writer.token) for number in range(4)]
    try:
        for connection in connections:
            connection.sendall(b"1")
        wait_until_blocking(lambda: len(left_behind(server)) == 4)
        refused = upload(writer, folder, "fifth", ROWS)
        assert (refused.status, refused.slug) == (429, "too-many-uploads")
    finally:
        for connection in connections:
            connection.close()
    wait_until_blocking(lambda: upload(writer, folder, "fifth", ROWS).status == 201)


async def test_next_upload_may_begin_with_the_response_of_the_last_one(tmp_path: Path) -> None:
    root = Principal("root", roles={"admin"})
    async with DataSourceRegistry() as registry:
        options = {"path": str(tmp_path), "writable": True}
        await registry.register_data_source(DataSourceConfig("lake", "local_file", "", options))
        settings = ServerSettings(concurrent_fetches=1)
        app = create_app(registry, authenticate=lambda _: root, settings=settings)
        answers: list[httpx2.Response] = []

        async def upload_again(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_after_another(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answers.append(await post(app))
                await send(message)

            await app(scope, receive, send_after_another)

        answers.append(await post(upload_again))
    assert [answer.status_code for answer in answers] == [201, 201]


async def post(app: ASGIApp) -> httpx2.Response:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post("/v1/sources/lake/upload", params={"item": "a"}, content=ROWS)


def test_upload_ends_when_its_token_is_revoked(server: ApiServer, folder: str) -> None:
    server.client("brief", [folder, ["write"]])
    head = f"POST /v1/sources/{folder}/upload?item=a HTTP/1.1\r\nHost: {HOST}\r\n"
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.sendall(
            f"{head}Authorization: Bearer brief\r\nContent-Length: 10\r\n\r\n1".encode()
        )
        wait_until_blocking(lambda: left_behind(server))
        del server.principals["brief"]
        server.write_principals()
        assert b" 401 " in connection.recv(65536).split(b"\r\n")[0]
    wait_until_blocking(lambda: left_behind(server) == [])
    assert list((server.data / folder).iterdir()) == []


def test_slow_body_is_refused() -> None:
    with ApiServer(body_timeout=0.3) as server:
        config = DataSourceConfig(
            "lake", "local_file", "Lake", {"path": str(server.data), "writable": True}
        )
        # By a request, it could be slow itself.
        with blocking.DataSourceRegistry(
            CredentialManager(server.key), store=server._environment()["STORE"]
        ) as registry:
            registry.register_data_source(config)
        with begin(server, "lake", "a", 10) as connection:
            connection.sendall(b"1")
            assert b" 408 " in connection.recv(65536).split(b"\r\n")[0]
        assert list(server.data.iterdir()) == []


def test_upload_is_an_entry_of_the_audit_trail(admin: Client, folder: str) -> None:
    upload(admin, folder, "a.csv", ROWS)

    def entries() -> list[str]:
        answer = admin("GET", "/audit", source=folder, operation="upload")
        return [entry["outcome"] for entry in answer.json["items"]]

    wait_until_blocking(lambda: entries() == ["ok"])
