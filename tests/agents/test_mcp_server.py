"""`datasources serve` with `/mcp`: its tokens, its checks, its workspaces and jobs."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from datasources import DataSourceRegistry, Plugins, Principal
from datasources_agents import mcp_routes
from datasources_server import create_app
from tests.agents.shops import SLOW, Shop, open_shop
from tests.conftest import _served
from tests.listeners import listening
from tests.server.client import Answer, Client as ApiClient
from tests.server.served import ServeCommand
from tests.servers import Database
from tests.waiting import wait_until

MODES = ("auto", "legacy")
ALL = ("read", "query")
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
_numbers = itertools.count()
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def server() -> Iterator[ServeCommand]:
    yield from _served(ServeCommand("--allow-network", "127.0.0.0/8"))


@pytest.fixture
async def shop(pg_database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(pg_database, tmp_path) as shop:
        yield shop


@pytest.fixture
def shop_id(server: ServeCommand, shop: Shop) -> str:
    """The id of a source of the server on the database of the shop."""
    source_id = f"shop-{next(_numbers)}"
    body = {
        "type": "postgresql",
        "options": shop.options,
        "queries": {
            "by-city": {
                "text": "SELECT * FROM orders WHERE city = :city",
                "parameters": {"city": {"type": "text"}},
            }
        },
    }
    answer = server.admin("PUT", f"/sources/{source_id}", body, headers={"If-None-Match": "*"})
    assert answer.status == 201, answer.body
    return source_id


def make_token(server: ServeCommand, *grants: tuple[str, tuple[str, ...]]) -> tuple[str, str]:
    """Make a token, and return its name and the token."""
    name = f"user-{next(_numbers)}"
    body = {"name": name, "grants": [{"source": source, "rights": r} for source, r in grants]}
    answer = server.admin("POST", "/tokens", body)
    assert answer.status == 201, answer.body
    return name, answer.json["token"]


@asynccontextmanager
async def connect(server: ServeCommand, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{server.port}/mcp"
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


def text_of(result: Any) -> str:
    return next(block.text for block in result.content if isinstance(block, TextContent))


def values(result: Any) -> dict[str, Any]:
    assert not result.is_error, text_of(result)
    loaded: dict[str, Any] = json.loads(text_of(result))
    return loaded


def post(port: int, token: str | None, **headers: str) -> Answer:
    return ApiClient(port, token)("POST", "/mcp", PING, headers=HEADERS | headers, prefix="")


def test_the_sdk_is_imported_by_the_first_request_and_not_before(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "datasources"]
    store = ["--store", str(tmp_path / "sources.db")]
    command += [*store, "serve", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "datasources_agents.mcp_routes" in imported
    assert not {"mcp", "mcp_types"} & imported


async def test_the_first_requests_may_come_at_once() -> None:
    with ServeCommand() as server:
        token = server.admin.token
        first = [asyncio.to_thread(post, server.port, token) for _ in range(5)]
        assert [answer.status for answer in await asyncio.gather(*first)] == [200] * 5


async def test_failed_import_answers_all_requests_and_lets_the_server_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(mcp_routes, "import_module", fail)
    registry = DataSourceRegistry(plugins=Plugins(index=[]))
    app = create_app(
        registry,
        authenticate=lambda _: Principal("ann", roles={"admin"}),
        root_parts=[mcp_routes.mcp_routes],
    )
    transport = httpx2.ASGITransport(app)
    async with (
        registry,
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        answers = await asyncio.gather(*(client.post("/mcp", json=PING) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [500] * 3


@pytest.mark.parametrize("mode", MODES)
async def test_a_token_has_the_tools_for_its_grants(
    server: ServeCommand, shop_id: str, mode: str
) -> None:
    _, granted = make_token(server, (shop_id, ("read",)))
    _, other = make_token(server, ("elsewhere", ("read",)))
    call = ("preview_item", {"source": shop_id, "item": "public.orders", "rows": 1})
    async with connect(server, granted, mode) as client:
        listed = values(await client.call_tool("list_sources", {}))
        assert [source["id"] for source in listed["sources"]] == [shop_id]
        assert values(await client.call_tool(*call))["rows"] == [[1, "Bern", "1.5"]]
        (content,) = (await client.read_resource(f"datasource://{shop_id}/public.orders")).contents
        assert content.model_dump()["text"].startswith("id,city,total\n")
    async with connect(server, other, mode) as client:
        assert values(await client.call_tool("list_sources", {}))["sources"] == []
        refused = await client.call_tool(*call)
        unknown = await client.call_tool(call[0], {**call[1], "source": "unknown"})
    assert text_of(refused) == text_of(unknown)
    assert refused.is_error


@pytest.mark.parametrize("mode", MODES)
async def test_a_fetch_ends_as_a_file_of_a_workspace(
    server: ServeCommand, shop_id: str, mode: str
) -> None:
    _, token = make_token(server, (shop_id, ("read",)))
    _, other = make_token(server, (shop_id, ("read",)))
    async with connect(server, token, mode) as client:
        arguments: dict[str, Any] = {"source": shop_id, "item": "public.orders", "max_rows": 3}
        receipt = values(await client.call_tool("fetch_item", arguments))
        arguments = {
            "source": shop_id,
            "item": "query:by-city",
            "parameters": [{"name": "city", "value": "Oslo"}],
        }
        query = values(await client.call_tool("fetch_item", arguments))
    assert (receipt["rows"], receipt["truncated"]) == (3, True)
    assert query["rows"] == 12
    assert receipt["uri"] == f"datasource://{shop_id}/public.orders"
    path = receipt["url"].removeprefix(f"http://127.0.0.1:{server.port}")
    file = ApiClient(server.port, token)("GET", path, prefix="")
    assert len(file.body.splitlines()) == 1 + 3
    assert query["url"].rpartition("/")[0] == receipt["url"].rpartition("/")[0]
    assert ApiClient(server.port, other)("GET", path, prefix="").status == 404


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_leaves_leaves_no_query(
    server: ServeCommand, shop: Shop, shop_id: str, mode: str
) -> None:
    _, token = make_token(server, (shop_id, ALL))
    for tool in ("fetch_item", "preview_item"):

        async def call(tool: str = tool) -> None:
            async with connect(server, token, mode) as client:
                await client.call_tool(tool, {"source": shop_id, "item": SLOW})

        task = asyncio.create_task(call())
        await wait_until(shop.running)
        task.cancel()
        await asyncio.wait([task])
        await wait_until(lambda: not shop.running())


async def test_a_revoked_token_ends_what_it_has_started(
    server: ServeCommand, shop: Shop, shop_id: str
) -> None:
    name, token = make_token(server, (shop_id, ALL))
    async with connect(server, token) as client:
        call = client.call_tool("preview_item", {"source": shop_id, "item": SLOW})
        task = asyncio.create_task(call)
        await wait_until(shop.running)
        assert server.admin("DELETE", f"/tokens/{name}").status == 204
        await wait_until(lambda: not shop.running())
        await asyncio.wait([task])
    task.exception()
    assert post(server.port, token).status == 401


def test_requests_without_a_valid_token_are_refused(server: ServeCommand) -> None:
    with ServeCommand() as elsewhere:
        foreign = (elsewhere.home / "admin-token").read_text("utf-8").strip()
        assert post(elsewhere.port, foreign).status != 401
        answers = [post(server.port, token) for token in (None, "wrong", foreign)]
    assert [answer.status for answer in answers] == [401, 401, 401]
    assert {answer.slug for answer in answers} == {"not-authenticated"}


FOREIGN = [
    ({"Host": "evil.example"}, 421),
    ({"Host": "127.0.0.1.evil.example"}, 421),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_foreign_pages_are_refused(
    server: ServeCommand, headers: dict[str, str], status: int
) -> None:
    _, token = make_token(server, ("elsewhere", ("read",)))
    assert post(server.port, token, **headers).status == status


def test_only_posts_are_answered(server: ServeCommand) -> None:
    _, token = make_token(server, ("elsewhere", ("read",)))
    client = ApiClient(server.port, token)
    for method in ("GET", "DELETE"):
        assert client(method, "/mcp", headers=HEADERS, prefix="").status == 405


def test_a_header_that_names_another_source_is_refused(server: ServeCommand) -> None:
    _, token = make_token(server, ("a", ("read",)), ("b", ("read",)))
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "list_items", "arguments": {"source": "a"}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = HEADERS | {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "list_items",
    }
    client = ApiClient(server.port, token)
    answers = [
        client("POST", "/mcp", body, headers=headers | {"Mcp-Param-Source": source}, prefix="")
        for source in ("a", "b")
    ]
    assert [answer.status for answer in answers] == [200, 400]
    assert answers[1].json["error"]["code"] == -32020


async def test_no_token_reaches_a_connector(server: ServeCommand) -> None:
    async with listening() as listeners:
        options = {"host": listeners.host, "port": listeners.port, "database": "d", "user": "u"}
        body = {"type": "postgresql", "options": options | {"password": "p"}}
        headers = {"If-None-Match": "*"}
        made = await asyncio.to_thread(
            server.admin, "PUT", "/sources/listener", body, headers=headers
        )
        assert made.status == 201, made.body
        _, token = await asyncio.to_thread(make_token, server, ("listener", ("read",)))
        async with connect(server, token) as client:
            result = await client.call_tool("list_items", {"source": "listener"})
        assert result.is_error
        assert listeners.connections > 0
        assert token.encode() not in listeners.content
        assert token not in text_of(result)
    assert token not in server.log


async def test_jobs_are_known_to_their_principal_alone(
    server: ServeCommand, shop: Shop, shop_id: str
) -> None:
    _, token = make_token(server, (shop_id, ALL))
    _, other = make_token(server, (shop_id, ALL))
    api = ApiClient(server.port, token)
    workspace = api("POST", "/workspaces", {"sources": [shop_id]}).json["id"]
    body = {"items": [{"source": shop_id, "item": SLOW}], "wait": False}
    job = api("POST", f"/workspaces/{workspace}/fetch", body).json["id"]
    await wait_until(shop.running)
    async with connect(server, other) as client:
        refused = await client.call_tool("fetch_status", {"job": job, "cancel": True})
        unknown = await client.call_tool("fetch_status", {"job": "unknown"})
    assert text_of(refused) == text_of(unknown)
    async with connect(server, token) as client:
        assert values(await client.call_tool("fetch_status", {"job": job}))["state"] == "running"
        await client.call_tool("fetch_status", {"job": job, "cancel": True})
        await wait_until(lambda: not shop.running())
