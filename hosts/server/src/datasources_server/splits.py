"""Plans of splits, which last as long as their response, and the rows of splits.

The response of a plan stays open, and holds what the plan needs at the source. Readers may be
anywhere, and any worker answers them. They come with the token of the plan, which opens the splits of
that plan and no other route. A record in the store, which every worker reads, has the hash of the
token. It is removed at the end of the plan; after a server was killed, it expires at the plan's age.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from datasources import (
    ConflictError,
    LimitExceededError,
    Limits,
    Principal,
    Record,
    Split,
    SplitPlan,
    run_in_thread,
)
from datasources.json_values import to_iso_time
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AnyCall, Api, Call, ExitStack, SourceId, not_authenticated
from datasources_server.guard import guarded_route
from datasources_server.items import ItemBody, with_first
from datasources_server.problems import Problem, invalid, problem_of
from datasources_server.responses import ContentResponse, content_headers, encode_json

_KIND = "plan"
_PREFIX = "plan_"  # of tokens of plans, which tells them from those of principals
_RANDOM_BYTES = 32
_MAX_SPLITS = 10_000
_KNOWN = 16  # digits of a split's fingerprint that its plan's record has
_HEARTBEAT_SECONDS = 15.0
_ARROW = "application/vnd.apache.arrow.stream"
_PLAN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines of JSON: the plan; `{}` from time to time; a problem if the plan fails.",
        "content": {"application/x-ndjson": {}},
    }
}
_ROWS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows as an Arrow IPC stream; no byte if there are none.",
        "content": {_ARROW: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class PlanBody(ItemBody):
    """An item to divide, as `DataSourceRegistry.plan` does."""

    model_config = ConfigDict(extra="forbid", strict=True)

    target_bytes: Annotated[int, Field(ge=1, lt=2**63)] = 128 << 20
    max_splits: Annotated[int, Field(ge=1, le=_MAX_SPLITS)] = 64
    key: str | None = None
    consistent: bool = True
    max_age: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None


class SplitBody(BaseModel):
    """A split as a plan has it, and the columns to read, in this order; null is all."""

    model_config = ConfigDict(extra="forbid", strict=True)

    split: dict[str, Any]
    columns: list[str] | None = None


def split_routes(api: Api, route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes below `/sources/{source_id}` that plan and read splits."""
    routes = ApiRouter(tags=["data"], prefix="/sources/{source_id}")
    routes.add_api_route(
        "/plan",
        plan_splits,
        methods=["POST"],
        response_class=Response,
        responses=_PLAN,
        route_class_override=route_class,
    )
    routes.add_api_route(
        "/splits",
        read_split,
        methods=["POST"],
        response_class=Response,
        responses=_ROWS,
        route_class_override=guarded_route(replace(api, authenticate=partial(_authenticate, api))),
    )
    return routes


async def plan_splits(
    call: AnyCall, stack: ExitStack, source_id: SourceId, body: PlanBody
) -> Response:
    """Divide an item into splits, for as long as the client keeps the response open.

    The first line has the splits, the schema as an Arrow IPC message in base64, and a token that
    reads these splits only, until the plan ends. If the plan fails, the last line is the problem.
    """
    longest = call.settings.plan_seconds
    max_age = longest if body.max_age is None else body.max_age
    if max_age > longest:
        raise invalid("#/max_age", f"must be at most {longest:g}")
    records = call.api.records()
    await call.api.find(call.principal.id)  # a host that cannot tell has no tokens of plans
    stack.enter_context(call.api.count_running("plans", call.principal.id))
    planning = call.access.plan(
        source_id,
        body.item,
        target_bytes=body.target_bytes,
        max_splits=body.max_splits,
        key=body.key,
        consistent=body.consistent,
        max_age=max_age,
    )
    expires_at = time.time() + max_age
    plan, holding = await stack.enter_async_context(_held(planning))
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    known = [split.fingerprint[:_KNOWN] for split in plan.splits]
    record = Record(
        _KIND,
        _hash(token),
        call.principal.id,
        {"source": source_id, "splits": known},
        expires_at=expires_at,
    )
    call.api.plans[record.id] = plan
    stack.callback(call.api.plans.pop, record.id)
    stack.push_async_callback(asyncio.to_thread, records.remove, _KIND, record.id)
    # If it is cancelled, it ends before the token is removed.
    await run_in_thread(records.put, record)
    described = {
        "splits": list(plan.splits),
        "schema": base64.b64encode(plan.schema.serialize()).decode(),
        "consistent": plan.consistent,
        "concurrency": plan.concurrency,
        "expires": to_iso_time(expires_at),
        "token": token,
    }
    headers = {"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"}
    lines = _lines(call, encode_json(described) + b"\n", holding)
    stack.push_async_callback(lines.aclose)
    return ContentResponse(lines, 200, headers)


