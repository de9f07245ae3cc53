"""Requests of MCP on the server, answered by the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from datasources_agents.mcp.jobs import ServerFetches
from datasources_agents.mcp.server import AnyContext, Caller, build_for
from datasources_server.calls import Call
from datasources_server.settings import ServerSettings


@asynccontextmanager
async def run_sessions(settings: ServerSettings) -> AsyncIterator[ASGIApp]:
    """Yield the application that answers the requests of a server during a block.

    Every request stands alone, so that any worker can answer it.
    """
    server = build_for(_find_caller, structured=False)
    server.streamable_http_app(
        stateless_http=True,
        max_request_body_size=settings.max_body,
        transport_security=_security(settings),
    )
    async with server.session_manager.run():
        yield server.session_manager.handle_request


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
