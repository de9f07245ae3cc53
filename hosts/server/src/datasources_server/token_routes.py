"""Routes that manage tokens."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from datasources import Grant
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AdminCall, Call
from datasources_server.documents import NewTokenDocument, TokenList
from datasources_server.problems import Problem
from datasources_server.responses import ApiResponse
from datasources_server.token_uses import read_uses
from datasources_server.tokens import TokenStore

_DAY = 86_400


class GrantBody(BaseModel):
    """Rights for one source, for all items or for those that match a pattern."""

    model_config = ConfigDict(extra="forbid")

    source: str
    rights: list[str]
    items: list[str] | None = None


class TokenBody(BaseModel):
    """A token to make; null days are no end."""

    model_config = ConfigDict(extra="forbid")

    name: str
    admin: bool = False
    grants: list[GrantBody] = []
    expires_days: Annotated[int, Field(ge=1, le=36_500)] | None = 90


def token_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes below `/tokens`."""
    routes = ApiRouter(tags=["tokens"], route_class=route_class)
    routes.get("/tokens", response_model=TokenList)(list_tokens)
    routes.post("/tokens", status_code=201, response_model=NewTokenDocument)(add_token)
    routes.delete("/tokens/{name}", status_code=204)(revoke_token)
    return routes


async def list_tokens(call: AdminCall) -> ApiResponse:
    """List who may do what with which source; tokens themselves are not kept."""
    tokens = await asyncio.to_thread(_tokens(call).list)
    uses: dict[str, float] = {}
    with suppress(Problem):  # the store keeps no records
        uses = await asyncio.to_thread(read_uses, call.api.records())
    return ApiResponse({"items": [token.to_dict(uses.get(token.name)) for token in tokens]})


async def add_token(call: AdminCall, body: TokenBody) -> ApiResponse:
    """Make a token, which is shown this once."""
    grants = [Grant(grant.source, grant.rights, grant.items) for grant in body.grants]
    seconds = None if body.expires_days is None else body.expires_days * _DAY
    token = await asyncio.to_thread(
        _tokens(call).add, body.name, admin=body.admin, grants=grants, seconds=seconds
    )
    _note(call, "token_made", body.name)
    return ApiResponse({"name": body.name, "token": token}, 201)


async def revoke_token(call: AdminCall, name: str) -> Response:
    """Revoke a token, and end what runs under it within seconds."""
    if not await asyncio.to_thread(_tokens(call).revoke, name):
        raise Problem(404, "token-not-found", "there is no such token")
    _note(call, "token_revoked", name)
    return Response(status_code=204)


def _note(call: Call, operation: str, name: str) -> None:
    if call.api.trail is not None:
        call.api.trail.note(
            operation,
            token=name,
            user=call.principal.id,
            request_id=call.request_id,
            outcome="ok",
        )


def _tokens(call: Call) -> TokenStore:
    assert call.api.tokens is not None  # else there are no routes
    return call.api.tokens
