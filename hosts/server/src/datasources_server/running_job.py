"""One job that this worker runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

from datasources import (
    Access,
    DataFetchError,
    Principal,
    Record,
    RegistryError,
    StoreError,
    Workspace,
    WorkspaceSession,
    run_in_thread,
)
from datasources_server.calls import Api
from datasources_server.job_records import LOST, JobRecords, lost_problem
from datasources_server.problems import Problem, problem_of
from datasources_server.receipts import public_receipt
from datasources_server.workspace_files import Staging

_POLL_SECONDS = 1.0  # between two looks at the record of a job that runs
_LOCK_SECONDS = 0.2  # between two attempts to lock a workspace

_log = logging.getLogger("datasources.server")


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
        items: Source, item and format of what is fetched; `limits` and `parameters` if there are any.
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
        self._staging: Staging | None = None
        self._files: list[tuple[str, int]] = []  # that are put in place, or will be
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
            self._staging = Staging(session.path, self.record.id)
            await self._update(begun=True)
            error: BaseException | None = None
            try:
                await run_in_thread(self._staging.make)
                for number, item in enumerate(self._items, 1):
                    await self._fetch(access, session, number, item)
                self._files = await run_in_thread(self._staging.files)
                if not await self._update(files=self._files):
                    raise asyncio.CancelledError
                await run_in_thread(self._staging.place, self._files)
            except OSError as exc:
                error = DataFetchError(f"the files cannot be put in place: {exc.strerror}")
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001  (`_end` records it)
                error = exc
            # Under the lock: whoever has it next takes a job that runs for one of a dead worker.
            if not await self._end(error):
                await run_in_thread(self._staging.restore, self._files)
            await run_in_thread(self._staging.delete)

    async def _update(self, **changes: Any) -> bool:
        """Change the record of the job; return False if another worker has ended it."""
        job = await asyncio.to_thread(self._records.update, self.record.id, changes)
        return job is not None and job.data["state"] == "running"

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
            if job is None or job.id == self.record.id or not job.data["begun"]:
                continue
            await asyncio.to_thread(
                self._records.end, job.id, "lost", {"problem": lost_problem(job)}
            )
            await asyncio.to_thread(undo_lost_job, self._records, job.id, session.path)
            await asyncio.to_thread(self._records.release, lease)

    async def _fetch(
        self, access: Access, session: WorkspaceSession, number: int, item: Mapping[str, Any]
    ) -> None:
        def report(done: int, total: int | None) -> None:
            self._progress = {"item": number, "items": len(self._items)}
            self._progress |= {"bytes": done, "total": total}

        assert self._staging is not None
        # Files that are in place, and those that wait for their place, have one quota.
        directory = Workspace(
            self._staging.new, quota=session.path.quota, authorize=access.authorize_fetch
        )
        receipt = await access.fetch(
            item["source"],
            item["item"],
            directory,
            format=item["format"],
            limits=item.get("limits"),
            progress=report,
            parameters=item.get("parameters"),
        )
        values = public_receipt(receipt) | {
            "source": item["source"],
            "path": receipt.path.removeprefix(f"{directory}/"),
        }
        self.receipts.append(values)
        with suppress(StoreError):  # events are for those who watch: the job has its receipts
            await asyncio.to_thread(self._records.append_event, self.record, "receipt", values)

    async def _end(self, error: BaseException | None) -> bool:
        """Record the end of the job; return False if another worker has ended it.

        Args:
            error: The reason why it has not finished; what it has done is undone first.
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
            if self._staging is not None:
                await run_in_thread(self._staging.restore, self._files)
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
                state, self.problem = "lost", Problem(409, "job-lost", LOST)
            self._api.metrics.count_job(state)
            return recorded

    async def _watch(self) -> None:
        """Write the heartbeat, and cancel the job when its owner may not go on, or cannot be found."""
        settings = self._api.settings
        beat = check = confirmed = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            now = time.monotonic()
            try:
                await self._check_record()
                if now >= beat + settings.heartbeat_timeout / 4:
                    lease = await asyncio.to_thread(self._records.renew, self._lease)
                    if lease is None:
                        self.cancel(LOST)
                        return
                    self._lease, beat = lease, now
                if now >= check + settings.recheck_seconds:
                    check = now
                    await self._check_owner()
                    confirmed = now
            except Exception as exc:  # noqa: BLE001  (logged; the next look may succeed)
                _log.warning("job %s cannot be checked: %s", self.record.id, problem_of(exc).slug)
                if now >= confirmed + settings.confirm_seconds:
                    self.cancel("it cannot be told if the owner of the job may go on")

    async def _check_record(self) -> None:
        job = await asyncio.to_thread(self._records.get, self.record.id)
        if job is None or job.data["state"] != "running":
            self.cancel(LOST)
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


def undo_lost_job(records: JobRecords, job_id: str, directory: str) -> None:
    """Undo what a dead worker's job has done, or only clean up after one that has ended well.

    Args:
        records: The records of jobs.
        job_id: The job, which has ended.
        directory: The workspace, whose lock the caller holds.
    """
    job, staging = records.get(job_id), Staging(directory, job_id)
    if job is not None and job.data["state"] != "finished":
        staging.restore(job.data["files"])
    staging.delete()
