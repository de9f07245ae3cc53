"""The host of the guide, on real uvicorn with a real PostgreSQL and local files."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datasources import CredentialManager, DataItem, Grant, Principal
from datasources_local_file import LocalFileConnector
from tests.conftest import IN_CI
from tests.docs.blocks import DOCS
from tests.servers import Database
from tests.waiting import wait_until

if not IN_CI:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx2")
    pytest.importorskip("uvicorn")
import httpx2
import uvicorn

HOST = DOCS / "examples" / "host.py"
ENDLESS = "select count(*) from generate_series(1, 1000000000000)"
ROOT = {"authorization": "Bearer root-token"}
ANN = {"authorization": "Bearer ann-token"}
CONTENT = b"id,total\n1,9.5\n2,20\n"


@pytest.fixture
async def host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[tuple[ModuleType, str]]:
    """The module, served on loopback, and its address."""
    spec = importlib.util.spec_from_file_location("host", HOST)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "host", module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("STORE", str(tmp_path / "sources.db"))
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", CredentialManager.generate_key())
    principals: dict[str, Principal] = vars(module)["PRINCIPALS"]
    principals |= {
        "root-token": Principal("root", roles={"admin"}),
        "ann-token": Principal(
            "ann", grants=[Grant("shop", {"read", "query"}), Grant("lake", {"read"}, ["in/*"])]
        ),
    }
    server = uvicorn.Server(uvicorn.Config(module.app, lifespan="on", log_config=None))
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        await wait_until(lambda: server.started)
        yield module, "http://{}:{}".format(*listening.getsockname())
    finally:
        server.should_exit = True
        await serving
        listening.close()


@pytest.fixture
async def client(host: tuple[ModuleType, str]) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that is ann, unless a request has another token."""
    async with httpx2.AsyncClient(base_url=host[1], headers=ANN, trust_env=False) as client:
        yield client


@pytest.fixture
def registry(host: tuple[ModuleType, str]) -> Any:
    return host[0].app.state.registry


@pytest.fixture
async def lake(client: httpx2.AsyncClient, tmp_path: Path) -> Path:
    """A source of local files, of which ann has one folder."""
    folder = tmp_path / "lake"
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.csv").write_bytes(CONTENT)
    body = {"type": "local_file", "config": {"path": str(folder)}}
    assert (await client.put("/sources/lake", json=body, headers=ROOT)).status_code == 201
    return folder


@pytest.fixture
async def database(client: httpx2.AsyncClient, shop: Database) -> str:
    """A source of the shop's database; return its password."""
    password = os.environ["SHOP_PASSWORD"]
    options = {
        "host": shop.host,
        "port": shop.port,
        "database": shop.name,
        "user": "analyst",
        "password": password,
    }
    body = {"type": "postgresql", "name": "Shop", "config": options}
    created = await client.put("/sources/shop", json=body, headers=ROOT)
    assert created.status_code == 201, created.text
    assert password not in created.text
    return password


def check_problem(answer: httpx2.Response, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["title"]) == (status, slug), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:datasources:{slug}"
    assert answer.json()["status"] == status


