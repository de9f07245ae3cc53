"""Answer a chat request in the application of a host: FastAPI, Starlette."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from datasources import Access
from datasources_agents.chat import Chat, prepare
from datasources_agents.references import Failure, ReferencesError

_CLIENT_LEFT = 499  # nobody reads the response


async def respond(
    request: Request,
    access: Access,
    answer: Callable[[Chat], Awaitable[Response]],
    **options: Any,
) -> Response:
    """Fetch what a chat request refers to, and return the response of the model.

    A reference that fails gives a response with the error, as clients of OpenAI's API read it, and
    the model does not run. The files are deleted when the response has been sent, a streamed one
    as well, or when the client has left, which cancels the fetches and the model.

    Args:
        request: The request; the host bounds its size.
        access: What the caller may do.
        answer: Runs the model, and returns any response, such as a `StreamingResponse`.
        options: The other arguments of `prepare`.
    """
    stack = AsyncExitStack()

    async def run() -> Response:
        chat = await stack.enter_async_context(prepare(await _body_of(request), access, **options))
        return await answer(chat)

    try:
        await request.body()
        response = await _until_left(request, run())
    except ReferencesError as exc:
        await stack.aclose()
        return JSONResponse(exc.to_openai(), exc.http_status)
    except BaseException:
        await stack.aclose()
        raise
    return _HoldingResponse(response, stack)


class _HoldingResponse(Response):
    """A response that leaves a stack of contexts when it has been sent."""

    def __init__(self, response: Response, stack: AsyncExitStack) -> None:
        super().__init__(status_code=response.status_code, background=response.background)
        response.background = None  # runs here, where FastAPI adds that of the endpoint
        self.raw_headers = response.raw_headers  # one list, so that a change is one of both
        self._response = response
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await self._response(scope, receive, send)
            if self.background is not None:
                await self.background()


async def _body_of(request: Request) -> dict[str, Any]:
    """Return the body of a request; raise ReferencesError if it is no object of JSON."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        failure = Failure("#", 422, "request-invalid", "the body must be an object of JSON")
        raise ReferencesError([failure])
    return body


async def _until_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Return what `work` returns, or cancel it when the client leaves."""
    working = asyncio.create_task(work)
    leaving = asyncio.ensure_future(request.receive())  # after the body: waits for the disconnect
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=_CLIENT_LEFT)
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait([working, leaving])
