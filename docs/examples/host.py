"""A host: sources, pages, streams and workspaces over HTTP, for principals with grants."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, TypeVar, cast

from fastapi import Body, Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from datasources import (
    Access,
    DataSourceConfig,
    DataSourceError,
    DataSourceRegistry,
    ItemStream,
    Limits,
    Policy,
    PolicyError,
    Principal,
    WorkspaceSession,
    abilities,
    form,
)

T = TypeVar("T")
POLICY = Policy(limits=Limits(max_bytes=50_000_000), denied_networks=("169.254.0.0/16",))
PRINCIPALS: dict[str, Principal] = {}  # by token; put your own authentication here


# application
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one registry and the open workspaces as long as the host runs."""
    opening = DataSourceRegistry.open(store=os.environ["STORE"], policy=POLICY)
    async with await opening as app.state.registry:
        app.state.workspaces = {}
        yield
        for _, stack in app.state.workspaces.values():
            await stack.aclose()


app = FastAPI(lifespan=lifespan)


def problem(slug: str, status: int, detail: str, **more: Any) -> JSONResponse:
    """Return a problem document (RFC 9457)."""
    content = {"type": f"urn:datasources:{slug}", "title": slug, "status": status, "detail": detail}
    return JSONResponse(content | more, status, media_type="application/problem+json")


@app.exception_handler(DataSourceError)
async def on_error(request: Request, error: DataSourceError) -> JSONResponse:
    # HTTP has statuses of its own for a condition and for a range that do not hold.
    stale, outside = error.slug == "conflict", error.slug == "option-invalid"
    status = 412 if stale and "if-match" in request.headers else error.http_status
    status = 416 if outside and "range" in request.headers else status
    return problem(error.slug, status, str(error), retryable=error.retryable)


@app.exception_handler(HTTPException)  # the framework's own 404 and 405, too
async def on_refusal(_: Request, error: HTTPException) -> JSONResponse:
    return problem("request-refused", error.status_code, str(error.detail))


@app.exception_handler(RequestValidationError)
async def on_malformed(_: Request, error: RequestValidationError) -> JSONResponse:
    # FastAPI's own answer repeats the request, which may hold a secret.
    places = [".".join(map(str, place["loc"])) for place in error.errors()]
    return problem("request-malformed", 422, f"malformed: {', '.join(places)}")


# access
async def registry_of(request: Request) -> DataSourceRegistry:
    return cast("DataSourceRegistry", request.app.state.registry)


Registry = Annotated[DataSourceRegistry, Depends(registry_of)]


async def access_of(request: Request, registry: Registry) -> Access:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token not in PRINCIPALS:
        raise HTTPException(401, "a valid token is needed")
    return registry.access(PRINCIPALS[token], quota=200_000_000)


Accessing = Annotated[Access, Depends(access_of)]


async def manager_of(access: Accessing, registry: Registry) -> DataSourceRegistry:
    if not access.principal.is_admin:
        raise PolicyError("only an administrator may manage sources")
    return registry


Managing = Annotated[DataSourceRegistry, Depends(manager_of)]
Json = dict[str, Any]
Text = Annotated[str, Body(embed=True)]
Table = Annotated[Json, Body()]
Version = Annotated[str, Header(pattern=r'^"\d{1,18}"$')]


