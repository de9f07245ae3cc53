"""The application, and its routes for the application of a host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from datasources import AuditLog, DataSourceRegistry, OptionError, Principal, __version__
from datasources_server.api_router import PROBLEMS, ApiRouter
from datasources_server.audit import AuditTrail, audit_routes
from datasources_server.calls import Api, Authenticate, CheckCsrf, FindPrincipal
from datasources_server.console_routes import console_routes
from datasources_server.documents import StatusDocument, describe_api, methods_of
from datasources_server.guard import guarded_route
from datasources_server.items import item_routes
from datasources_server.jobs import job_routes
from datasources_server.links import link_routes
from datasources_server.metrics import metrics_routes
from datasources_server.problems import ProblemResponse, problem_of
from datasources_server.receipts import receipt_routes
from datasources_server.responses import ApiResponse
from datasources_server.running import JobRunner
from datasources_server.settings import ServerSettings
from datasources_server.sources import source_routes
from datasources_server.splits import split_routes
from datasources_server.token_routes import token_routes
from datasources_server.token_uses import TokenUses
from datasources_server.tokens import TokenStore
from datasources_server.types import type_routes
from datasources_server.uploads import upload_routes
from datasources_server.workspaces import workspace_routes

Part = Callable[[Api, type[APIRoute]], APIRouter]
"""Returns routes, given what all requests share, and the class of routes that are guarded."""


def router(
    registry: DataSourceRegistry,
    *,
    authenticate: Authenticate | None = None,
    find_principal: FindPrincipal | None = None,
    tokens: TokenStore | None = None,
    settings: ServerSettings | None = None,
    audit_log: AuditLog | None = None,
    cookies: bool = False,
    csrf: CheckCsrf | None = None,
    parts: Sequence[Part] = (),
) -> APIRouter:
    """Return the routes of the API, for `app.include_router(routes, prefix="/v1")`.

    Each route checks its requests by itself, and answers errors with problem documents, whatever
    middleware and handlers the application has.

    Args:
        registry: The sources; the host closes it.
        authenticate: Returns the principal of a request, or None; may be a coroutine function. It
            is called again, every few seconds, for requests that take longer. By default it is that
            of the tokens.
        find_principal: Returns the principal of an id as it is now, None if it may do nothing any
            more; may be a coroutine function. Links, plans of splits and workspaces need it. With
            `authenticate` left out, it is that of the tokens.
        tokens: Tokens that administrators manage below `/tokens`; None is without these routes.
        settings: Addresses and limits.
        audit_log: A log of the host that gets the entries about tokens and refused requests, too.
            The host registers it with the registry for all others.
        cookies: True if `authenticate` reads cookies; otherwise it sees requests without them.
        csrf: Returns True if a request with cookies was made by a page of the host, such as by a
            secret that only these pages have; may be a coroutine function. It is asked for each
            request that may change something.
        parts: More routes, such as those of `datasources_agents.gateway`.

    Raises:
        OptionError: Neither `authenticate` nor `tokens` is given, or `cookies` without `csrf`.
    """
    api = _api(
        registry,
        authenticate=authenticate,
        find_principal=find_principal,
        tokens=tokens,
        settings=settings,
        audit_log=audit_log,
        cookies=cookies,
        csrf=csrf,
    )
    return _router(api, parts)


def create_app(
    registry: DataSourceRegistry,
    *,
    authenticate: Authenticate | None = None,
    find_principal: FindPrincipal | None = None,
    tokens: TokenStore | None = None,
    settings: ServerSettings | None = None,
    audit_log: AuditLog | None = None,
    cookies: bool = False,
    csrf: CheckCsrf | None = None,
    console: bool = False,
    parts: Sequence[Part] = (),
    root_parts: Sequence[Part] = (),
    **arguments: Any,
) -> FastAPI:
    """Return an application with the API below `/v1`, `/healthz`, `/readyz` and `/metrics`.

    Args:
        registry: The sources; the host closes it.
        authenticate: As for `router`.
        find_principal: As for `router`.
        tokens: As for `router`.
        settings: Addresses and limits.
        audit_log: As for `router`.
        cookies: As for `router`.
        csrf: As for `router`.
        console: True for the console at `/`, which asks its users for a bearer token.
        parts: As for `router`.
        root_parts: More routes that are not below `/v1`, such as `datasources_agents.mcp_routes`.
        arguments: More arguments of `FastAPI`, such as `lifespan`.

    Raises:
        OptionError: As `router`.
    """
    api = _api(
        registry,
        authenticate=authenticate,
        find_principal=find_principal,
        tokens=tokens,
        settings=settings,
        audit_log=audit_log,
        cookies=cookies,
        csrf=csrf,
    )
    app = FastAPI(
        title="datasources",
        version=__version__,
        docs_url=None,  # the pages load scripts of other hosts
        redoc_url=None,
        **arguments,
    )
    app.include_router(_router(api, parts), prefix="/v1")
    app.include_router(_health_routes(api))
    guarded = guarded_route(api, public=api.settings.open_metrics)
    app.include_router(metrics_routes(api, guarded))
    for part in root_parts:
        app.include_router(part(api, guarded_route(api)))
    if console:
        app.include_router(console_routes(guarded_route(api, public=True, page=True)))
    # For addresses and methods that no route has.
    app.add_exception_handler(HTTPException, partial(_handle_error, api))
    app.add_exception_handler(Exception, partial(_handle_error, api))
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]  # as FastAPI documents it
    return app


def _api(
    registry: DataSourceRegistry,
    *,
    authenticate: Authenticate | None,
    find_principal: FindPrincipal | None,
    tokens: TokenStore | None,
    settings: ServerSettings | None,
    audit_log: AuditLog | None,
    cookies: bool,
    csrf: CheckCsrf | None,
) -> Api:
    if cookies and csrf is None:
        raise OptionError(
            "pages of other sites can make requests with a browser's cookies; 'cookies' needs 'csrf'"
        )
    api = Api(registry, _refuse, settings or ServerSettings(), tokens, find_principal)
    api.uses = TokenUses(api.records)
    if authenticate is not None:
        api.authenticate = authenticate if cookies else partial(_without_cookies, authenticate)
    elif tokens is not None:
        api.authenticate = partial(_authenticate, tokens, api.uses)
        api.find_principal = find_principal or partial(_find_principal, tokens)
    else:
        raise OptionError("a server needs 'authenticate' or 'tokens'")
    api.audit_log, api.csrf = audit_log, csrf if cookies else None
    api.runner = JobRunner(api)
    api.trail = AuditTrail(api)
    registry.plugins.register_plugin(api.trail)
    registry.plugins.register_plugin(api.metrics)
    return api


def _refuse(_: Request) -> None:
    """Admit nobody."""


def _without_cookies(
    authenticate: Authenticate, request: Request
) -> Principal | Awaitable[Principal | None] | None:
    """Authenticate a request as if its browser had sent no cookies."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"cookie"]
    return authenticate(Request({**request.scope, "headers": headers}, request.receive))


