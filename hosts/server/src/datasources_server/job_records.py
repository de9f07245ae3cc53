"""The records of jobs, by which the workers of a server know of each other's jobs.

A job has a record of its own, and a lease as long as it runs. The lease is one of the places that
its principal has for jobs, and holds the heartbeat of the worker that runs the job. The states of
a job are `running`, and then one of `finished`, `failed`, `cancelled` and `lost`:

- The worker that runs the job writes the end before it releases the lock of the workspace, and
  then releases the lease.
- Another worker writes `lost`, if the heartbeat is too old, or if that worker itself has the lock
  of the workspace in which the job has `begun` to write. It undoes what the job has done with its
  `files` under the lock, and then releases the lease.
- All writes name the version that they replace, so that one of them ends the job.

To cancel a job, any worker sets `cancel` in its record, which the worker that runs it reads every
second.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from datasources import ConflictError, Record, Records, StoreError
from datasources_server.places import acquire_place, release_place
from datasources_server.problems import Problem

JOB = "job"
LOST = "the worker that ran the job has stopped answering; the job is not run again"
_LEASE = "job-lease"
_EVENT = "job-event"
_BATCH = 500  # records that are read at once
_SECONDS_AFTER_END = 3600.0  # for which a job that has ended can be asked for


class JobRecords:
    """Reads and writes the records of jobs; the methods block.

    Args:
        records: Those of the store.
        worker: The name of this worker.
        places: Jobs that a principal may have at once.
        timeout: Seconds without a heartbeat after which a job is lost.
    """

    def __init__(self, records: Records, worker: str, places: int, timeout: float) -> None:
        self._records = records
        self._worker = worker
        self._places = places
        self._timeout = timeout

    def get(self, job_id: str) -> Record | None:
        """Return the record of a job."""
        return self._records.get(JOB, job_id)

    def newest(self, owner: str | None, before: str | None, limit: int) -> list[Record]:
        """Return jobs of an owner, or all; the newest first, and after the place `before`."""
        jobs = (job for job in self._all(owner) if before is None or self.place_of(job) < before)
        return heapq.nlargest(limit, jobs, key=self.place_of)

    def place_of(self, job: Record) -> str:
        """Return the place of a job among others: texts in the order of their times."""
        return f"{job.data['created_at']:020.6f} {job.id}"

    def _all(self, owner: str | None) -> Iterator[Record]:
        after = ""
        while jobs := self._records.list(JOB, owner=owner, after=after, limit=_BATCH):
            yield from jobs
            after = jobs[-1].id

    def add(self, job_id: str, workspace: Record, subject: str) -> tuple[Record, Record]:
        """Add a job, and return its record and its lease.

        Args:
            job_id: The job.
            workspace: The record of its workspace.
            subject: The items that it fetches, encrypted, as they may be queries.

        Raises:
            Problem: 429, the principal has as many jobs as are allowed.
        """
        lease = self._acquire_lease(job_id, workspace)
        now = time.time()
        data: dict[str, Any] = {
            "workspace": workspace.id,
            "subject": subject,
            "state": "running",
            "lease": lease.id,
            "begun": False,
            "files": [],
            "cancel": False,
            "created_at": now,
            "ended_at": None,
            "receipts": [],
            "problem": None,
        }
        expires_at = (workspace.expires_at or now) + _SECONDS_AFTER_END
        job = Record(JOB, job_id, workspace.owner, data, expires_at=expires_at)
        try:
            return self._records.put(job, expected=0), lease
        except BaseException:  # nobody else gives the place up before the heartbeat is too old
            with suppress(StoreError):
                self._records.remove(JOB, job_id)  # stored all the same, if the answer was lost
                self.release(lease)
            raise

    def remove(self, job_id: str) -> None:
        """Remove a job that no worker runs yet, and its lease; do nothing if there is none."""
        job = self._records.take(JOB, job_id)
        lease = None if job is None else self.lease_of(job)
        if lease is not None:
            self.release(lease)

    def update(self, job_id: str, changes: Mapping[str, Any]) -> Record | None:
        """Change the record of a job that runs; return it, or as it is if it has ended."""
        while (job := self.get(job_id)) is not None and job.data["state"] == "running":
            try:
                return self._records.put(
                    replace(job, data={**job.data, **changes}), expected=job.version
                )
            except ConflictError:
                continue  # cancelled or ended meanwhile
        return job

    def end(self, job_id: str, state: str, changes: Mapping[str, Any]) -> bool:
        """End a job that runs; return True if it has ended in this state."""
        ended_at = time.time()
        job = self.update(job_id, {"state": state, "ended_at": ended_at, **changes})
        return job is not None and job.data["state"] == state

    def renew(self, lease: Record) -> Record | None:
        """Write the heartbeat of a lease, and return it; None if it is another job's now."""
        while True:
            data = {**lease.data, "heartbeat": time.time()}
            try:
                return self._records.put(replace(lease, data=data), expected=lease.version)
            except ConflictError:
                # An earlier renewal may have been stored although its answer was lost.
                current = self._records.get(_LEASE, lease.id)
                if current is None or current.data["job"] != lease.data["job"]:
                    return None
                lease = current

    def release(self, lease: Record) -> None:
        """Give a lease up, unless it is another job's now."""
        release_place(self._records, _LEASE, lease.id, "job", lease.data["job"])

    def lease_of(self, job: Record) -> Record | None:
        """Return the lease of a job; None if it has none any more."""
        lease = self._records.get(_LEASE, job.data["lease"])
        return lease if lease is not None and lease.data["job"] == job.id else None

    def is_alive(self, lease: Record | None) -> bool:
        """Return True if the worker that has a lease has renewed it in time."""
        return lease is not None and lease.data["heartbeat"] > time.time() - self._timeout

    def stale_leases(self) -> list[Record]:
        """Return the leases whose workers have not renewed them in time."""
        stale, after = [], ""
        while leases := self._records.list(_LEASE, after=after):
            stale += [lease for lease in leases if not self.is_alive(lease)]
            after = leases[-1].id
        return stale

    def leases_in(self, workspace: Record) -> list[Record]:
        """Return the leases of jobs in a workspace."""
        leases = self._records.list(_LEASE, owner=workspace.owner)
        return [lease for lease in leases if lease.data["workspace"] == workspace.id]

    def append_event(self, job: Record, event: str, data: Mapping[str, Any]) -> None:
        """Add an event to those of a job."""
        self._records.append(_EVENT, job.id, {"event": event, "data": data}, job.expires_at)

    def events(self, job_id: str, after: int) -> list[tuple[int, dict[str, Any]]]:
        """Return the next events of a job with their numbers, 100 at most."""
        return self._records.read(_EVENT, job_id, after=after)

    def last_number(self, job_id: str) -> int:
        """Return the number of the latest event of a job; 0 if it has none."""
        events = self._records.read(_EVENT, job_id, newest_first=True, limit=1)
        return events[0][0] if events else 0

    def last_event(self, job_id: str) -> dict[str, Any] | None:
        """Return the latest event of a job."""
        events = self._records.read(_EVENT, job_id, newest_first=True, limit=1)
        return events[0][1] if events else None

    def _acquire_lease(self, job_id: str, workspace: Record) -> Record:
        data = {
            "job": job_id,
            "workspace": workspace.id,
            "worker": self._worker,
            "heartbeat": time.time(),
        }
        lease = acquire_place(self._records, _LEASE, workspace.owner, self._places, data)
        if lease is not None:
            return lease
        raise Problem(
            429,
            "too-many-jobs",
            f"{self._places} jobs of yours are running, and more are not allowed at once",
            headers={"Retry-After": "1"},
            retryable=True,
        )


def lost_problem(job: Record) -> dict[str, Any]:
    """Return the problem of a job whose worker has died."""
    return Problem(409, "job-lost", LOST).to_dict(job.id)
