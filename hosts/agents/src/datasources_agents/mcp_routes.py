"""MCP as a route of the server, under its tokens and checks.

The SDK takes longer to import than all the rest of a server. It is imported at the first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from datasources_server.calls import Api
from datasources_server.settings import ServerSettings


def mcp_routes(api: Api, route_class: type[APIRoute]) -> APIRouter:
    """Return the part of a server that has `/mcp`, for `create_app(…, root_parts=[mcp_routes])`.

    Every request is authenticated as all requests of the server. A principal has the tools for its
    own grants.
    """
    endpoint = _Endpoint(api.settings)
    routes = APIRouter(route_class=route_class, lifespan=endpoint.lifespan)
    routes.post("/mcp", include_in_schema=False)(endpoint.answer)
    return routes


class _Endpoint:
    """Hands requests to the SDK."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._requested: asyncio.Event
        self._application: asyncio.Future[ASGIApp]

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Run what answers requests, from the first request to the end of the block."""
        self._requested = asyncio.Event()
        self._application = asyncio.get_running_loop().create_future()
        # One task enters and leaves the task group of the SDK, as anyio demands.
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        await self._requested.wait()
        async with AsyncExitStack() as stack:
            try:
                sessions = await asyncio.to_thread(import_module, "datasources_agents.mcp.sessions")
                run = sessions.run_sessions(self._settings)
                application = await stack.enter_async_context(run)
            except Exception as exc:  # noqa: BLE001  (raised in the requests)
                self._application.set_exception(exc)
                return
            self._application.set_result(application)
            await asyncio.Event().wait()  # until it is cancelled

    async def answer(self) -> Response:
        """Answer a request of MCP."""
        self._requested.set()
        # A request that is cancelled must not cancel what others wait for.
        return _McpResponse(await asyncio.shield(self._application))


class _McpResponse(Response):
    """A response that the SDK sends."""

    def __init__(self, application: ASGIApp) -> None:
        super().__init__()
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)
