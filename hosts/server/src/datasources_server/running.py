"""Jobs that this worker runs, and the end of those whose workers have died."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, Request

from datasources import (
    Access,
    DataSourceError,
    Principal,
    Record,
    RegistryError,
    StoreError,
    WorkspaceSession,
)
from datasources_server.calls import Api, Call, current_call
from datasources_server.job_records import JobRecords
from datasources_server.problems import Problem, problem_of
from datasources_server.receipts import public_receipt
from datasources_server.workspace_files import delete_since, make_mark

_POLL_SECONDS = 1.0  # between two looks at the record of a job that runs
_LOCK_SECONDS = 0.2  # between two attempts to lock a workspace
_SWEEP_SECONDS = 5.0  # between two looks for jobs whose workers have died
_EXPIRY_SECONDS = 60.0  # between two deletions of what has expired
_STOP_TIMEOUT = 5.0  # seconds that jobs have to end when the server is told to end
_WORKSPACE_ID = re.compile(r"[0-9a-f]{32}")

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
        try:
            record, lease = await asyncio.to_thread(records.add, uuid4().hex, workspace)
        except Problem:
            await self._end_lost_jobs()  # one of a dead worker may have the place
            record, lease = await asyncio.to_thread(records.add, uuid4().hex, workspace)
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
        await asyncio.to_thread(records.end, job.id, "lost", {"problem": _lost(job)})
        if lease is not None:
            await self._clean_up(records, lease)
        return await asyncio.to_thread(records.get, job.id)

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
        """Delete the files of a job that was lost, and release its lease.

        If its worker still holds the lock of the workspace, a later sweep does so.
        """
        job = await asyncio.to_thread(records.get, lease.data["job"])
        mark = None if job is None or job.data["state"] != "lost" else job.data["mark"]
        if mark is not None:
            access = self._api.registry.access(Principal(lease.owner))
            with suppress(RegistryError):
                async with access.workspace(
                    lease.data["workspace"], root=self.root(), keep=True
                ) as session:
                    await asyncio.to_thread(delete_since, session.path, mark)
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
            if _WORKSPACE_ID.fullmatch(name) and not await asyncio.to_thread(
                records.get, "workspace", name
            ):
                await self.delete_directory(name)

    async def delete_directory(self, name: str) -> None:
        """Delete the directory of a workspace, unless a job still has its lock."""
        access = self._api.registry.access(Principal("server"))
        with suppress(RegistryError):
            async with access.workspace(name, root=self.root()):
                pass  # a session that is not kept deletes its directory


async def current_runner(request: Request) -> JobRunner:
    """Return the jobs of this process, as a dependency."""
    runner = (await current_call(request)).api.runner
    assert runner is not None  # else there are no routes of jobs
    return runner


Runner = Annotated[JobRunner, Depends(current_runner)]


class RunningJob:
    """One job that this worker runs, in a task of its own.

    Args:
        api: The parts that all requests share.
        records: The records of jobs.
        root: The directory of all workspaces.
        record: That of the job.
        lease: That of the job.
        principal: The owner of the job, with the grants that it began with.
        workspace: The record of the workspace.
        items: Source, item and format of what is fetched.
    """

    def __init__(
        self,
        api: Api,
        records: JobRecords,
        root: str,
        record: Record,
        lease: Record,
        principal: Principal,
        workspace: Record,
        items: Sequence[Mapping[str, Any]],
    ) -> None:
        self.record = record
        self.problem: Problem | None = None
        """The reason why the job has not finished."""
        self.receipts: list[dict[str, Any]] = []
        self._api = api
        self._records = records
        self._root = root
        self._lease = lease
        self._principal = principal
        self._workspace = workspace
        self._items = items
        self._progress: dict[str, Any] | None = None  # since the last event
        self._reason: str | None = None  # of a cancellation
        self._is_ending = False
        self._work = asyncio.create_task(self._fetch_all())
        self.task = asyncio.create_task(self._run())
        """Ends when the job has ended."""

    def cancel(self, reason: str) -> None:
        """End the job, unless it is ending already; `task` ends when it has ended."""
        if not self._is_ending and self._reason is None:
            self._reason = reason
            self._work.cancel()

    async def _run(self) -> None:
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([self._work])
            error = None if self._work.cancelled() else self._work.exception()
            if self._is_ending:
                if error is not None:
                    _log.warning("job %s: %s", self.record.id, type(error).__name__)
            else:  # before the job had written anything
                await self._end(error or asyncio.CancelledError())
        finally:
            watch.cancel()
            await asyncio.wait([watch])
        with suppress(StoreError):  # else the lease becomes stale, and another worker releases it
            await asyncio.to_thread(self._records.release, self._lease)
            workspace = await asyncio.to_thread(
                self._api.records().get, "workspace", self._workspace.id
            )
            if workspace is None and self._api.runner is not None:  # removed while the job ran
                await self._api.runner.delete_directory(self._workspace.id)

    async def _fetch_all(self) -> None:
        async with AsyncExitStack() as stack:
            access = narrow_access(self._api, self._principal, self._workspace)
            session = await self._lock_workspace(stack, access)
            await self._end_dead_jobs(session)
            mark = await asyncio.to_thread(make_mark, session.path)
            await asyncio.to_thread(self._records.update, self.record.id, {"mark": mark})
            error: BaseException | None = None
            try:
                for number, item in enumerate(self._items, 1):
                    await self._fetch(session, number, item)
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001  (`_end` records it)
                error = exc
            # Under the lock: whoever has it next takes a job that runs for one of a dead worker.
            if not await self._end(error, session.path, mark):
                await asyncio.to_thread(delete_since, session.path, mark)

    async def _lock_workspace(self, stack: AsyncExitStack, access: Access) -> WorkspaceSession:
        """Return the session of the workspace, once no other job is in it."""
        quota = self._workspace.data["quota"]
        while True:
            session = access.workspace(self._workspace.id, root=self._root, quota=quota, keep=True)
            try:
                return await stack.enter_async_context(session)
            except RegistryError as exc:
                if not isinstance(exc.__cause__, BlockingIOError):
                    raise
            await asyncio.sleep(_LOCK_SECONDS)

    async def _end_dead_jobs(self, session: WorkspaceSession) -> None:
        """End the jobs that had the lock of the workspace, which their processes have lost."""
        for lease in await asyncio.to_thread(self._records.leases_in, self._workspace):
            job = await asyncio.to_thread(self._records.get, lease.data["job"])
            if job is None or job.id == self.record.id or job.data["mark"] is None:
                continue
            lost = await asyncio.to_thread(
                self._records.end, job.id, "lost", {"problem": _lost(job)}
            )
            if lost:
                await asyncio.to_thread(delete_since, session.path, job.data["mark"])
            await asyncio.to_thread(self._records.release, lease)

    async def _fetch(self, session: WorkspaceSession, number: int, item: Mapping[str, Any]) -> None:
        def report(done: int, total: int | None) -> None:
            self._progress = {"item": number, "items": len(self._items)}
            self._progress |= {"bytes": done, "total": total}

        receipt = await session.fetch(
            item["source"], item["item"], format=item["format"], progress=report
        )
        values = public_receipt(receipt) | {
            "source": item["source"],
            "path": receipt.path.removeprefix(f"{session.path}/"),
        }
        self.receipts.append(values)
        with suppress(StoreError):  # events are for those who watch: the job has its receipts
            await asyncio.to_thread(self._records.append_event, self.record, "receipt", values)

    async def _end(
        self, error: BaseException | None, directory: str | None = None, mark: int = 0
    ) -> bool:
        """Record the end of the job; return False if another worker has ended it.

        Args:
            error: The reason why it has not finished.
            directory: Where the job has written its files, which are deleted on an error.
            mark: The beginning of the job.
        """
        self._is_ending = True
        state = "finished"
        if error is not None:
            if isinstance(error, Exception):
                state, self.problem = "failed", problem_of(error, is_admin=self._principal.is_admin)
            else:
                state = "cancelled"
                reason = self._reason or "the server was stopped"
                self.problem = Problem(409, "job-cancelled", reason)
            self.receipts = []
            if directory is not None:
                await asyncio.to_thread(delete_since, directory, mark)
        problem = None if self.problem is None else self.problem.to_dict(self.record.id)
        while True:
            try:
                recorded = await asyncio.to_thread(
                    self._records.end,
                    self.record.id,
                    state,
                    {"receipts": self.receipts, "problem": problem},
                )
            except StoreError as exc:
                _log.warning("the end of job %s is not recorded yet: %s", self.record.id, exc.slug)
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if not recorded:
                state, self.problem = "lost", Problem(409, "job-lost", _LOST)
            self._api.metrics.count_job(state)
            return recorded

    async def _watch(self) -> None:
        """Write the heartbeat, and cancel the job when it may not go on."""
        settings = self._api.settings
        beat = check = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            now = time.monotonic()
            try:
                await self._check_record()
                if now >= beat + settings.heartbeat_timeout / 4:
                    lease = await asyncio.to_thread(self._records.renew, self._lease)
                    if lease is None:
                        self.cancel(_LOST)
                        return
                    self._lease, beat = lease, now
                if now >= check + settings.recheck_seconds:
                    check = now
                    await self._check_owner()
            except DataSourceError as exc:
                _log.warning("job %s cannot be checked: %s", self.record.id, exc.slug)

    async def _check_record(self) -> None:
        job = await asyncio.to_thread(self._records.get, self.record.id)
        if job is None or job.data["state"] != "running":
            self.cancel(_LOST)
        elif job.data["cancel"]:
            self.cancel("the job was cancelled")
        elif self._progress is not None:
            progress, self._progress = self._progress, None
            await asyncio.to_thread(self._records.append_event, job, "progress", progress)

    async def _check_owner(self) -> None:
        if await self._api.find(self._principal.id) != self._principal:
            self.cancel("the grants of the job's owner have changed")
        workspace = await asyncio.to_thread(
            self._api.records().get, "workspace", self._workspace.id
        )
        if workspace is None:
            self.cancel("the workspace has ended")


_LOST = "the worker that ran the job has stopped answering; the job is not run again"


def _lost(job: Record) -> dict[str, Any]:
    return Problem(409, "job-lost", _LOST).to_dict(job.id)


def narrow_access(api: Api, principal: Principal, workspace: Record) -> Access:
    """Return the access of a principal to the sources that a workspace is granted."""
    grants = [
        grant for source in workspace.data["sources"] for grant in principal.grants_for(source)
    ]
    return api.registry.access(
        Principal(principal.id, grants=grants),
        limits=api.settings.limits,
        concurrency=api.settings.concurrent_fetches,
    )
