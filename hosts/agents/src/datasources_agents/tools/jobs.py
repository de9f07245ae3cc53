"""Fetches that go on after the call that has started them."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

from datasources import (
    Access,
    FetchReceipt,
    FetchRequest,
    Limits,
    RegistryError,
    WorkspaceSession,
)
from datasources.workspace import Progress
from datasources_agents.tools.failures import JobNotFoundError, ToolCallError, describe_failure
from datasources_agents.tools.results import item_head

_WAIT = 20.0  # seconds after which a fetch becomes a job; models' hosts give up after 30 to 60
_MAX_RUNNING = 4  # jobs of one session
_MAX_JOBS = 100  # that a session remembers


class Fetches(Protocol):
    """Writes items to files, for the tools `fetch_item` and `fetch_status`."""

    async def fetch(
        self, access: Access, request: FetchRequest, max_rows: int | None, progress: Progress | None
    ) -> dict[str, Any]:
        """Return the receipt of a fetch, or its job if it takes long.

        A caller that is cancelled cancels the fetch.
        """

    async def status(self, access: Access, job_id: str, *, cancel: bool) -> dict[str, Any]:
        """Return the state of a job; with `cancel`, after it has ended."""


@dataclass(eq=False)
class Job:
    """A fetch, and how far it is."""

    owner: str
    """The id of the principal that has started it."""
    request: FetchRequest
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    task: asyncio.Task[FetchReceipt] = field(init=False)
    fetched: int = 0
    """Bytes so far."""
    total: int | None = None
    """Bytes in all; None where unknown."""

    def note(self, fetched: int, total: int | None) -> None:
        """Take the progress of the fetch."""
        self.fetched, self.total = fetched, total


class SessionFetches:
    """Fetches into a workspace session, whose end cancels them.

    Objects for one session share its jobs.

    Args:
        session: The session, which is open.
        wait: Seconds after which a fetch becomes a job.
        absolute: True for receipts with absolute paths of files, for callers on this machine.
    """

    _jobs_of: ClassVar[WeakKeyDictionary[WorkspaceSession, dict[str, Job]]] = WeakKeyDictionary()

    def __init__(
        self, session: WorkspaceSession, *, wait: float = _WAIT, absolute: bool = False
    ) -> None:
        self.session = session
        self._wait = wait
        self._absolute = absolute
        self._jobs = self._jobs_of.setdefault(session, {})

    async def fetch(
        self, access: Access, request: FetchRequest, max_rows: int | None, progress: Progress | None
    ) -> dict[str, Any]:
        """Return the receipt of a fetch, or its job; see `Fetches`.

        Raises:
            DataSourceError: The fetch has failed, is not granted, or there are too many jobs.
        """
        # The session may have been opened for more than this access may do.
        await access.authorize_fetch(request.source_id, request.identifier)
        self._require_place()
        job = self._start(access, request, max_rows, progress)
        try:
            await asyncio.wait([job.task], timeout=self._wait)
        except asyncio.CancelledError:
            await _cancel(job)
            raise
        if job.task.done():
            return self._describe_receipt(job, job.task.result())
        try:
            self._require_place()  # which other calls may have taken meanwhile
        except RegistryError:
            await _cancel(job)
            raise
        self._remember(job)
        return self._describe(job)

    async def status(self, access: Access, job_id: str, *, cancel: bool) -> dict[str, Any]:
        """Return the state of a job; see `Fetches`.

        Raises:
            JobNotFoundError: The principal has no such job in this session.
        """
        job = self._jobs.get(job_id)
        if job is None or job.owner != access.principal.id:
            raise JobNotFoundError("there is no such job, or it has ended long ago")
        if cancel:
            await _cancel(job)
        return self._describe(job)

    async def upload(
        self, access: Access, source: str, path: str, name: str | None, overwrite: bool | None
    ) -> dict[str, Any]:
        """Store a file of the session in a source, and return the new item.

        Raises:
            ToolCallError: The session has no such file; links that lead out of it are none.
            DataSourceError: The upload has failed, or is not granted.
        """
        file = await asyncio.to_thread(_find_file, self.session.path, path)
        item = await access.upload(source, file, name, overwrite=overwrite is True)
        return item_head(FetchRequest(source, item.path)) | {"size": item.size}

    def _require_place(self) -> None:
        """Raise RegistryError if as many jobs run as are allowed."""
        if sum(not job.task.done() for job in self._jobs.values()) >= _MAX_RUNNING:
            raise RegistryError(
                f"{_MAX_RUNNING} jobs of this workspace run already; wait for one with "
                "fetch_status, or cancel one"
            )

    def _start(
        self, access: Access, request: FetchRequest, max_rows: int | None, progress: Progress | None
    ) -> Job:
        job = Job(access.principal.id, request)

        def note(fetched: int, total: int | None) -> None:
            job.note(fetched, total)
            if progress is not None:
                progress(fetched, total)

        limits = access.limits(request.source_id)
        if max_rows is not None:
            rows = max_rows if limits.max_rows is None else min(limits.max_rows, max_rows)
            limits = Limits(limits.max_bytes, rows, limits.timeout)
        job.task = asyncio.create_task(
            self.session.fetch(
                request.source_id,
                request.identifier,
                format=request.format,
                limits=limits,
                progress=note,
                parameters=request.parameters,
            )
        )
        job.task.add_done_callback(_take_exception)
        return job

    def _remember(self, job: Job) -> None:
        ended = [job_id for job_id, other in self._jobs.items() if other.task.done()]
        for job_id in ended[: max(0, len(self._jobs) + 1 - _MAX_JOBS)]:
            del self._jobs[job_id]
        self._jobs[job.id] = job

    def _describe(self, job: Job) -> dict[str, Any]:
        described: dict[str, Any] = {"job": job.id}
        if not job.task.done():
            progress = {"bytes": job.fetched, "total": job.total}
            return described | {"state": "running", "progress": progress}
        if job.task.cancelled():
            return described | {"state": "cancelled"}
        error = job.task.exception()
        if isinstance(error, Exception):
            return described | {"state": "failed", "error": describe_failure(error)}
        return described | self._describe_receipt(job, job.task.result())

    def _describe_receipt(self, job: Job, receipt: FetchReceipt) -> dict[str, Any]:
        path = receipt.path
        if not self._absolute:
            path = os.path.relpath(path, self.session.path)
        return describe_receipt(job.request, receipt.to_dict() | {"path": path})


def describe_receipt(request: FetchRequest, receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a fetch that has finished.

    Args:
        request: The request.
        receipt: The receipt as JSON; its `path` is as the caller may see it.
    """
    names = ("path", "size", "rows", "truncated", "sha256", "fetched_at")
    described: dict[str, Any] = {"state": "finished", **item_head(request)}
    described |= {name: receipt[name] for name in names}
    if receipt["truncated"]:
        more = "a greater max_rows gets them, up to the limit of the host"
        described["notes"] = [
            f"The file has the first {receipt['rows']} rows and the source has more; {more}."
        ]
    return described


def _find_file(directory: str, path: str) -> str:
    root = os.path.realpath(directory)
    file = os.path.realpath(os.path.join(root, path.replace("\0", "_")))
    if not (file.startswith(f"{root}/") and os.path.isfile(file)):
        raise ToolCallError("the workspace has no such file")
    return file


async def _cancel(job: Job) -> None:
    job.task.cancel()
    await asyncio.wait([job.task])


def _take_exception(task: asyncio.Task[FetchReceipt]) -> None:
    """Mark the exception of a task as retrieved: nobody may ask for that of a job."""
    if not task.cancelled():
        task.exception()
