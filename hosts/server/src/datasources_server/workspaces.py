"""Routes of workspaces: directories for files of granted sources, with a quota and an end."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from datasources import Record, Records, StoreError, guess_media_type
from datasources.json_values import to_iso_time
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AnyCall, Call, ExitStack
from datasources_server.documents import ReceiptsDocument, WorkspaceDocument
from datasources_server.items import CONTENT
from datasources_server.jobs import ACCEPTED, accepted
from datasources_server.places import acquire_place, release_place
from datasources_server.problems import Problem, invalid
from datasources_server.responses import (
    ApiResponse,
    ContentResponse,
    content_headers,
    read_file,
    select_part,
)
from datasources_server.running import JobRunner, Runner
from datasources_server.workspace_files import open_file

WORKSPACE = "workspace"
"""The kind of the records of workspaces."""
_PLACE = "workspace-place"
_MAX_ITEMS = 100  # of one job
_Source = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class WorkspaceBody(BaseModel):
    """The sources of a workspace, its quota in bytes, and its time to live in seconds."""

    model_config = ConfigDict(extra="forbid")

    sources: Annotated[list[_Source], Field(min_length=1, max_length=100)]
    quota: Annotated[int, Field(ge=1)] | None = None
    ttl: Annotated[int, Field(ge=1)] | None = None


class FetchItem(BaseModel):
    """An item of a source, its format, and the values of the parameters of a stored query."""

    model_config = ConfigDict(extra="forbid")

    source: _Source
    item: str
    format: str | None = None
    parameters: dict[str, Any] = {}


class FetchBody(BaseModel):
    """Items to fetch; without `wait`, the response does not wait for them."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[FetchItem], Field(min_length=1, max_length=_MAX_ITEMS)]
    wait: bool = True


