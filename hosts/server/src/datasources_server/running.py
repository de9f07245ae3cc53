"""Jobs that this worker runs, and the end of those whose workers have died."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any
from uuid import uuid4
from weakref import WeakValueDictionary

from fastapi import Depends, Request

from datasources import (
    DataSourceError,
    Principal,
    Record,
    RegistryError,
    StoreError,
    run_in_thread,
)
from datasources_server.calls import Api, Call
from datasources_server.job_items import seal_subject
from datasources_server.job_records import JobRecords, lost_problem
from datasources_server.job_watches import JobWatches, Look
from datasources_server.problems import Problem
from datasources_server.running_job import RunningJob, undo_lost_job
from datasources_server.workspace_files import Staging

_SWEEP_SECONDS = 5.0  # between two looks for jobs whose workers have died
_EXPIRY_SECONDS = 60.0  # between two deletions of what has expired
_STOP_TIMEOUT = 5.0  # seconds that jobs have to end when the server is told to end
# A workspace, or the folder of a job beside it.
_DIRECTORY = re.compile(r"([0-9a-f]{32})(?:\.([0-9a-f]{32}))?")

_log = logging.getLogger("datasources.server")


class JobRunner:
    """The jobs of this worker.

    Args:
        api: The parts that all requests share.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._worker = uuid4().hex
        self._jobs: dict[str, RunningJob] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.watches = JobWatches(self._look, self._read_events)
        """The jobs whose events somebody reads."""

    def records(self) -> JobRecords:
        """Return the records of jobs.

        Raises:
            Problem: 501, the store has no records.
        """
        settings = self._api.settings
        return JobRecords(
            self._api.records(), self._worker, settings.concurrent_jobs, settings.heartbeat_timeout
        )

    @property
    def running(self) -> int:
        """The number of jobs that this worker runs now."""
        return len(self._jobs)

    def workspace_lock(self, owner: str) -> asyncio.Lock:
        """Return the lock to hold while a workspace of an owner is looked for, or else made."""
        return self._locks.setdefault(owner, asyncio.Lock())

    def root(self) -> str:
        """Return the directory of all workspaces.

        Raises:
            Problem: 501, the server has none.
        """
        root = self._api.settings.workspace_root
        if root is None:
            raise Problem(
                501,
                "not-supported",
                "the server has no directory for workspaces; its setting `workspace_root` names one",
            )
        return root

    def directory_of(self, workspace: Record) -> str:
        """Return the directory of a workspace, which may not exist yet."""
        return os.path.join(os.path.realpath(self.root()), workspace.id)

    async def start(
        self, call: Call, workspace: Record, items: Sequence[Mapping[str, Any]]
    ) -> RunningJob:
        """Start a job that fetches items into a workspace.

        Raises:
            Problem: 429, the principal has as many jobs as are allowed.
        """
        records, root = self.records(), self.root()
        content = (uuid4().hex, workspace, seal_subject(call.registry.credentials, items))
        try:
            record, lease = await _add(records, *content)
        except Problem:
            await self._end_lost_jobs()  # one of a dead worker may have the place
            record, lease = await _add(records, *content)
        job = RunningJob(self._api, records, root, record, lease, call.principal, workspace, items)
        self._jobs[record.id] = job
        job.task.add_done_callback(lambda _: self._jobs.pop(record.id, None))
        return job

    async def settle(self, job: Record) -> Record | None:
        """Return a job as it is now, which is ended if its worker has died."""
        records = self.records()
        if job.data["state"] != "running":
            return job
        lease = await asyncio.to_thread(records.lease_of, job)
        if records.is_alive(lease):
            return job
        await asyncio.to_thread(records.end, job.id, "lost", {"problem": lost_problem(job)})
        if lease is not None:
            await self._clean_up(records, lease)
        return await asyncio.to_thread(records.get, job.id)

    async def _look(self, job_id: str) -> Look:
        records = self.records()
        job = await asyncio.to_thread(records.get, job_id)
        if job is not None:
            job = await self.settle(job)
        return Look(job, await asyncio.to_thread(records.last_number, job_id))

    async def _read_events(self, job_id: str, after: int) -> list[tuple[int, dict[str, Any]]]:
        return await asyncio.to_thread(self.records().events, job_id, after)

    async def cancel(self, job: Record) -> Record | None:
        """Cancel a job, whichever worker runs it; return it as it is now."""
        running = self._jobs.get(job.id)
        if running is not None:
            running.cancel("the job was cancelled")
        return await asyncio.to_thread(self.records().update, job.id, {"cancel": True})

    async def delete_workspace(self, workspace: Record) -> None:
        """Cancel the jobs of a workspace whose record is removed, and delete its directory."""
        records = self.records()
        for lease in await asyncio.to_thread(records.leases_in, workspace):
            job = await asyncio.to_thread(records.get, lease.data["job"])
            if job is not None:
                await self.cancel(job)
        await self.delete_directory(workspace.id)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """End what dead workers have left, and at the end of the block the jobs of this one."""
        sweep = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweep.cancel()
            for job in self._jobs.values():
                job.cancel("the server was stopped")
            tasks = [sweep, *(job.task for job in self._jobs.values())]
            _, pending = await asyncio.wait(tasks, timeout=_STOP_TIMEOUT)
            for task in pending:
                task.cancel()

    async def _sweep(self) -> None:
        expiry = 0.0
        while True:
            try:
                await self._end_lost_jobs()
                if time.monotonic() >= expiry:
                    expiry = time.monotonic() + _EXPIRY_SECONDS
                    await self._delete_expired()
            except Problem:
                return  # the store has no records, or there is no directory for workspaces
            except DataSourceError as exc:
                _log.warning("what has expired is not deleted: %s", exc.slug)
            except Exception:  # noqa: BLE001  (logged; the next round may succeed)
                _log.exception("what has expired is not deleted")
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _end_lost_jobs(self) -> None:
        records = self.records()
        for lease in await asyncio.to_thread(records.stale_leases):
            job = await asyncio.to_thread(records.get, lease.data["job"])
            if job is not None and job.data["state"] == "running":
                await self.settle(job)
            else:
                await self._clean_up(records, lease)

    async def _clean_up(self, records: JobRecords, lease: Record) -> None:
        """Undo what a job of a dead worker has done, and release its lease.

        If its worker still holds the lock of the workspace, a later sweep does so.
        """
        job = await asyncio.to_thread(records.get, lease.data["job"])
        if job is not None and job.data["begun"]:
            access = self._api.registry.access(Principal(lease.owner))
            with suppress(RegistryError):
                async with access.workspace(
                    lease.data["workspace"], root=self.root(), keep=True
                ) as session:
                    await asyncio.to_thread(undo_lost_job, records, job.id, session.path)
                    await asyncio.to_thread(records.release, lease)
            return
        await asyncio.to_thread(records.release, lease)

    async def _delete_expired(self) -> None:
        records = self._api.records()
        await asyncio.to_thread(records.delete_expired, time.time())
        try:
            names = await asyncio.to_thread(os.listdir, self.root())
        except FileNotFoundError:
            return
        for name in names:
            match = _DIRECTORY.fullmatch(name)
            if match is None:
                continue
            workspace, job_id = match.groups()
            if await asyncio.to_thread(records.get, "workspace", workspace):
                continue
            if job_id is None:
                await self.delete_directory(workspace)
            else:
                staging = Staging(os.path.join(self.root(), workspace), job_id)
                await asyncio.to_thread(staging.delete)

    async def delete_directory(self, name: str) -> None:
        """Delete the directory of a workspace, unless a job still has its lock."""
        access = self._api.registry.access(Principal("server"))
        with suppress(RegistryError):
            async with access.workspace(name, root=self.root()):
                pass  # a session that is not kept deletes its directory


async def _add(
    records: JobRecords, job_id: str, workspace: Record, subject: str
) -> tuple[Record, Record]:
    """Add a job, as `JobRecords.add`; if its client leaves meanwhile, it is removed again."""
    try:
        return await run_in_thread(records.add, job_id, workspace, subject)
    except asyncio.CancelledError:
        with suppress(StoreError):  # then it is lost after the timeout
            await run_in_thread(records.remove, job_id)
        raise


async def current_runner(request: Request) -> JobRunner:
    """Return the jobs of this process, as a dependency."""
    call: Call = request.scope["datasources.call"]
    runner = call.api.runner
    assert runner is not None  # else there are no routes of jobs
    return runner


Runner = Annotated[JobRunner, Depends(current_runner)]
