"""An MCP server on loopback, for clients that have its token."""

from __future__ import annotations

import hmac
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY = 1 << 20
"""Bytes of a request's body."""


def loopback_app(server: MCPServer[Any], token: str) -> ASGIApp:
    """Return the application that serves `/mcp` on 127.0.0.1.

    Requests need the token, and a `Host` of this machine; pages of other sites are refused.
    """
    hosts = ("127.0.0.1", "localhost", "[::1]")
    app = server.streamable_http_app(
        stateless_http=True,
        max_request_body_size=MAX_BODY,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[f"{host}:*" for host in hosts],
            allowed_origins=[f"http://{host}:*" for host in hosts],
        ),
    )
    return BearerToken(app, token)


class BearerToken:
    """ASGI middleware that refuses requests without a token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_authentic(Headers(scope=scope)):
            problem = {
                "error": "the request needs the header `Authorization: Bearer` with the token"
            }
            response = JSONResponse(problem, 401, {"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_authentic(self, headers: Headers) -> bool:
        values = headers.getlist("authorization")
        if len(values) != 1:
            return False
        scheme, _, token = values[0].partition(" ")
        same = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)
        return same and scheme.lower() == "bearer"
