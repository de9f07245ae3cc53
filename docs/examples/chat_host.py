"""A chat service whose model finds the data of a question in its working directory."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from datasources import DataSourceRegistry, Principal
from datasources_agents import Chat, respond

# service
app = FastAPI()
PRINCIPALS: dict[str, Principal] = {}
"""Callers by token."""

Model = Callable[[list[Any], str], AsyncIterator[str]]
"""Answers messages, word by word; may read the directory that is its second argument."""


def serve(registry: DataSourceRegistry, model: Model) -> FastAPI:
    """Return the service; the caller closes the registry."""
    app.state.registry, app.state.model = registry, model
    return app


def principal_of(request: Request) -> Principal:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token not in PRINCIPALS:
        raise HTTPException(401)
    return PRINCIPALS[token]


# endpoint
@app.post("/v1/chat/completions")
async def completions(request: Request) -> Response:
    access = app.state.registry.access(principal_of(request))
    return await respond(request, access, answer)


# answer
async def answer(chat: Chat) -> Response:
    """Answer as a service does that knows nothing of sources."""
    words = app.state.model(chat.body["messages"], chat.workspace.path)
    if chat.body.get("stream"):
        return StreamingResponse(events(words), media_type="text/event-stream")
    message = {"role": "assistant", "content": "".join([word async for word in words])}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse(document("chat.completion", choice))


async def events(words: AsyncIterator[str]) -> AsyncIterator[str]:
    async for word in words:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        yield f"data: {json.dumps(document('chat.completion.chunk', choice))}\n\n"
    yield "data: [DONE]\n\n"


def document(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "1", "object": kind, "created": 0, "model": "m", "choices": [choice]}


# code
async def run_code(code: str, directory: str) -> str:
    """Run Python that a model wrote, in the directory, without the variables of this process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", code),
        cwd=directory,
        env={},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode(errors="replace")
