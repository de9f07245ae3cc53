"""The application that serves the code of one workspace session."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import cast
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from datasources import Access, DataSourceRegistry, Principal, Records, WorkspaceSession
from datasources_server.calls import Api, Call, SourceId
from datasources_server.documents import (
    FileReceiptDocument,
    SourceDocument,
    SourcePage,
)
from datasources_server.guard import guarded_route
from datasources_server.items import ContentBody, item_routes
from datasources_server.problems import Problem, ProblemResponse, problem_of
from datasources_server.receipts import public_receipt
from datasources_server.responses import ApiResponse
from datasources_server.settings import ServerSettings
from datasources_server.sharing import share_below
from datasources_server.sources import get_source, list_sources
from datasources_server.uploads import upload_routes


class _WorkspaceApi(Api):
    """The parts that the requests of all sessions share; a connection knows its session."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(cast("DataSourceRegistry", None), self.principal_of, settings)

    async def principal_of(self, request: Request) -> Principal:
        session = session_of(request)
        if session.closed:
            raise Problem(410, "workspace-closed", "the workspace of this socket has ended")
        return session.granted.principal

    async def call_of(self, request: Request) -> Call:
        principal = await self.principal_of(request)
        access = cast("Access", session_of(request).granted)
        return _WorkspaceCall(self, principal, access, request.scope["datasources.request_id"])

    def records(self) -> Records:
        raise Problem(501, "not-supported", "the socket of a workspace keeps no records")


class _WorkspaceCall(Call):
    """One request of the code of a session."""

    @property
    def registry(self) -> DataSourceRegistry:
        registry: DataSourceRegistry = self.access.registry
        return registry


def session_of(request: Request) -> WorkspaceSession:
    """Return the session of a request's connection."""
    session: WorkspaceSession = request.scope["state"]["session"]
    return session


@lru_cache(maxsize=8)
def make_workspace_app(settings: ServerSettings) -> FastAPI:
    """Return the application with the data routes below `/v1`, for the sessions of all registries.

    The state of a connection has its `session`, and `is_shared`, which is True if the code runs as
    another user.
    """
    app = FastAPI(openapi_url=None)
    api = _WorkspaceApi(settings)
    route_class = guarded_route(api)
    app.include_router(_source_routes(route_class), prefix="/v1")
    app.include_router(item_routes(route_class), prefix="/v1")
    app.include_router(upload_routes(guarded_route(api, streamed=True)), prefix="/v1")
    app.add_exception_handler(HTTPException, _handle_error)
    app.add_exception_handler(Exception, _handle_error)
    return app


def _source_routes(route_class: type[APIRoute]) -> APIRouter:
    routes = APIRouter(prefix="/sources", route_class=route_class)
    routes.get("", response_model=SourcePage)(list_sources)
    routes.get("/{source_id}", response_model=SourceDocument)(get_source)
    routes.post("/{source_id}/fetch", response_model=FileReceiptDocument)(fetch_item)
    return routes


async def fetch_item(request: Request, source_id: SourceId, body: ContentBody) -> ApiResponse:
    """Fetch an item into the workspace; return its path there, and its receipt."""
    session = session_of(request)
    receipt = await session.fetch(
        source_id, body.item, format=body.format, parameters=body.parameters
    )
    path = receipt.path.removeprefix(f"{session.path}/")
    if request.scope["state"]["is_shared"]:
        await asyncio.to_thread(share_below, session.path, path)
    return ApiResponse(public_receipt(receipt) | {"source": source_id, "path": path})


async def _handle_error(_: Request, error: Exception) -> Response:
    """Answer what no route has, such as an unknown address."""
    return ProblemResponse(problem_of(error), str(uuid4()))
