"""MCP as a route of the server, under its tokens and checks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Receive, Scope, Send

from datasources_agents.mcp.jobs import ServerFetches
from datasources_agents.mcp.server import AnyContext, Caller, build_for
from datasources_server.calls import Api, Call
from datasources_server.settings import ServerSettings


def mcp_routes(api: Api, route_class: type[APIRoute]) -> APIRouter:
    """Return the part of a server that has `/mcp`, for `create_app(…, root_parts=[mcp_routes])`.

    Every request stands alone, so that any worker can answer it, and is authenticated as all
    requests of the server. A principal has the tools for its own grants.
    """
    endpoint = _Endpoint(api)
    routes = APIRouter(route_class=route_class, lifespan=endpoint.lifespan)
    routes.post("/mcp", include_in_schema=False)(endpoint.answer)
    return routes


class _Endpoint:
    """Hands requests to the SDK."""

    def __init__(self, api: Api) -> None:
        self._settings = api.settings
        self._server = build_for(_find_caller, structured=False)
        self._manager: StreamableHTTPSessionManager

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Run what answers requests, which the SDK makes anew for each run."""
        self._server.streamable_http_app(
            stateless_http=True,
            max_request_body_size=self._settings.max_body,
            transport_security=_security(self._settings),
        )
        self._manager = self._server.session_manager
        async with self._manager.run():
            yield

    async def answer(self) -> Response:
        """Answer a request of MCP."""
        return _McpResponse(self._manager)


class _McpResponse(Response):
    """A response that the SDK sends."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        super().__init__()
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)


def _find_caller(context: AnyContext) -> Caller:
    request: Any = context.request_context.request
    call: Call = request.scope["datasources.call"]
    return Caller(call.access, ServerFetches(call, str(request.base_url)))


def _security(settings: ServerSettings) -> TransportSecuritySettings:
    """Return the SDK's checks of `Host` and `Origin`, which come after those of the server."""
    names = [f"[{host}]" if ":" in host else host for host in settings.allowed_hosts]
    origins = [f"{scheme}://{name}" for name in names for scheme in ("http", "https")]
    if settings.public_url is not None:
        url = urlsplit(settings.public_url)
        names.append(url.netloc)
        origins.append(f"{url.scheme}://{url.netloc}")
    return TransportSecuritySettings(
        allowed_hosts=[*names, *(f"{name}:*" for name in names)],
        allowed_origins=[*origins, *(f"{origin}:*" for origin in origins)],
    )
