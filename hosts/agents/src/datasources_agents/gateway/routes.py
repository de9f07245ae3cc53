"""The routes of the gateway, which the server mounts below `/v1`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from datasources import OptionError, RegistryError
from datasources_agents.gateway.conversations import Conversations
from datasources_agents.gateway.requests import ChatRequest
from datasources_agents.gateway.settings import GatewaySettings
from datasources_agents.gateway.uploads import Uploads
from datasources_agents.gateway.upstream import Answer, Upstream, UpstreamError
from datasources_agents.references import ReferencesError
from datasources_server import Problem
from datasources_server.calls import AnyCall, Api, Call, ExitStack
from datasources_server.responses import ContentResponse

_SWEEP_SECONDS = 60.0  # between two deletions of conversations that are over
_OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["messages"],
                    "properties": {
                        "messages": {"type": "array", "items": {"type": "object"}},
                        "data_sources": {"type": "array", "items": {"type": "object"}},
                        "thread_id": {"type": "string"},
                    },
                }
            }
        },
    }
}

_log = logging.getLogger("datasources.gateway")


class UpstreamDocument(BaseModel):
    """An answer of the model's server, as it is."""

    model_config = ConfigDict(extra="allow")


def gateway_routes(settings: GatewaySettings) -> Callable[[Api, type[APIRoute]], APIRouter]:
    """Return the part of a server that has the gateway, for `create_app(…, parts=[…])`.

    Args:
        settings: Of the gateway; `root` is required.

    Raises:
        OptionError: There is no `root`, or, when the server is made, its store has no records.
    """
    if settings.root is None:
        raise OptionError("the gateway needs 'root', the directory of the data")
    root = settings.root

    def make(api: Api, route_class: type[APIRoute]) -> APIRouter:
        try:
            api.records()
        except Problem as exc:
            raise OptionError(f"the gateway cannot be used: {exc.detail}") from exc
        gateway = Gateway(api, settings, root)
        routes = APIRouter(tags=["gateway"], route_class=route_class, lifespan=gateway.lifespan)
        routes.post("/chat/completions", response_model=UpstreamDocument, openapi_extra=_OPENAPI)(
            gateway.complete
        )
        routes.get("/models", response_model=UpstreamDocument)(gateway.models)
        return routes

    return make


class Gateway:
    """Fetches what chat requests refer to, and relays them to the model's server."""

    def __init__(self, api: Api, settings: GatewaySettings, root: str) -> None:
        self._api = api
        self._settings = settings
        self._conversations = Conversations(api, settings, root)
        self._upstream: Upstream
        self._uploads: Uploads

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Hold the connections to the model's server, and delete what nobody needs any more."""
        self._upstream = Upstream(self._settings)
        self._uploads = Uploads(self._api.records(), self._upstream, self._settings)
        sweep = asyncio.create_task(self._sweep_regularly())
        try:
            async with AsyncExitStack() as stack:
                if self._settings.mode != "workspace":
                    await stack.enter_async_context(self._uploads.lifespan())
                yield
        finally:
            sweep.cancel()
            await asyncio.wait([sweep])
            await self._upstream.close()

    async def complete(self, request: Request, call: AnyCall, stack: ExitStack) -> Response:
        """Fetch what a chat request refers to, and return the answer of the model's server.

        References are parts such as `{"type": "file", "file": {"file_id": "datasource://…"}}` of the
        last message of the user, and the field `data_sources`. If one fails, the model does not run.
        """
        try:
            content = await self._prepare(call, stack, await request.body())
        except ReferencesError as exc:
            raise _problem_of(exc) from None
        except UpstreamError as exc:
            return _error_response(exc)
        return await self._relay(request, stack, "POST", "chat/completions", content)

    async def models(self, request: Request, call: AnyCall, stack: ExitStack) -> Response:  # noqa: ARG002
        """Return the models of the model's server."""
        return await self._relay(request, stack, "GET", "models", b"")

    async def _prepare(self, call: Call, stack: AsyncExitStack, content: bytes) -> bytes:
        """Return the body for the model's server, with its data handed over."""
        chat = ChatRequest.parse(content, self._settings)
        conversation = await self._conversations.find(call, chat.thread_id)
        if not chat.references and not conversation.files:
            return chat.relayed()
        # The directory of a conversation is released once its files are handed over; that of a
        # single request is deleted when the answer has been sent.
        async with AsyncExitStack() as during:
            holding = during if conversation.lasts else stack
            session = await holding.enter_async_context(
                self._conversations.open(call, conversation)
            )
            if conversation.lasts:  # whoever had the directory until now may have fetched files
                conversation = await self._conversations.find(call, chat.thread_id)
            manifest = await chat.resolve(session, call.access, conversation.files)
            if conversation.lasts:
                await self._conversations.save(call, conversation, manifest.files)
            if self._settings.mode == "workspace":
                return chat.with_directory(manifest, session)
            return await chat.with_uploads(
                manifest, session, self._uploads, call.principal.id, stack
            )

    async def _relay(
        self, request: Request, stack: AsyncExitStack, method: str, path: str, content: bytes
    ) -> Response:
        answer: Answer = await stack.enter_async_context(
            self._upstream.send(method, path, request.headers, content, request.url.query)
        )
        try:
            await answer.raise_error()
        except UpstreamError as exc:
            return _error_response(exc)
        return ContentResponse(answer.chunks(), answer.status, answer.headers)

    async def _sweep_regularly(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._conversations.sweep)
            except (Problem, RegistryError, OSError) as exc:
                _log.warning("conversations that are over are not deleted: %s", exc)
            except Exception as exc:  # noqa: BLE001  (the next round may succeed)
                _log.warning("conversations that are over are not deleted: %s", type(exc).__name__)
            await asyncio.sleep(_SWEEP_SECONDS)


def _problem_of(error: ReferencesError) -> Problem:
    """Return the problem of references, with `error` for clients of OpenAI's API as well."""
    errors = [{"pointer": f.pointer, "detail": f.detail} for f in error.failures]
    return Problem(error.http_status, error.slug, str(error), errors=errors, **error.to_openai())


def _error_response(error: UpstreamError) -> Response:
    return Response(error.content, error.status, error.headers)