async def read_split(
    request: Request, call: AnyCall, stack: ExitStack, source_id: SourceId, body: SplitBody
) -> Response:
    """Return the rows of a split as an Arrow IPC stream; no byte if it has none.

    It needs the token of the split's plan, or one of a principal that may read the item. Each split
    is read within the limits of a fetch. A read that fails ends without its last chunk.
    """
    split = Split.from_dict(body.split)
    if split.source_id != source_id:
        raise invalid("#/split/source_id", "must be the source of the address")
    plan: Record | None = request.scope.get("datasources.plan")
    if plan is not None and split.fingerprint[:_KNOWN] not in plan.data["splits"]:
        raise Problem(403, "not-allowed", "the token is for the splits of another plan")
    await call.access.authorize_fetch(source_id, split.identifier)
    limits = await asyncio.to_thread(call.access.limits, source_id)
    # A plan that this process holds reads in its own lease: a pool of one connection has no other.
    held = None if plan is None else call.api.plans.get(plan.id)
    read = call.access.read_split if held is None else held.read
    # Annotated as an iterator, but a generator.
    batches = cast("AsyncGenerator[Any]", read(split, body.columns))
    chunks = _encoded(batches, split.identifier, limits)
    stack.push_async_callback(chunks.aclose)
    try:
        # Read before the response begins, so that an early error is a problem document.
        first = await anext(chunks, None)
    except ConflictError as exc:  # no condition of the request has failed, which 412 says
        raise Problem(409, exc.slug, str(exc), retryable=exc.retryable) from None
    headers = content_headers(_ARROW, None, None)
    del headers["Accept-Ranges"]
    return ContentResponse(with_first(first, chunks), 200, headers)


async def _authenticate(api: Api, request: Request) -> Principal:
    """Return the principal of a plan's token, or that of an ordinary one.

    It is called again while the response is sent: the end of the plan ends its readers.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.startswith(_PREFIX):
        return await api.principal_of(request)
    record = await asyncio.to_thread(api.records().get, _KIND, _hash(token))
    principal = None if record is None else await api.find(record.owner)
    if record is None or principal is None:
        raise Problem(
            401,
            "plan-ended",
            "the plan of the token has ended",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if record.data["source"] != request.path_params["source_id"]:
        raise not_authenticated()
    request.scope["datasources.plan"] = record
    return principal


@asynccontextmanager
async def _held(
    planning: AbstractAsyncContextManager[SplitPlan],
) -> AsyncIterator[tuple[SplitPlan, asyncio.Task[None]]]:
    """Enter a plan for a block, in a task that ends with an error if the plan fails meanwhile.

    What ends a plan cancels the task that has entered it. That must not be the one that sends the
    response, which still has to say why.
    """
    entered: asyncio.Future[SplitPlan] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with planning as plan:
            entered.set_result(plan)
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    either: list[asyncio.Future[Any]] = [holding, entered]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not entered.done():
            await holding  # raises its error
        yield entered.result(), holding
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def _lines(
    call: Call, described: bytes, holding: asyncio.Task[None]
) -> AsyncGenerator[bytes]:
    """Yield the lines of a plan, the last of which says why it has failed."""
    yield described
    while not holding.done():
        done, _ = await asyncio.wait([holding], timeout=_HEARTBEAT_SECONDS)
        if not done:
            yield b"{}\n"
    error = holding.exception()
    if isinstance(error, Exception):
        problem = problem_of(error, is_admin=call.principal.is_admin)
        yield encode_json(problem.to_dict(call.request_id)) + b"\n"


async def _encoded(
    batches: AsyncGenerator[Any], identifier: str, limits: Limits
) -> AsyncGenerator[bytes]:
    """Yield the batches of a split as an Arrow IPC stream, one batch at a time.

    Raises:
        LimitExceededError: The split is larger than a fetch may be, or takes longer.
    """
    sink, writer, rows, size = io.BytesIO(), None, 0, 0
    async with aclosing(_timed(batches, identifier, limits.timeout)) as timed:
        async for batch in timed:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            _check("rows", rows, limits.max_rows, identifier)
            _check("bytes", size, limits.max_bytes, identifier)
            if writer is None:
                from pyarrow import ipc  # the connector has it, too

                writer = ipc.new_stream(sink, batch.schema)
            await run_in_thread(writer.write_batch, batch)
            yield _taken(sink)
    if writer is not None:
        writer.close()
        yield _taken(sink)


async def _timed(
    batches: AsyncGenerator[Any], identifier: str, seconds: float | None
) -> AsyncGenerator[Any]:
    """Yield batches until the time of a fetch is over, and close their generator at the end."""
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    async with aclosing(batches):
        while True:
            try:
                async with asyncio.timeout_at(deadline) as scope:
                    batch = await anext(batches, None)
            except TimeoutError:
                if not scope.expired():
                    raise
                raise LimitExceededError(
                    f"a split of {identifier!r} was not read within the limit of {seconds:g} seconds"
                ) from None
            if batch is None:
                return
            yield batch


def _check(name: str, number: int, most: int | None, identifier: str) -> None:
    if most is not None and number > most:
        raise LimitExceededError(
            f"a split of {identifier!r} has more than the limit of {most} {name} a fetch; plan smaller "
            "splits"
        )


def _taken(sink: io.BytesIO) -> bytes:
    """Return what was written, and empty the buffer."""
    content = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return content


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