async def _find_principal(tokens: TokenStore, principal_id: str) -> Principal | None:
    return await asyncio.to_thread(tokens.find_principal, principal_id)


async def _authenticate(tokens: TokenStore, uses: TokenUses, request: Request) -> Principal | None:
    principal = (
        tokens.authenticate(request)
        if tokens.is_current()
        else await asyncio.to_thread(tokens.authenticate, request)  # reads where they are kept
    )
    if principal is not None:
        uses.note(principal.id)
    return principal


@asynccontextmanager
async def _lifespan(api: Api, app: object) -> AsyncIterator[None]:
    """Run what goes on beside requests: the audit trail, and in it the jobs."""
    assert api.trail is not None
    assert api.runner is not None
    assert api.uses is not None
    async with api.trail.lifespan(app), api.uses.lifespan(app), api.runner.lifespan(app):
        yield


def _router(api: Api, more: Sequence[Part]) -> APIRouter:
    routes = ApiRouter(lifespan=partial(_lifespan, api))
    route_class = guarded_route(api)
    for make in more:  # first, as addresses are tried in this order, and chat must be quick
        routes.include_router(make(api, route_class))
    parts = [
        type_routes,
        source_routes,
        item_routes,
        receipt_routes,
        workspace_routes,
        job_routes,
        audit_routes,
    ]
    if api.tokens is not None:
        parts.append(token_routes)
    own = [part(route_class) for part in parts]
    own += [
        upload_routes(guarded_route(api, streamed=True)),
        link_routes(api, route_class),
        split_routes(api, route_class),
    ]
    for router in own:  # flat: each router in a router is looked through twice for a request
        routes.routes.extend(router.routes)
    return routes


def _health_routes(api: Api) -> APIRouter:
    routes = APIRouter(
        tags=["health"], route_class=guarded_route(api, public=True), responses=PROBLEMS
    )

    @routes.get("/healthz", response_model=StatusDocument)
    async def healthz() -> ApiResponse:
        """Return that the process serves requests."""
        return ApiResponse({"status": "ok"})

    @routes.get("/readyz", response_model=StatusDocument)
    async def readyz() -> ApiResponse:
        """Return that the store of sources can be read; 503 if it cannot."""
        await asyncio.to_thread(api.registry.exists, "readyz")
        return ApiResponse({"status": "ok"})

    return routes


async def _handle_error(api: Api, request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    # A client can invent any number of methods and addresses.
    api.metrics.count_request("other", "other", str(problem.status), 0.0)
    if problem.status == 405:  # the framework names the methods of one route of the address
        problem.headers = {"Allow": ", ".join(methods_of(request.app, request.url.path))}
    return ProblemResponse(problem, str(uuid4()))
