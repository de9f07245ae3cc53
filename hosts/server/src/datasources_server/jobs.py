"""Routes of jobs: their state, cancellation, and events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from fastapi.routing import APIRoute

from datasources import Record
from datasources.json_values import to_iso_time
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AnyCall, Call, ExitStack
from datasources_server.cursors import open_cursor, seal_cursor
from datasources_server.documents import JobDocument, JobPage
from datasources_server.job_items import open_subject
from datasources_server.job_watches import encode_event
from datasources_server.problems import Problem
from datasources_server.responses import ApiResponse, ContentResponse
from datasources_server.running import JobRunner, Runner

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": JobDocument, "description": "The job goes on."}
}
_HEARTBEAT_SECONDS = 15.0  # without an event, after which a comment is sent


def job_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes below `/jobs`."""
    routes = ApiRouter(tags=["workspaces"], prefix="/jobs", route_class=route_class)
    routes.get("", response_model=JobPage)(list_jobs)
    routes.get("/{job_id}", response_model=JobDocument)(get_job)
    routes.delete("/{job_id}", response_model=JobDocument, responses=ACCEPTED)(cancel_job)
    events: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
    routes.get("/{job_id}/events", response_class=Response, responses=events)(job_events)
    return routes


async def list_jobs(
    call: AnyCall,
    runner: Runner,
    cursor: Annotated[str | None, Query(min_length=1)] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> ApiResponse:
    """List the jobs of the caller, of an administrator all, the newest first, one page at a time.

    A job that has ended is listed until an hour after the end of its workspace.
    """
    size = call.page_size(limit)
    binding = [call.principal.id]
    before = None if cursor is None else open_cursor(call, "jobs", binding, cursor)
    records = runner.records()
    # One more than the page, to know if there is a following page.
    owner = None if call.principal.is_admin else call.principal.id
    jobs = await asyncio.to_thread(records.newest, owner, before, size + 1)
    items = [
        await describe_job(call, runner, settled)
        for job in jobs[:size]
        if (settled := await runner.settle(job)) is not None
    ]
    following = records.place_of(jobs[size - 1]) if len(jobs) > size else None
    sealed = None if following is None else seal_cursor(call, "jobs", binding, following)
    return ApiResponse({"items": items, "next_cursor": sealed})


async def get_job(call: AnyCall, runner: Runner, job_id: str) -> ApiResponse:
    """Return the state of a job: its progress while it runs, then receipts or a problem."""
    return ApiResponse(await describe_job(call, runner, await find_job(call, runner, job_id)))


async def cancel_job(call: AnyCall, runner: Runner, job_id: str) -> ApiResponse:
    """Cancel a job, which ends within two seconds; one that has ended stays as it is."""
    job = await find_job(call, runner, job_id)
    running = job.data["state"] == "running"
    if running:
        job = await runner.cancel(job) or job
    return ApiResponse(await describe_job(call, runner, job), 202 if running else 200)


async def job_events(
    call: AnyCall,
    runner: Runner,
    stack: ExitStack,
    job_id: str,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63)] = None,
) -> Response:
    """Return the events of a job as they happen, as server-sent events.

    `progress` and `receipt` have numbers, after which `Last-Event-ID` resumes; `end` is the last
    one, and has what the job's own address returns.
    """
    await find_job(call, runner, job_id)
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    events = _events(call, runner, job_id, last_event_id or 0)
    stack.push_async_callback(events.aclose)
    return ContentResponse(events, 200, headers)


async def accepted(request: Request, call: Call, runner: JobRunner, job: Record) -> ApiResponse:
    """Return the response about a job that goes on, with the address of the job."""
    response = ApiResponse(await describe_job(call, runner, job), 202)
    root = request.url.path.rpartition("/workspaces/")[0]
    response.headers["Location"] = f"{root}/jobs/{job.id}"
    return response


async def _events(call: Call, runner: JobRunner, job_id: str, after: int) -> AsyncGenerator[bytes]:
    yield b":\n\n"  # so that the client has the headers
    seen = None
    async with runner.watches.watch(job_id) as watch:
        while True:
            look = await watch.wait(seen, _HEARTBEAT_SECONDS)
            if look is None:
                yield b":\n\n"
                continue
            if look.job is None:
                return
            for number, event in await watch.events(after, look.newest):
                yield event
                after = number
            if look.job.data["state"] != "running":
                data = await describe_job(call, runner, look.job)
                yield encode_event(None, {"event": "end", "data": data})
                return
            seen = look


async def find_job(call: Call, runner: JobRunner, job_id: str, *, is_own: bool = False) -> Record:
    """Return a job that the principal may see, which is ended if its worker has died.

    It is one of its own, or of anybody if the principal is an administrator and `is_own` is False.
    """
    job = await asyncio.to_thread(runner.records().get, job_id)
    sees_all = call.principal.is_admin and not is_own
    if job is not None and (sees_all or job.owner == call.principal.id):
        job = await runner.settle(job)
        if job is not None:
            return job
    raise Problem(404, "job-not-found", "you have no job of this id")


async def describe_job(call: Call, runner: JobRunner, job: Record) -> dict[str, Any]:
    """Return a job as clients see it."""
    data, progress = job.data, None
    if data["state"] == "running":
        event = await asyncio.to_thread(runner.records().last_event, job.id)
        progress = event["data"] if event is not None and event["event"] == "progress" else None
    return {
        "id": job.id,
        "owner": job.owner,
        "workspace": data["workspace"],
        **open_subject(call.registry.credentials, job),
        "state": data["state"],
        "cancelling": data["state"] == "running" and data["cancel"],
        "created_at": to_iso_time(data["created_at"]),
        "ended_at": to_iso_time(data["ended_at"]),
        "progress": progress,
        "receipts": data["receipts"],
        "problem": data["problem"],
    }