def test_the_example_has_fewer_than_two_hundred_lines_of_code() -> None:
    text = HOST.read_text("utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), end_lineno=int(end)):
                docstrings |= set(range(node.lineno, end + 1))
    code = [
        line
        for number, line in enumerate(text.splitlines(), 1)
        if number not in docstrings and line.strip() and not line.lstrip().startswith("#")
    ]
    assert len(code) < 200


async def test_types_have_abilities_and_a_form(client: httpx2.AsyncClient) -> None:
    assert {"local_file", "postgresql"} <= set((await client.get("/types")).json())
    described = (await client.get("/types/local_file")).json()
    assert {"pages", "stream"} <= set(described["abilities"])
    assert described["form"]["fields"][0]["name"] == "path"
    check_problem(await client.get("/types/nothing"), 422, "connector-unknown")


async def test_sources_are_listed_as_granted_and_read(
    client: httpx2.AsyncClient, database: str, lake: Path
) -> None:
    body = {"type": "local_file", "config": {"path": str(lake)}}
    assert (await client.put("/sources/other", json=body, headers=ROOT)).status_code == 201
    check_problem(await client.put("/sources/other", json=body, headers=ROOT), 409, "source-exists")
    listed = await client.get("/sources")
    assert [source["id"] for source in listed.json()] == ["lake", "shop"]
    got = await client.get("/sources/shop")
    assert got.json() == listed.json()[1]
    assert got.json()["config"]["password"] == "***REDACTED***"
    assert database not in got.text + listed.text


async def test_a_change_keeps_what_it_leaves_out_and_a_stale_one_is_refused(
    client: httpx2.AsyncClient, database: str
) -> None:
    etag = (await client.get("/sources/shop")).headers["etag"]
    change = {"config": {"application_name": "report"}}
    condition = ROOT | {"if-match": etag}
    changed = await client.patch("/sources/shop", json=change, headers=condition)
    assert changed.json()["config"]["application_name"] == "report"
    check_problem(
        await client.patch("/sources/shop", json=change, headers=condition), 412, "conflict"
    )
    check_problem(
        await client.patch("/sources/shop", json=change, headers=ROOT), 422, "request-malformed"
    )
    condition["if-match"] = f'"{changed.json()["version"]}"'
    moved = await client.patch("/sources/shop", json={"config": {"port": 1}}, headers=condition)
    check_problem(moved, 409, "secret-required")
    tested = await client.post("/sources/shop/test", headers=ROOT)
    assert tested.json()["ok"] is True


async def test_a_source_is_paused_resumed_and_deleted(
    client: httpx2.AsyncClient, lake: Path
) -> None:
    pausing = await client.post("/sources/lake/pause", json={"reason": "moving"}, headers=ROOT)
    assert pausing.status_code == 204
    check_problem(await client.get("/sources/lake/items"), 409, "source-paused")
    assert (await client.get("/sources/lake")).json()["paused"] == "moving"
    assert (await client.post("/sources/lake/resume", headers=ROOT)).status_code == 204
    assert (await client.get("/sources/lake/items")).status_code == 200
    assert (await client.delete("/sources/lake", headers=ROOT)).status_code == 204
    check_problem(await client.get("/sources/lake"), 404, "source-not-found")


MANAGING = [
    ("PUT", "", {"type": "local_file", "config": {}}, {}),
    ("PATCH", "", {"name": "x"}, {"if-match": '"1"'}),
    ("DELETE", "", None, {}),
    ("POST", "/pause", {"reason": "x"}, {}),
    ("POST", "/resume", None, {}),
    ("POST", "/test", None, {}),
]
READING = [
    ("GET", "", None),
    ("GET", "/items", None),
    ("POST", "/describe", {"item": "in/a.csv"}),
    ("POST", "/preview", {"item": "in/a.csv"}),
    ("POST", "/statistics", {"item": "in/a.csv"}),
    ("GET", "/content?item=in/a.csv", None),
]


@pytest.mark.parametrize(("method", "path", "body", "headers"), MANAGING)
async def test_only_an_administrator_manages_sources(
    client: httpx2.AsyncClient, lake: Path, method: str, path: str, body: Any, headers: Any
) -> None:
    answers = [
        await client.request(method, f"/sources/{name}{path}", json=body, headers=headers)
        for name in ("lake", "unknown")
    ]
    for answer in answers:
        check_problem(answer, 403, "not-allowed")
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize(("method", "path", "body"), READING)
async def test_unknown_and_not_granted_are_alike(
    client: httpx2.AsyncClient, lake: Path, method: str, path: str, body: Any
) -> None:
    options = {"type": "local_file", "config": {"path": str(lake)}}
    assert (await client.put("/sources/hidden", json=options, headers=ROOT)).status_code == 201
    texts = set()
    for name in ("hidden", "unknown"):
        answer = await client.request(method, f"/sources/{name}{path}", json=body)
        check_problem(answer, 404, "source-not-found")
        texts.add(answer.text.replace(name, "ID"))
    assert len(texts) == 1


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer"])
async def test_a_token_is_needed(client: httpx2.AsyncClient, token: str) -> None:
    for path in ("/types", "/sources", "/sources/lake/items"):
        answer = await client.get(path, headers={"authorization": token})
        check_problem(answer, 401, "request-refused")


async def test_the_frameworks_own_errors_are_problems_and_repeat_nothing(
    client: httpx2.AsyncClient,
) -> None:
    check_problem(await client.get("/nothing"), 404, "request-refused")
    check_problem(await client.post("/types"), 405, "request-refused")
    answer = await client.put("/sources/x", json=["correct horse"], headers=ROOT)
    check_problem(answer, 422, "request-malformed")
    assert "correct" not in answer.text
    unknown = {"type": "local_file", "config": {}, "colour": "red"}
    check_problem(await client.put("/sources/x", json=unknown, headers=ROOT), 422, "option-invalid")


async def test_items_come_in_pages(client: httpx2.AsyncClient, lake: Path) -> None:
    for number in range(150):
        (lake / "in" / f"n{number:03}.csv").touch()
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await client.get("/sources/lake/items", params={"path": "in/", "cursor": cursor})
        page = answer.json()
        assert len(page["items"]) <= 100
        names += [DataItem.from_dict(item).path for item in page["items"]]
        foreign = page["cursor"] and await client.get(
            "/sources/lake/items", params={"path": "in/", "cursor": page["cursor"]}, headers=ROOT
        )
        cursor = page["cursor"]
        if foreign:
            check_problem(foreign, 422, "cursor-invalid")
    assert names == ["in/a.csv", *(f"in/n{number:03}.csv" for number in range(150))]


async def test_items_are_described_previewed_and_summed_up(
    client: httpx2.AsyncClient, database: str
) -> None:
    orders = {"item": "public.orders"}
    described = await client.post("/sources/shop/describe", json=orders)
    assert "amount" in described.text
    preview = (await client.post("/sources/shop/preview", json=orders)).json()
    assert preview["columns"] == ["id", "country", "amount"]
    statistics = (await client.post("/sources/shop/statistics", json=orders)).json()
    assert statistics["amount"]["count"] == 12
    check_problem(
        await client.post("/sources/shop/preview", json={"item": "public.nothing"}),
        404,
        "item-not-found",
    )


async def test_content_has_ranges_and_an_etag(client: httpx2.AsyncClient, lake: Path) -> None:
    url = "/sources/lake/content?item=in/a.csv"
    full = await client.get(url)
    assert (full.status_code, full.content) == (200, CONTENT)
    assert int(full.headers["content-length"]) == len(CONTENT)
    assert full.headers["content-type"].startswith("text/csv")
    etag = full.headers["etag"]
    part = await client.get(url, headers={"range": "bytes=3-7"})
    assert (part.status_code, part.content) == (206, CONTENT[3:8])
    assert part.headers["content-range"] == "bytes 3-7/*"
    rest = await client.get(url, headers={"range": "bytes=9-"})
    assert (rest.status_code, rest.content) == (206, CONTENT[9:])
    same = await client.get(url, headers={"if-none-match": etag})
    assert (same.status_code, same.content) == (304, b"")
    resumed = await client.get(url, headers={"range": "bytes=9-", "if-range": '"other"'})
    assert (resumed.status_code, resumed.content) == (200, CONTENT)
    check_problem(await client.get(url, headers={"range": "bytes=99-"}), 416, "option-invalid")
    check_problem(await client.get("/sources/lake/content?item=out/a.csv"), 403, "not-allowed")


async def test_content_of_a_table_is_fetched_first(
    client: httpx2.AsyncClient, database: str
) -> None:
    answer = await client.get("/sources/shop/content?item=public.orders")
    assert answer.text.startswith("id,country,amount\n1,JP,1.50\n")
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_a_stream_that_fails_breaks_the_connection(
    client: httpx2.AsyncClient, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LocalFileConnector.open_stream

    async def broken(self: Any, identifier: str, **arguments: Any) -> Any:
        stream = await original(self, identifier, **arguments)

        async def chunks() -> AsyncIterator[bytes]:
            yield CONTENT[:5]

        stream._chunks = chunks()
        return stream

    monkeypatch.setattr(LocalFileConnector, "open_stream", broken)
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.get("/sources/lake/content?item=in/a.csv")


def events_of(text: str) -> list[tuple[str, Any]]:
    """Return the names and data of server-sent events."""
    events = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


async def test_a_workspace_reports_progress_and_a_receipt(
    client: httpx2.AsyncClient, lake: Path
) -> None:
    assert (await client.post("/workspaces/w")).status_code == 201
    check_problem(await client.post("/workspaces/w"), 409, "request-refused")
    answer = await client.post("/workspaces/w/fetch", json={"source": "lake", "item": "in/a.csv"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *progress, (last, receipt) = events_of(answer.text)
    assert (last, receipt["path"], receipt["size"]) == (
        "receipt",
        os.path.join("in", "a.csv"),
        len(CONTENT),
    )
    assert {name for name, _ in progress} == {"progress"}
    assert progress[-1][1] == {"bytes": len(CONTENT), "total": len(CONTENT)}
    missing = await client.post("/workspaces/w/fetch", json={"source": "lake", "item": "in/b.csv"})
    assert [(name, data["slug"]) for name, data in events_of(missing.text)] == [
        ("problem", "item-not-found")
    ]
    for name in ("unknown", "hr"):
        refused = await client.post("/workspaces/w/fetch", json={"source": name, "item": "a"})
        check_problem(refused, 404, "source-not-found")
    other = await client.delete("/workspaces/w", headers=ROOT)
    check_problem(other, 404, "request-refused")
    assert (await client.delete("/workspaces/w")).status_code == 204
    check_problem(await client.delete("/workspaces/w"), 404, "request-refused")


@pytest.mark.parametrize("path", ["/sources/shop/preview", "/workspaces/w/fetch"])
async def test_a_client_that_leaves_cancels_what_it_asked_for(
    client: httpx2.AsyncClient, registry: Any, database: str, path: str
) -> None:
    await client.post("/workspaces/w")
    body = json.dumps({"source": "shop", "item": ENDLESS}).encode()
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann-token\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (path.encode(), len(body), body)
    )
    await wait_until(lambda: registry.get_pool_stats("shop")["in_use"] == 1)
    writer.close()
    await wait_until(lambda: registry.get_pool_stats("shop")["in_use"] == 0)
