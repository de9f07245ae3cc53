"""Checks of every request before its route runs, and its end when the client leaves."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasources import StoreError, caller
from datasources_server.bodies import RequestBody
from datasources_server.calls import Api, not_authenticated
from datasources_server.problems import Problem, ProblemResponse, problem_of
from datasources_server.settings import ServerSettings

# Fetch metadata (https://www.w3.org/TR/fetch-metadata/) of requests from pages of our own, and of
# those that no page has made.
_OWN_SITES = (None, "none", "same-origin")

_QUICK_SECONDS = 0.1  # in which most requests end
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")
_REFUSALS = (401, 403, 421, 429)  # statuses that the audit trail has


def guarded_route(
    api: Api, *, public: bool = False, page: bool = False, streamed: bool = False
) -> type[APIRoute]:
    """Return the class of routes that are guarded, and answer errors with problem documents.

    Args:
        api: The parts that all requests share.
        public: True for routes without authentication.
        page: True for pages that links of other sites may lead to.
        streamed: True for routes that read their bodies themselves, of any size.
    """
    origins = Origins(api.settings)

    class GuardedRoute(APIRoute):
        # Not around `app`, which is another one where a router is included in a router.
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            guard = RequestGuard(
                super().handle, api, origins, public=public, page=page, streamed=streamed
            )
            await guard(scope, receive, send)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            # Here, as the handlers of the application, which may be the host's, come after.
            async def handle_errors(request: Request) -> Response:
                try:
                    return await handle(request)
                except Exception as exc:  # noqa: BLE001  (answered, and logged if unexpected)
                    call = request.scope.get("datasources.call")
                    is_admin = call is not None and call.principal.is_admin
                    problem = problem_of(exc, is_admin=is_admin)
                    _note_refusal(api, problem, request.scope)
                    return ProblemResponse(problem, request.scope["datasources.request_id"])

            return handle_errors

    return GuardedRoute


class _Sender:
    """Sends a response with the headers that all responses have, and knows its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self.status: int | None = None
        """None until the response begins."""
        self.body: RequestBody | None = None
        """A body that may have any size: if it is not complete, the connection is closed."""
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers += [(b"x-request-id", self.request_id.encode()), _NO_SNIFFING]
            if all(name != b"cache-control" for name, _ in headers):
                headers.append(_NO_STORE)
            if self.body is not None and not self.body.is_complete:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self.body is not None and not self.body.is_complete:
            await self._send({**message, "more_body": True})
            await self.body.drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


class RequestGuard:
    """ASGI middleware around one route.

    A request is refused for a foreign `Host` or `Origin` and for cross-site fetch metadata, without
    authentication, and for a body that is too large or too slow, in this order. The route runs with
    the whole body, unless it is `streamed`. It is cancelled when the client leaves, and when the
    request is not authentic any more.
    """

    def __init__(
        self,
        app: ASGIApp,
        api: Api,
        origins: Origins,
        *,
        public: bool,
        page: bool,
        streamed: bool,
    ) -> None:
        self.app = app
        self._api = api
        self._origins = origins
        self._public = public
        self._page = page
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["datasources.request_id"] = str(uuid4())
        body, started = RequestBody(receive, self._api.settings), time.monotonic()
        sender = _Sender(send, scope["datasources.request_id"])
        if self._streamed:
            sender.body = body
        await self._respond(scope, body, receive, sender)
        route = getattr(scope.get("route"), "path", "other")
        status = "left" if sender.status is None else str(sender.status)
        self._api.metrics.count_request(scope["method"], route, status, time.monotonic() - started)

    async def _respond(
        self, scope: Scope, body: RequestBody, receive: Receive, sender: _Sender
    ) -> None:
        with ExitStack() as stack:
            try:
                if await self._admit(scope, body, stack):
                    await self._run(scope, body, sender.send)
            except HTTPException:
                raise  # of the router, such as for a method; the application answers
            except Exception as exc:  # noqa: BLE001  (answered, and logged if unexpected)
                problem = problem_of(exc)
                if sender.status is not None:
                    return  # the server closes the connection, as the response is not complete
                _note_refusal(self._api, problem, scope)
                response = ProblemResponse(problem, sender.request_id)
                await response(scope, receive, sender.send)

    async def _admit(self, scope: Scope, body: RequestBody, stack: ExitStack) -> bool:
        """Check a request, and name its caller until the stack is left.

        Returns:
            False if the client has left.

        Raises:
            Problem: The request is refused.
        """
        self._origins.check(scope, page=self._page)
        if not self._public:
            request = Request(scope)
            await self._api.check_csrf(request)
            call = scope["datasources.call"] = await self._api.call_of(request)
            stack.enter_context(
                caller(user=call.principal.id, request_id=scope["datasources.request_id"])
            )
        return self._streamed or await body.read_whole(Headers(scope=scope))

    async def _run(self, scope: Scope, body: RequestBody, send: Send) -> None:
        """Run the route until it ends, or its client has left.

        Raises:
            Problem: 401, the request is not authentic any more.
            StoreError: Nobody could tell for too long if it is.
        """
        async with ended_by(partial(self._wait_for_end, scope, body)), AsyncExitStack() as stack:
            scope["datasources.exit_stack"] = stack
            await self.app(scope, body.receive, send)

    async def _wait_for_end(self, scope: Scope, body: RequestBody) -> None:
        """Return when the client has left; raise as `_run` when the request may not go on."""
        leaving = asyncio.create_task(body.wait_until_left())
        settings, confirmed = self._api.settings, time.monotonic()
        try:
            while not leaving.done():
                await asyncio.wait([leaving], timeout=settings.recheck_seconds)
                if leaving.done() or self._public:
                    continue
                try:
                    await self._authenticate_again(scope)
                    confirmed = time.monotonic()
                except StoreError:
                    if time.monotonic() >= confirmed + settings.confirm_seconds:
                        raise
        finally:
            leaving.cancel()

    async def _authenticate_again(self, scope: Scope) -> None:
        """Raise Problem 401 if the principal of a request may not go on as it has begun."""
        if await self._api.principal_of(Request(scope)) != scope["datasources.call"].principal:
            raise not_authenticated()


