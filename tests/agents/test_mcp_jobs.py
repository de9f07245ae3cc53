"""The jobs of `/mcp` in the workspaces of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from datasources import FetchRequest, Grant, Principal, Record
from datasources_agents.mcp.jobs import ServerFetches
from datasources_agents.tools import JobNotFoundError
from datasources_server import ServerSettings, create_app
from datasources_server.calls import AnyCall, Api
from datasources_server.responses import ApiResponse
from datasources_server.workspaces import add_workspace
from tests.core.fakes import MemoryConnector, registry_of, source
from tests.waiting import wait_until

ANN = Principal("ann", grants=[Grant("s", {"read", "query"})])


def fetches(api: Api, route_class: type[APIRoute]) -> APIRouter:
    """Return routes that do what the tools of `/mcp` do."""
    del api
    routes = APIRouter(route_class=route_class)

    @routes.post("/fetch")
    async def fetch(call: AnyCall) -> ApiResponse:
        request = FetchRequest("s", "a.csv")
        result = await ServerFetches(call, "http://x/").fetch(call.access, request, None, None)
        return ApiResponse(result)

    @routes.post("/status/{job_id}")
    async def status(call: AnyCall, job_id: str) -> ApiResponse:
        own = ServerFetches(call, "http://x/")
        return ApiResponse(await own.status(call.access, job_id, cancel=False))

    return routes


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server whose workspaces last ten minutes, two of a principal at once."""
    settings = ServerSettings(workspace_root=str(tmp_path), workspace_ttl=600, workspaces=2)
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        app = create_app(
            registry,
            authenticate=lambda _: ANN,
            find_principal=lambda _: ANN,
            settings=settings,
            parts=[fetches],
        )
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            yield client


async def test_workspace_that_lasts_less_than_an_hour_is_used_again(
    client: httpx2.AsyncClient,
) -> None:
    fetched = [(await client.post("/v1/fetch")).json() for _ in range(3)]
    assert [result["state"] for result in fetched] == ["finished"] * 3
    assert len({result["url"].rpartition("/")[0] for result in fetched}) == 1


async def test_first_fetches_at_once_are_in_one_workspace(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = 0
    look = ServerFetches._workspace

    async def count(fetches: ServerFetches, source_id: str) -> Record:
        nonlocal looking
        looking += 1
        return await look(fetches, source_id)

    async def add_when_both_look(*arguments: Any) -> Record:
        await wait_until(lambda: looking == 2)
        return await add_workspace(*arguments)

    monkeypatch.setattr(ServerFetches, "_workspace", count)
    monkeypatch.setattr("datasources_agents.mcp.jobs.add_workspace", add_when_both_look)
    answers = await asyncio.gather(*(client.post("/v1/fetch") for _ in range(2)))
    assert len({answer.json()["url"].rpartition("/")[0] for answer in answers}) == 1


async def test_job_of_several_items_is_none_of_fetch_item(client: httpx2.AsyncClient) -> None:
    made = await client.post("/v1/workspaces", json={"sources": ["s"]})
    items = [{"source": "s", "item": name} for name in ("a.csv", "b.csv")]
    path = f"/v1/workspaces/{made.json()['id']}/fetch"
    job: dict[str, Any] = (await client.post(path, json={"items": items, "wait": False})).json()
    while job["state"] == "running":
        await asyncio.sleep(0.01)
        job = (await client.get(f"/v1/jobs/{job['id']}")).json()
    answer = await client.post(f"/v1/status/{job['id']}")
    assert (answer.status_code, answer.json()["type"]) == (
        JobNotFoundError.http_status,
        f"urn:datasources:error:{JobNotFoundError.slug}",
    )
