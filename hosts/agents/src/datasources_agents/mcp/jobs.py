"""Fetches into the workspaces of the server, as jobs that all of its workers know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from datasources import Access, FetchRequest, Limits, Record
from datasources.workspace import Progress
from datasources_agents.tools import JobNotFoundError, ToolCallError, describe_receipt
from datasources_server.calls import Call
from datasources_server.job_items import open_subject
from datasources_server.jobs import describe_job, find_job
from datasources_server.problems import Problem
from datasources_server.running import JobRunner
from datasources_server.running_job import RunningJob
from datasources_server.workspaces import WORKSPACE, add_workspace

_WAIT = 20.0  # seconds after which a fetch becomes a job
_PROGRESS_SECONDS = 1.0  # between two looks at the progress
_LEAST_SECONDS = 3600.0  # that a workspace has left if it is used again; half of its time if less
_PURPOSE = "mcp"


class ServerFetches:
    """Fetches of one request into workspaces of its principal, one for each source.

    Args:
        call: The request.
        base_url: Of the server, as the client has called it; ends in `/`.
    """

    def __init__(self, call: Call, base_url: str) -> None:
        assert call.api.runner is not None  # a server has one
        self._call = call
        self._runner: JobRunner = call.api.runner
        public_url = call.settings.public_url
        self._base_url = base_url if public_url is None else f"{public_url.rstrip('/')}/"

    async def fetch(
        self, access: Access, request: FetchRequest, max_rows: int | None, progress: Progress | None
    ) -> dict[str, Any]:
        """Return the receipt of a fetch, or its job; see `Fetches`."""
        await access.authorize_fetch(request.source_id, request.identifier)
        limits = None
        if max_rows is not None:
            limits = Limits(max_bytes=None, max_rows=max_rows, timeout=None)
        item = {
            "source": request.source_id,
            "item": request.identifier,
            "format": request.format,
            "limits": limits,
            "parameters": request.parameters,
        }
        with _problems():
            workspace = await self._workspace(request.source_id)
            job = await self._runner.start(self._call, workspace, [item])
            await self._wait(job, progress)
            if not job.task.done():
                return {"job": job.record.id, "state": "running"}
            if job.problem is not None:
                raise job.problem
        return self._describe(workspace.id, request, job.receipts[0])

    async def status(self, access: Access, job_id: str, *, cancel: bool) -> dict[str, Any]:
        """Return the state of a job; see `Fetches`."""
        del access  # that of the request
        with _problems():
            job = await find_job(self._call, self._runner, job_id, is_own=True)
            if open_subject(self._call.registry.credentials, job)["item_count"] > 1:
                raise JobNotFoundError("the job has several items, so fetch_item has not made it")
            if cancel and job.data["state"] == "running":
                job = await self._runner.cancel(job) or job
            view = await describe_job(self._call, self._runner, job)
        described = {"job": job_id, "state": view["state"]}
        if view["problem"] is not None:
            return described | {"error": {"message": view["problem"]["detail"]}}
        if view["state"] == "running":
            return described | {"progress": view["progress"], "cancelling": view["cancelling"]}
        (receipt,) = view["receipts"]
        request = FetchRequest(receipt["source"], "")
        return described | self._describe(view["workspace"], request, receipt)

    async def _workspace(self, source_id: str) -> Record:
        """Return a workspace of the principal for a source; one is made if there is none."""
        # Of several requests to one worker that find none, the first one makes it.
        async with self._runner.workspace_lock(self._call.principal.id):
            return await self._find_workspace(source_id)

    async def _find_workspace(self, source_id: str) -> Record:
        records = self._call.api.records()
        settings = self._call.settings
        present = await asyncio.to_thread(
            records.list, WORKSPACE, owner=self._call.principal.id, limit=settings.workspaces
        )
        wanted = {"purpose": _PURPOSE, "sources": [source_id]}
        least = min(_LEAST_SECONDS, settings.workspace_ttl / 2)
        for record in present:
            lasts = (record.expires_at or 0) > time.time() + least
            if lasts and wanted.items() <= record.data.items():
                return record
        data = wanted | {"quota": settings.workspace_quota}
        return await add_workspace(self._call, self._runner, data, settings.workspace_ttl)

    async def _wait(self, job: RunningJob, progress: Progress | None) -> None:
        """Wait for the end of a job, not too long; a caller that is cancelled cancels the job."""
        records = self._runner.records()
        deadline = time.monotonic() + _WAIT
        try:
            while not job.task.done() and time.monotonic() < deadline:
                await asyncio.wait([job.task], timeout=_PROGRESS_SECONDS)
                event = await asyncio.to_thread(records.last_event, job.record.id)
                if progress is not None and event is not None and event["event"] == "progress":
                    progress(event["data"]["bytes"], event["data"]["total"])
        except asyncio.CancelledError:
            job.cancel("the client has left")
            raise

    def _describe(
        self, workspace_id: str, request: FetchRequest, receipt: Mapping[str, Any]
    ) -> dict[str, Any]:
        address = f"v1/workspaces/{workspace_id}/files/{quote(receipt['path'])}"
        described = describe_receipt(request, receipt) | {"url": f"{self._base_url}{address}"}
        if not request.identifier:
            del described["item"]
        return described


@contextmanager
def _problems() -> Iterator[None]:
    """Raise problems of the server as errors of tools."""
    try:
        yield
    except Problem as exc:
        if exc.slug == "job-not-found":
            raise JobNotFoundError("there is no such job, or it has ended long ago") from exc
        error = ToolCallError(exc.detail)
        error.slug = exc.slug
        raise error from exc
