"""Links to content, which a browser opens without a token, once and within a minute.

The code of a link is random and long; its record is found by the SHA-256 of the code. The record
holds the item, which may be a query, encrypted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from datasources import Principal, Record, Records
from datasources.json_values import to_iso_time
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AnyCall, Api, ExitStack
from datasources_server.documents import LinkDocument
from datasources_server.guard import guarded_route
from datasources_server.items import CONTENT, ContentBody, send_content
from datasources_server.problems import Problem
from datasources_server.responses import ApiResponse
from datasources_server.settings import is_loopback

_KIND = "link"
_SECONDS = 60.0
_MAX_LINKS = 100  # of one principal that are neither used nor expired
_RANDOM_BYTES = 32
_PURPOSE = "server links"  # of the derived key


class LinkBody(BaseModel):
    """An item of a source, the format of its content, and values for a stored query."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    item: str
    format: str | None = None
    parameters: dict[str, Any] = {}


def link_routes(api: Api, route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes below `/links`."""
    routes = ApiRouter(tags=["data"])
    routes.add_api_route(
        "/links",
        make_link,
        methods=["POST"],
        status_code=201,
        response_model=LinkDocument,
        route_class_override=route_class,
    )
    by_code = guarded_route(replace(api, authenticate=partial(_authenticate, api)))
    routes.add_api_route(
        "/links/{code}",
        use_link,
        methods=["GET"],
        response_class=Response,
        responses={200: CONTENT},
        openapi_extra={"security": []},
        route_class_override=by_code,
    )
    return routes


async def make_link(call: AnyCall, request: Request, body: LinkBody) -> ApiResponse:
    """Make a link to the content of an item, usable once within 60 seconds."""
    records = call.api.records()
    await call.api.find(call.principal.id)
    await call.access.authorize_fetch(body.source, body.item)
    await call.access.get_source(body.source)
    limits = await asyncio.to_thread(call.access.limits, body.source)
    code = secrets.token_urlsafe(_RANDOM_BYTES)
    expires_at = time.time() + _SECONDS
    content = json.dumps([body.source, body.item, body.format, body.parameters])
    data = {"content": call.registry.credentials.seal(_PURPOSE, content.encode())}
    record = Record(_KIND, _hash(code), call.principal.id, data, expires_at=expires_at)
    await asyncio.to_thread(_put, records, record)
    url = f"{_base_url(request, call.settings.public_url)}{request.url.path}/{code}"
    answer = {"url": url, "expires": to_iso_time(expires_at), "max_rows": limits.max_rows}
    return ApiResponse(answer, 201)


async def use_link(
    request: Request,
    call: AnyCall,
    stack: ExitStack,
    code: str,  # noqa: ARG001  (`_authenticate` uses it; here it is for the OpenAPI document)
) -> Response:
    """Return the content of a link's item; the link cannot be used again.

    It needs no token. The principal that has made the link must still be allowed to fetch the item.
    """
    record: Record = request.scope["datasources.link"]
    sealed = record.data["content"]
    content = call.registry.credentials.unseal(_PURPOSE, sealed, max_age=int(_SECONDS))
    if content is None:
        raise _not_found()
    source_id, item, file_format, parameters = json.loads(content)
    body = ContentBody(item=item, format=file_format, parameters=parameters)
    response = await send_content(call, stack, source_id, body)
    del response.headers["accept-ranges"]  # a range would be a second use
    return response


async def _authenticate(api: Api, request: Request) -> Principal:
    """Use up a link, and return its principal; called again while the response is sent."""
    record: Record | None = request.scope.get("datasources.link")
    if record is None:
        code = _hash(request.path_params["code"])
        record = await asyncio.to_thread(api.records().take, _KIND, code)
        if record is None:
            raise _not_found()
        request.scope["datasources.link"] = record
    principal = await api.find(record.owner)
    if principal is None:
        raise _not_found()
    return principal


def _put(records: Records, link: Record) -> None:
    """Store a new link.

    Raises:
        Problem: 429, its owner has as many as are allowed.
    """
    records.put(link)
    # Counted afterwards: of requests at once, none could see the links of the others before.
    if len(records.list(_KIND, owner=link.owner, limit=_MAX_LINKS + 1)) > _MAX_LINKS:
        records.remove(_KIND, link.id)
        raise Problem(
            429,
            "too-many-links",
            f"more than {_MAX_LINKS} links that are not used yet",
            headers={"Retry-After": str(int(_SECONDS))},
            retryable=True,
        )


def _base_url(request: Request, public_url: str | None) -> str:
    """Return the address of the server for a client, without a slash at its end.

    It is the public one, but for a client of this machine that has not used it: such as a program
    beside a server whose proxy is on another machine. A proxy of this machine names its clients.
    """
    own = f"{request.url.scheme}://{request.url.netloc}"
    if public_url is None:
        return own
    is_local = request.client is not None and is_loopback(request.client.host)
    if is_local and is_loopback(request.url.hostname or ""):
        return own
    return public_url.rstrip("/")


def _not_found() -> Problem:
    return Problem(404, "link-not-found", "the link was used already, or is more than a minute old")


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogateescape")).hexdigest()
