"""Workspaces hold files of granted sources, for their principal alone, until they end."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from datasources import Grant, Principal, Record
from datasources.stores import MemoryRecords
from datasources_server import ServerSettings, create_app
from tests.core.fakes import MemoryConnector, registry_of, source
from tests.server.client import Answer, Client
from tests.server.conftest import ApiServer
from tests.waiting import wait_until_blocking

ORDERS = b"id,total\n1,9.5\n2,20\n3,7\n"
ITEM = "public/orders.csv"


@pytest.fixture
def reader(server: ApiServer, lake: str) -> Client:
    return server.client(f"worker-{lake}", [lake, ["read"]])


def make(client: Client, *sources: str, **fields: Any) -> str:
    """Make a workspace and return its id."""
    answer = client("POST", "/workspaces", {"sources": list(sources)} | fields)
    assert answer.status == 201, answer.body
    workspace: str = answer.json["id"]
    return workspace


def item(source: str, name: str = ITEM, **fields: Any) -> dict[str, Any]:
    return {"source": source, "item": name} | fields


def test_items_are_fetched_and_downloaded_and_the_files_end_with_the_workspace(
    server: ApiServer, reader: Client, lake: str
) -> None:
    workspace = make(reader, lake)
    described = reader("GET", f"/workspaces/{workspace}").json
    assert (described["id"], described["sources"]) == (workspace, [lake])
    fetched = reader("POST", f"/workspaces/{workspace}/fetch", {"items": [item(lake)]})
    assert fetched.status == 200
    (receipt,) = fetched.json["receipts"]
    assert (receipt["size"], receipt["source"]) == (len(ORDERS), lake)
    address = f"/workspaces/{workspace}/files/{receipt['path']}"
    answer = reader("GET", address)
    assert (answer.status, answer.body) == (200, ORDERS)
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    part = reader("GET", address, headers={"Range": "bytes=3-7"})
    assert (part.status, part.body) == (206, ORDERS[3:8])
    assert (server.workspaces / workspace / receipt["path"]).read_bytes() == ORDERS
    assert reader("DELETE", f"/workspaces/{workspace}").status == 204
    assert not (server.workspaces / workspace).exists()
    assert reader("GET", f"/workspaces/{workspace}").slug == "workspace-not-found"


def test_workspace_is_of_its_principal_and_its_sources_alone(
    server: ApiServer, reader: Client, lake: str
) -> None:
    workspace = make(reader, lake)
    other = server.client(f"other-{lake}", [lake, ["read"]])
    for method, path in (("GET", ""), ("POST", "/fetch"), ("GET", "/files/x"), ("DELETE", "")):
        body = {"items": [item(lake)]} if method == "POST" else None
        refused = other(method, f"/workspaces/{workspace}{path}", body)
        assert (refused.status, refused.slug) == (404, "workspace-not-found")
    server.admin.create(f"{lake}-2", path=str(server.data))
    wide = server.client(f"wide-{lake}", [lake, ["read"]], [f"{lake}-2", ["read"]])
    narrow = make(wide, lake)
    refused = wide("POST", f"/workspaces/{narrow}/fetch", {"items": [item(f"{lake}-2", "x")]})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "#/items/0/source")
    assert reader("POST", "/workspaces", {"sources": [f"{lake}-2"]}).status == 404


def test_one_item_that_fails_leaves_no_file_of_the_others(
    server: ApiServer, reader: Client, lake: str
) -> None:
    workspace = make(reader, lake)
    items = [item(lake), item(lake, "nothing.csv")]
    refused = reader("POST", f"/workspaces/{workspace}/fetch", {"items": items})
    assert (refused.status, refused.slug) == (404, "item-not-found")
    left = [path for path in (server.workspaces / workspace).rglob("*") if path.is_file()]
    assert left == []


def test_quota_bounds_the_files_of_a_workspace(reader: Client, lake: str) -> None:
    workspace = make(reader, lake, quota=10)
    refused = reader("POST", f"/workspaces/{workspace}/fetch", {"items": [item(lake)]})
    assert (refused.status, refused.slug) == (413, "limit-exceeded")
    for field, value in (("quota", 1 << 40), ("ttl", 10**9), ("quota", 0), ("sources", [])):
        body = {"sources": [lake], field: value}
        assert reader("POST", "/workspaces", body).json["errors"][0]["pointer"] == f"#/{field}"


@pytest.mark.parametrize(
    "path", ["link.csv", "folder/passwd", "pipe", "../x", "%2e%2e/x", ".", "", "a\x00b"]
)
def test_link_in_a_workspace_is_not_followed(
    server: ApiServer, reader: Client, lake: str, tmp_path: Path, path: str
) -> None:
    workspace = make(reader, lake)
    reader("POST", f"/workspaces/{workspace}/fetch", {"items": [item(lake)]})
    secret = tmp_path / "passwd"
    secret.write_text("secret")
    folder = server.workspaces / workspace
    (folder / "link.csv").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    refused = reader("GET", f"/workspaces/{workspace}/files/{path}")
    assert refused.status == 404
    assert b"secret" not in refused.body
    assert reader("DELETE", f"/workspaces/{workspace}").status == 204
    assert secret.read_text() == "secret"


def test_workspace_ends_after_its_time(server: ApiServer, reader: Client, lake: str) -> None:
    workspace = make(reader, lake, ttl=1)
    reader("POST", f"/workspaces/{workspace}/fetch", {"items": [item(lake)]})
    wait_until_blocking(lambda: reader("GET", f"/workspaces/{workspace}").status == 404)


def test_a_principal_has_a_bounded_number_of_workspaces(lake: str, server: ApiServer) -> None:
    many = server.client(f"many-{lake}", [lake, ["read"]])

    def ask(_: int) -> Answer:
        return many("POST", "/workspaces", {"sources": [lake]})

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(ask, range(30)))
    made = [answer.json["id"] for answer in answers if answer.status == 201]
    refused = [answer.slug for answer in answers if answer.status != 201]
    assert (len(made), refused) == (20, ["too-many-workspaces"] * 10)
    assert many("DELETE", f"/workspaces/{made[0]}").status == 204
    assert [ask(0).status, ask(0).status] == [201, 429]


def test_fetch_that_fails_leaves_files_as_they_were(
    server: ApiServer, reader: Client, lake: str
) -> None:
    workspace = make(reader, lake)
    folder = server.workspaces / workspace
    reader("POST", f"/workspaces/{workspace}/fetch", {"items": [item(lake)]})
    (folder / ITEM).write_text("changed by a program")
    (folder / "notes.txt").write_text("of a program")
    items = {"items": [item(lake), item(lake, "nothing.csv")]}
    assert reader("POST", f"/workspaces/{workspace}/fetch", items).slug == "item-not-found"
    assert (folder / ITEM).read_text() == "changed by a program"
    assert (folder / "notes.txt").read_text() == "of a program"
    assert [path.name for path in server.workspaces.iterdir() if workspace in path.name] == [
        workspace
    ]


def test_file_whose_place_a_folder_has_is_an_error(
    server: ApiServer, reader: Client, lake: str
) -> None:
    workspace = make(reader, lake)
    (server.workspaces / workspace / ITEM / "inside").mkdir(parents=True)
    names = ("private/salaries.csv", ITEM)
    items = {"items": [item(lake, name) for name in names]}
    refused = reader("POST", f"/workspaces/{workspace}/fetch", items)
    assert (refused.status, refused.slug) == (502, "fetch-failed")
    files = [path for path in (server.workspaces / workspace).rglob("*") if path.is_file()]
    assert files == []


def test_fetch_does_not_follow_a_link_of_a_folder(
    server: ApiServer, reader: Client, lake: str, tmp_path: Path
) -> None:
    workspace = make(reader, lake)
    (server.workspaces / workspace).mkdir(parents=True)
    (server.workspaces / workspace / "public").symlink_to(tmp_path)
    refused = reader("POST", f"/workspaces/{workspace}/fetch", {"items": [item(lake)]})
    assert (refused.status, refused.slug) == (502, "fetch-failed")
    assert list(tmp_path.iterdir()) == []


async def test_client_that_leaves_while_its_job_is_added_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Principal("ann", grants=[Grant("s", {"read", "query"})])
    settings = ServerSettings(workspace_root=str(tmp_path), concurrent_jobs=1, job_wait=60)
    is_added, has_left = threading.Event(), threading.Event()
    put = MemoryRecords.put

    def put_slowly(records: MemoryRecords, record: Record, **more: Any) -> Record:
        if record.kind == "job" and not has_left.is_set():
            is_added.set()
            has_left.wait(30)
        return put(records, record, **more)

    monkeypatch.setattr(MemoryRecords, "put", put_slowly)
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        app = create_app(
            registry,
            authenticate=lambda _: ann,
            find_principal=lambda _: ann,
            settings=settings,
        )
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), base_url="http://localhost"
            ) as client,
        ):
            made = await client.post("/v1/workspaces", json={"sources": ["s"]})
            path = f"/v1/workspaces/{made.json()['id']}/fetch"
            body = {"items": [{"source": "s", "item": "a.csv"}]}
            fetching = asyncio.create_task(client.post(path, json=body))
            await asyncio.to_thread(is_added.wait, 30)
            fetching.cancel()
            await asyncio.sleep(0)
            has_left.set()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert (await client.get("/v1/jobs")).json()["items"] == []
            assert (await client.post(path, json=body)).status_code == 200  # the only place is free
