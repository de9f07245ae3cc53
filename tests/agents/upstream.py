"""A scripted server of a model, with files, that keeps what it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

KEY = "sk-upstream-key-0123456789abcdef"
FAULT = {"error": {"message": "no such model", "type": "invalid_request_error", "code": "model"}}


@dataclass
class Upstream:
    """The server: what it was sent, and what it does next."""

    bodies: list[bytes] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Name and content of each file, by id."""
    names: list[str] = field(default_factory=list)
    """Names of all files that were ever uploaded."""
    seen: list[dict[str, bytes]] = field(default_factory=list)
    """The files, by name, when each request was answered."""
    shared: Path | None = None
    """A directory with those of conversations, which it reads files in."""
    status: int = 200
    fault: dict[str, Any] = field(default_factory=lambda: FAULT)
    upload_status: int = 200
    delete_status: int = 200
    chunks: list[str] = field(default_factory=lambda: ["Hello", " you"])
    proceed: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1000))
    """Acquired before each chunk, and before the response of an upload."""
    breaks: bool = False
    """True to break off each stream."""
    left: int = 0
    """Streams that clients have left."""
    uploading: int = 0

    def __post_init__(self) -> None:
        routes = [
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files", self.list),
            Route("/v1/files/{id}", self.delete, methods=["DELETE"]),
        ]
        self._app = Starlette(routes=routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def body(self) -> dict[str, Any]:
        """The body of the last chat request."""
        return json.loads(self.bodies[-1])

    async def complete(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        self.headers.append(request.headers)
        self.seen.append(dict(self.files.values()) if self.shared is None else self.read())
        if self.status != 200:
            headers = {"x-should-retry": "false", "set-cookie": "a=b", "retry-after": "7"}
            return JSONResponse(self.fault, self.status, headers)
        if self.body.get("stream"):
            return StreamingResponse(self.stream(), media_type="text/event-stream")
        message = {"role": "assistant", "content": "".join(self.chunks)}
        return JSONResponse(document("message", message))

    def read(self) -> dict[str, bytes]:
        """Return the files of the conversation of the last request, by path."""
        assert self.shared is not None
        directory = self.shared / self.body["thread_id"]
        paths = [path for path in directory.rglob("*") if path.is_file()]
        return {str(path.relative_to(directory)): path.read_bytes() for path in paths}

    async def stream(self) -> AsyncIterator[str]:
        try:
            for chunk in self.chunks:
                await self.proceed.acquire()
                yield f"data: {json.dumps(document('delta', {'content': chunk}))}\n\n"
            if self.breaks:
                raise ConnectionResetError
            yield "data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.left += 1
            raise

    async def models(self, request: Request) -> Response:
        self.headers.append(request.headers)
        entry = {"id": "m", "object": "model", "created": 0, "owned_by": "us"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def upload(self, request: Request) -> Response:
        async with request.form() as form:
            file: Any = form["file"]
            name, content = file.filename, await file.read()
            assert form["purpose"] == "user_data"
        if self.upload_status != 200:
            return JSONResponse(FAULT, self.upload_status)
        file_id = f"file-{len(self.names)}"
        self.files[file_id] = (name, content)
        self.names.append(name)
        self.uploading += 1
        try:
            await self.proceed.acquire()
        finally:
            self.uploading -= 1
        return JSONResponse({"id": file_id, "object": "file", "filename": name})

    async def list(self, request: Request) -> Response:
        """Return one file on each page."""
        ids = list(self.files)
        after = request.query_params.get("after")
        rest = ids if after is None else ids[ids.index(after) + 1 :]
        entries = [{"id": file_id, "filename": self.files[file_id][0]} for file_id in rest[:1]]
        return JSONResponse({"data": entries, "has_more": len(rest) > 1})

    async def delete(self, request: Request) -> Response:
        if self.delete_status != 200:
            return JSONResponse(FAULT, self.delete_status)
        gone = self.files.pop(request.path_params["id"], None)
        return JSONResponse({"deleted": gone is not None}, 404 if gone is None else 200)


def document(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, kind: value, "finish_reason": None}
    kinds = {"delta": "chat.completion.chunk", "message": "chat.completion"}
    return {"id": "1", "object": kinds[kind], "created": 0, "model": "m", "choices": [choice]}


app = Upstream(proceed=asyncio.Semaphore(1 << 40))
"""For a process of uvicorn."""