def workspace_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes below `/workspaces`."""
    routes = ApiRouter(tags=["workspaces"], prefix="/workspaces", route_class=route_class)
    routes.post("", status_code=201, response_model=WorkspaceDocument)(make_workspace)
    routes.get("/{workspace_id}", response_model=WorkspaceDocument)(get_workspace)
    routes.delete("/{workspace_id}", status_code=204)(delete_workspace)
    routes.post("/{workspace_id}/fetch", response_model=ReceiptsDocument, responses=ACCEPTED)(
        fetch_items
    )
    content: dict[int | str, dict[str, Any]] = {200: CONTENT, 206: CONTENT}
    routes.get("/{workspace_id}/files/{path:path}", response_class=Response, responses=content)(
        get_file
    )
    return routes


async def make_workspace(call: AnyCall, runner: Runner, body: WorkspaceBody) -> ApiResponse:
    """Make a workspace, whose files are deleted at its end."""
    settings = call.settings
    quota = settings.workspace_quota if body.quota is None else body.quota
    ttl = settings.workspace_ttl if body.ttl is None else body.ttl
    if quota > settings.workspace_quota:
        raise invalid("#/quota", f"must be at most {settings.workspace_quota}")
    if ttl > settings.workspace_ttl:
        raise invalid("#/ttl", f"must be at most {settings.workspace_ttl:g}")
    workspace = await add_workspace(call, runner, {"sources": body.sources, "quota": quota}, ttl)
    return ApiResponse(_view(workspace), 201)


async def add_workspace(call: Call, runner: JobRunner, data: dict[str, Any], ttl: float) -> Record:
    """Add the record of a workspace and return it.

    Args:
        call: The request.
        runner: The jobs of this process.
        data: `sources`, `quota`, and what the caller wants to know it by.
        ttl: Seconds until it ends.

    Raises:
        Problem: The server has no workspaces, or the principal has too many.
        DataSourceNotFoundError: A source does not exist, or is not granted.
    """
    settings, records = call.settings, call.api.records()
    runner.root()
    await call.api.find(call.principal.id)
    for source_id in data["sources"]:
        await call.access.get_source(source_id)
    now = time.time()
    data = data | {"created_at": now}
    workspace = Record(WORKSPACE, uuid4().hex, call.principal.id, data, expires_at=now + ttl)
    return await asyncio.to_thread(_put, records, workspace, settings.workspaces)


async def get_workspace(call: AnyCall, workspace_id: str) -> ApiResponse:
    """Return a workspace: sources, quota and end."""
    return ApiResponse(_view(await _workspace(call, workspace_id)))


async def delete_workspace(call: AnyCall, runner: Runner, workspace_id: str) -> Response:
    """Cancel the jobs of a workspace, and delete its files."""
    workspace = await _workspace(call, workspace_id)
    runner.root()
    await asyncio.to_thread(_remove, call.api.records(), workspace)
    await runner.delete_workspace(workspace)
    return Response(status_code=204)


async def fetch_items(
    request: Request, call: AnyCall, runner: Runner, workspace_id: str, body: FetchBody
) -> ApiResponse:
    """Fetch items into a workspace, all of them or none.

    The receipts come at once if they are there within a few seconds. Otherwise, and without `wait`,
    the response is 202 with the address of the job.
    """
    workspace = await _workspace(call, workspace_id)
    sources = workspace.data["sources"]
    for number, item in enumerate(body.items):
        await call.access.authorize_fetch(item.source, item.item)
        if item.source not in sources:
            raise invalid(f"#/items/{number}/source", "is not a source of the workspace")
    job = await runner.start(call, workspace, [item.model_dump() for item in body.items])
    if body.wait:
        try:
            await asyncio.wait([job.task], timeout=call.settings.job_wait)
        except asyncio.CancelledError:
            job.cancel("the client has left")  # it does not know the id of the job
            raise
        if job.task.done():
            if job.problem is not None:
                raise job.problem
            return ApiResponse({"receipts": job.receipts})
    return await accepted(request, call, runner, job.record)


async def get_file(
    call: AnyCall,
    runner: Runner,
    stack: ExitStack,
    workspace_id: str,
    path: str,
    range: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """Return a file of a workspace, or a range of it."""
    workspace = await _workspace(call, workspace_id)
    file = await asyncio.to_thread(open_file, runner.directory_of(workspace), path)
    stack.callback(file.close)
    status = os.fstat(file.fileno())
    etag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    headers = content_headers(guess_media_type(path), etag, os.path.basename(path))
    code, first, end = select_part(headers, status.st_size, range, if_range)
    return ContentResponse(read_file(file, first, end), code, headers)


def _put(records: Records, workspace: Record, places: int) -> Record:
    """Store a new workspace and return it.

    Raises:
        Problem: 429, its owner has as many as are allowed.
    """
    data = {"workspace": workspace.id}
    place = acquire_place(records, _PLACE, workspace.owner, places, data, workspace.expires_at)
    if place is None:
        raise Problem(
            429,
            "too-many-workspaces",
            f"you have {places} workspaces, and more are not allowed; delete one",
        )
    workspace = replace(workspace, data={**workspace.data, "place": place.id})
    try:
        return records.put(workspace, expected=0)
    except BaseException:  # nobody else gives the place up before the workspace expires
        with suppress(StoreError):
            _remove(records, workspace)
        raise


def _remove(records: Records, workspace: Record) -> None:
    records.remove(WORKSPACE, workspace.id)
    release_place(records, _PLACE, workspace.data["place"], "workspace", workspace.id)


async def _workspace(call: Call, workspace_id: str) -> Record:
    workspace = await asyncio.to_thread(call.api.records().get, WORKSPACE, workspace_id)
    if workspace is None or workspace.owner != call.principal.id:
        raise Problem(404, "workspace-not-found", "you have no workspace of this id")
    return workspace


def _view(workspace: Record) -> dict[str, Any]:
    return {
        "id": workspace.id,
        "sources": workspace.data["sources"],
        "quota": workspace.data["quota"],
        "created_at": to_iso_time(workspace.data["created_at"]),
        "expires": to_iso_time(workspace.expires_at),
    }
