"""A service that manages sources over HTTP, and a chat that fetches before its model runs."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasources import (
    AuditLog,
    DataSourceConfig,
    DataSourceError,
    DataSourceRegistry,
    DataSourceType,
    FetchReceipt,
    Limits,
    Policy,
    caller,
    preview_text,
)

T = TypeVar("T")

# registry
POLICY = Policy(
    limits=Limits(max_bytes=50_000_000, max_rows=10_000, timeout=60),
    allowed_roots=("/srv/data",),  # who may register a source may not read all of this machine
    allowed_references=("env:SHOP_*",),
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one registry, and with it the pools, as long as the service runs."""
    opening = DataSourceRegistry.open(store=os.environ["STORE"], policy=POLICY)
    async with await opening as app.state.registry:
        app.state.registry.plugins.register_plugin(AuditLog(os.environ["AUDIT_LOG"]))
        yield


app = FastAPI(lifespan=lifespan)


class NameTheCaller:
    """Names user and request in the log, the audit trail, and every operation below."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        # Put your own authentication here: what a client says of itself proves nothing.
        request.state.user = request.headers.get("x-user", "nobody")
        request.state.id = secrets.token_hex(8)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request.state.id
            await send(message)

        with caller(user=request.state.user, request_id=request.state.id):
            await self.app(scope, receive, send_with_id)


app.add_middleware(NameTheCaller)


async def run_until_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, or cancel it when the client leaves."""
    working = asyncio.create_task(work)
    leaving = asyncio.ensure_future(request.receive())  # after the body: waits for the disconnect
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the client has left")  # nobody reads it
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait([working, leaving])


# errors
@app.exception_handler(DataSourceError)
async def tell(_: Request, error: DataSourceError) -> JSONResponse:
    """Answer with an error's sentence, which holds no secret."""
    body = {"error": type(error).__name__, "message": str(error)}
    return JSONResponse(body, error.http_status)


@app.exception_handler(RequestValidationError)
async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong with a request; FastAPI's own answer would repeat it, password included."""
    places = [f"{'.'.join(map(str, detail['loc']))}: {detail['type']}" for detail in error.errors()]
    return JSONResponse({"error": "RequestError", "message": "; ".join(places)}, 422)


# management
class Source(BaseModel):
    """A source to register; a secret among its options may be a reference, `${env:NAME}`."""

    id: str
    type: str
    name: str = ""
    options: dict[str, Any]
    users: list[str] = []


def shown(config: DataSourceConfig) -> dict[str, Any]:
    """Return what may be shown: the registry has masked the secrets."""
    return {
        "id": config.id,
        "type": config.type,
        "name": config.name,
        "options": config.config,
        **config.metadata,
    }


@app.post("/sources", status_code=201)
async def create(source: Source, request: Request) -> dict[str, Any]:
    registry: DataSourceRegistry = request.app.state.registry
    config = DataSourceConfig(
        source.id,
        DataSourceType(source.type),
        source.name or source.id,
        source.options,
        metadata={"users": source.users},
    )
    await registry.register_data_source(config, test_connection=True)
    return shown(registry.get_config(source.id))


@app.get("/sources")
async def list_all(request: Request) -> list[dict[str, Any]]:
    return [shown(config) for config in request.app.state.registry.list_data_sources()]


@app.get("/sources/{source_id}")
async def get(source_id: str, request: Request) -> dict[str, Any]:
    return shown(request.app.state.registry.get_config(source_id))


@app.post("/sources/{source_id}/test")
async def test(source_id: str, request: Request) -> dict[str, Any]:
    check = await request.app.state.registry.check_connection(source_id)
    return {"ok": check.ok, "seconds": check.duration, "error": check.error and str(check.error)}


@app.get("/sources/{source_id}/items")
async def browse(
    source_id: str, request: Request, path: str | None = None, most: int = 100
) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    async with aclosing(request.app.state.registry.iter_items(source_id, path)) as items:
        async for item in items:
            if len(listed) == most:
                break
            listed.append({"path": item.path, "size": item.size, **item.metadata})
    return listed


@app.get("/sources/{source_id}/preview")
async def preview(source_id: str, item: str, request: Request, rows: int = 10) -> dict[str, Any]:
    first = await request.app.state.registry.preview(source_id, item, min(rows, 100))
    return {"columns": first.columns, "rows": first.rows, "more": first.truncated}


@app.delete("/sources/{source_id}", status_code=204)
async def delete(source_id: str, request: Request) -> None:
    await request.app.state.registry.unregister_data_source(source_id)


# chat
class Reference(BaseModel):
    """An item that a question is about."""

    source: str
    item: str


class Question(BaseModel):
    text: str
    references: list[Reference] = []


Model = Callable[[str, str], Awaitable[str]]
"""Answers a prompt; may run code in the directory that is its second argument."""


@app.post("/chat")
async def chat(question: Question, request: Request) -> Any:
    """Answer a question, as long as somebody waits for the answer."""
    return await run_until_disconnected(request, answer(question, request))


async def answer(question: Question, request: Request) -> Any:
    """Fetch what a question refers to, all at once; ask the model only if all of it came."""
    registry: DataSourceRegistry = request.app.state.registry
    model: Model = request.app.state.model
    granted = [
        config.id
        for config in registry.list_data_sources()
        if request.state.user in config.metadata.get("users", ())
    ]
    async with registry.workspace(
        request.state.id, sources=granted, quota=200_000_000, limits=Limits(max_rows=1_000)
    ) as workspace:
        requests = [(reference.source, reference.item) for reference in question.references]
        results = await workspace.fetch_many(requests)
        if errors := [result.error for result in results if result.error]:
            if unexpected := [e for e in errors if not isinstance(e, DataSourceError)]:
                raise unexpected[0]
            return JSONResponse({"errors": [str(error) for error in errors]}, 424)
        files = [await asyncio.to_thread(described, r.receipt) for r in results if r.receipt]
        prompt = "\n".join([question.text, "", "Files in your working directory:", *files])
        return {"answer": await model(prompt, workspace.path)}


def described(receipt: FetchReceipt) -> str:
    """Describe a file for the prompt: its name, size, columns and first rows."""
    path = Path(receipt.path)
    with path.open("rb") as file:
        head = file.read(65_536)
    first = preview_text(path.name, head, 3, complete=len(head) == receipt.size)
    rows = "all" if receipt.rows is None else receipt.rows
    cut = ", the first of more" if receipt.truncated else ""
    return (
        f"- {path.name}: {receipt.identifier!r} of {receipt.source_id!r}, {receipt.size} bytes, "
        f"{rows} rows{cut}\n  {', '.join(first.columns)}\n  "
        + "\n  ".join(", ".join(map(str, row)) for row in first.rows)
    )


async def run_code(code: str, directory: str) -> str:
    """Run Python that a model wrote: it has the files, and no variable of this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        code,
        cwd=directory,
        env={},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace")