@asynccontextmanager
async def ended_by(wait: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Cancel a block when `wait` returns or raises, and raise what it has raised.

    `wait` begins after `_QUICK_SECONDS`: most requests are done before, and cost no task.
    """
    loop, reason = asyncio.get_running_loop(), None
    limit, watch = asyncio.timeout(None), None

    async def end() -> None:
        nonlocal reason
        try:
            await wait()
        except Exception as exc:  # noqa: BLE001  (raised below)
            reason = exc
        limit.reschedule(loop.time())

    def begin() -> None:
        nonlocal watch
        watch = loop.create_task(end())

    timer = loop.call_later(_QUICK_SECONDS, begin)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        if reason is not None:
            raise reason from None
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()


def _note_refusal(api: Api, problem: Problem, scope: Scope) -> None:
    """Count a request that was refused for who has made it, or from where; add it to the trail."""
    if problem.status not in _REFUSALS:
        return
    api.metrics.count_refusal(problem.slug)
    if api.trail is None:
        return
    fields = {
        "outcome": problem.slug,
        "request_id": scope["datasources.request_id"],
        "method": scope["method"],
        "route": getattr(scope.get("route"), "path", None),
    }
    call = scope.get("datasources.call")
    if call is None:
        api.trail.note_stranger(**fields)
    else:
        api.trail.note("refused", user=call.principal.id, **fields)


class Origins:
    """Checks the headers by which browsers say where a request comes from.

    Args:
        settings: Name the hosts.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._names = {_host_name(host) for host in settings.allowed_hosts}
        self._public: str | None = None
        if settings.public_url is not None:
            public = urlsplit(settings.public_url)
            self._names.add(_host_name(public.hostname or ""))
            self._public = f"{public.scheme}://{public.netloc.lower()}"

    def check(self, scope: Scope, *, page: bool = False) -> None:
        """Check the headers of a request.

        Args:
            scope: The request.
            page: True to admit that somebody follows a link of another site to a page of its own
                tab.

        Raises:
            Problem: The host is not one of ours, or a page of another site has made the request.
        """
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _host_name(_without_port(hosts[0])) not in self._names:
            raise Problem(
                421,
                "host-not-allowed",
                "the header `Host` names no host that the server answers for",
            )
        origins = {f"{scope['scheme']}://{hosts[0].lower()}", self._public}
        foreign = [origin for origin in headers.getlist("origin") if origin.lower() not in origins]
        follows_link = page and headers.get("sec-fetch-dest") == "document"
        if foreign or not (follows_link or headers.get("sec-fetch-site") in _OWN_SITES):
            raise Problem(403, "origin-not-allowed", "pages of other sites may not use this server")


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() else host


@lru_cache(maxsize=256)
def _host_name(name: str) -> str:
    """Return a host's name or address in the spelling that is compared."""
    name = name.lower().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