async def until_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, or cancel it when the client leaves."""
    working = asyncio.create_task(work)
    leaving = asyncio.ensure_future(request.receive())  # after the body: waits for the disconnect
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the client has left")  # nobody reads it
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait([working, leaving])


# sources
@app.get("/types")
async def list_types(_: Accessing, registry: Registry) -> list[str]:
    return registry.plugins.types()


@app.get("/types/{name}")
async def get_type(name: str, _: Accessing, registry: Registry) -> Json:
    connector = await asyncio.to_thread(registry.plugins.connector_class, name)  # may import it
    options = connector.options_class
    return {"abilities": sorted(abilities(connector)), "form": options and form(options)}


@app.get("/sources")
async def list_sources(access: Accessing) -> list[Json]:
    return [config.to_dict() for config in await access.list_sources()]


@app.get("/sources/{source_id}")
async def get_source(source_id: str, access: Accessing, response: Response) -> Json:
    config = await access.get_source(source_id)
    response.headers["etag"] = f'"{config.version}"'
    return config.to_dict()


@app.put("/sources/{source_id}", status_code=201)
async def create_source(source_id: str, source: Table, registry: Managing) -> Json:
    config = DataSourceConfig.from_dict({"name": source_id, **source, "id": source_id})
    await registry.register_data_source(config)  # refuses an id that is taken
    return registry.get_config(source_id).to_dict()


@app.patch("/sources/{source_id}")
async def change(source_id: str, changes: Table, registry: Managing, if_match: Version) -> Json:
    expected = int(if_match.strip('"'))
    return (await registry.update_data_source(source_id, changes, expected=expected)).to_dict()


@app.delete("/sources/{source_id}", status_code=204)
async def delete_source(source_id: str, registry: Managing) -> None:
    await registry.unregister_data_source(source_id)


@app.post("/sources/{source_id}/pause", status_code=204)
async def pause(source_id: str, reason: Text, registry: Managing) -> None:
    await registry.pause(source_id, reason)


@app.post("/sources/{source_id}/resume", status_code=204)
async def resume(source_id: str, registry: Managing) -> None:
    await registry.resume(source_id)


@app.post("/sources/{source_id}/test")
async def test(source_id: str, registry: Managing) -> Json:
    return (await registry.check_connection(source_id)).to_dict()


# items
@app.get("/sources/{source_id}/items")
async def list_items(source_id: str, access: Accessing, path: str = "", cursor: str = "") -> Json:
    page = await access.list_page(source_id, path or None, limit=100, cursor=cursor or None)
    return page.to_dict()


@app.post("/sources/{source_id}/describe")
async def describe(source_id: str, item: Text, access: Accessing, request: Request) -> Json:
    return await until_disconnected(request, access.get_metadata(source_id, item))


@app.post("/sources/{source_id}/preview")
async def preview(source_id: str, item: Text, access: Accessing, request: Request) -> Json:
    return (await until_disconnected(request, access.preview(source_id, item))).to_dict()


@app.post("/sources/{source_id}/statistics")
async def statistics(source_id: str, item: Text, access: Accessing, request: Request) -> Json:
    columns = await until_disconnected(request, access.statistics(source_id, item))
    return {name: column.to_dict() for name, column in columns.items()}


async def open_content(
    source_id: str, item: str, access: Accessing, request: Request
) -> AsyncIterator[tuple[ItemStream, int | None]]:
    """Open the stream of an item, or of the range asked for, until the response has been sent."""
    # A host may ignore a range, and may not send a part of other content than the client has.
    asked = "" if "if-range" in request.headers else request.headers.get("range", "")
    found = re.fullmatch(r"bytes=(\d{1,18})-(\d{0,18})", asked)
    start = int(found[1]) if found else None
    end = int(found[2]) + 1 if found and found[2] else None
    async with access.open_stream(source_id, item, start=start, end=end) as stream:
        yield stream, start


Content = Annotated[tuple[ItemStream, int | None], Depends(open_content)]


@app.get("/sources/{source_id}/content")
async def send_content(content: Content, request: Request) -> Response:
    stream, start = content
    headers = {"accept-ranges": "bytes"}
    if stream.etag:
        headers["etag"] = '"{}"'.format(stream.etag.strip('"'))
    if request.headers.get("if-none-match", "") == headers.get("etag"):
        return Response(None, 304, headers)
    if stream.size is not None:
        headers["content-length"] = str(stream.size)
        if start is not None:
            headers["content-range"] = f"bytes {start}-{start + stream.size - 1}/*"
    # An error from here on breaks the connection, so that no part passes for the whole.
    return StreamingResponse(stream, 200 if start is None else 206, headers, stream.media_type)


# workspaces
Opened = tuple[WorkspaceSession, AsyncExitStack]


@app.post("/workspaces/{workspace_id}", status_code=201)
async def open_workspace(workspace_id: str, access: Accessing, request: Request) -> None:
    stack = AsyncExitStack()
    session = await stack.enter_async_context(access.workspace(workspace_id))
    key = access.principal.id, workspace_id
    if request.app.state.workspaces.setdefault(key, (session, stack))[0] is not session:
        await stack.aclose()
        raise HTTPException(409, "the workspace is open already")


async def opened(workspace_id: str, access: Accessing, request: Request) -> Opened:
    workspaces: dict[tuple[str, str], Opened] = request.app.state.workspaces
    if (key := (access.principal.id, workspace_id)) not in workspaces:
        raise HTTPException(404, "there is no such workspace")
    return workspaces[key]


Workspace = Annotated[Opened, Depends(opened)]


@app.delete("/workspaces/{workspace_id}", status_code=204)
async def close_workspace(workspace: Workspace, access: Accessing, request: Request) -> None:
    session, stack = workspace
    del request.app.state.workspaces[access.principal.id, session.id]
    await stack.aclose()  # cancels its fetches and deletes its files


@app.post("/workspaces/{workspace_id}/fetch")
async def fetch(source: Text, item: Text, access: Accessing, workspace: Workspace) -> Response:
    await access.authorize_fetch(source, item)
    return StreamingResponse(events(workspace[0], source, item), media_type="text/event-stream")


async def events(session: WorkspaceSession, source_id: str, item: str) -> AsyncIterator[str]:
    """Yield server-sent events: the progress of a fetch, then its receipt or a problem."""
    queue: asyncio.Queue[tuple[int, int | None] | None] = asyncio.Queue()
    put = queue.put_nowait
    fetching = asyncio.create_task(session.fetch(source_id, item, progress=lambda *now: put(now)))
    fetching.add_done_callback(lambda _: put(None))
    try:
        while (now := await queue.get()) is not None:
            yield event("progress", {"bytes": now[0], "total": now[1]})
        receipt = await fetching
        path = receipt.path.removeprefix(f"{session.path}{os.sep}")
        yield event("receipt", receipt.to_dict() | {"path": path})
    except DataSourceError as error:
        yield event("problem", error.to_dict())
    finally:
        fetching.cancel()  # the client may have left


def event(name: str, data: Json) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
