"""Methods that fetch items into workspaces of the server, in jobs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

from datasources_client.content import Content
from datasources_client.errors import ResponseError
from datasources_client.models import (
    ContentReceipt,
    FileReceipt,
    Job,
    JobEvent,
    Receipt,
    Selection,
    Workspace,
)
from datasources_client.reading import read_model
from datasources_client.requests import Requests, all_items, member, segment, source_path

_LONGEST_EVENT = 1 << 20  # bytes


class WorkspaceMethods(Requests):
    """The routes below `/workspaces` and `/jobs`."""

    _content_timeout: float

    def make_workspace(
        self, *sources: str, quota: int | None = None, ttl: int | None = None
    ) -> Workspace:
        """Make a workspace, whose files the server deletes at its end.

        Args:
            sources: The ids of the sources that items may be fetched from.
            quota: Bytes of all files; by default what the server allows.
            ttl: Seconds until the workspace ends; by default what the server allows.
        """
        body: dict[str, Any] = {"sources": list(sources)}
        body |= {} if quota is None else {"quota": quota}
        body |= {} if ttl is None else {"ttl": ttl}
        return read_model(Workspace, self._json("POST", "/v1/workspaces", body))

    def workspace(self, id: str) -> Workspace:
        """Return a workspace of the caller."""
        return read_model(Workspace, self._json("GET", f"/v1/workspaces/{segment(id)}"))

    def delete_workspace(self, id: str) -> None:
        """Cancel the jobs of a workspace, and delete its files."""
        self._json("DELETE", f"/v1/workspaces/{segment(id)}")

    def fetch_into(
        self, workspace: str, items: Iterable[Selection], *, wait: bool = True
    ) -> tuple[FileReceipt, ...] | Job:
        """Fetch items into a workspace, all of them or none.

        Args:
            workspace: The id of the workspace.
            items: Sources, items, formats and parameters.
            wait: True to have the receipts, if they are there within a few seconds.

        Returns:
            The receipts in the order of the items; or the job, which goes on.
        """
        body = {"items": [asdict(item) for item in items], "wait": wait}
        path = f"/v1/workspaces/{segment(workspace)}/fetch"
        answer = self._json("POST", path, body, timeout=self._content_timeout)
        if isinstance(answer, dict) and "state" in answer:
            return read_model(Job, answer)
        receipts = member(answer, "receipts", list)
        return tuple(read_model(FileReceipt, receipt) for receipt in receipts)

    def fetch_here(
        self,
        source: str,
        item: str,
        workspace: str,
        *,
        format: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Have an item written into the workspace that the server's socket serves.

        Only the socket of a workspace has this route. The host writes the file, so that nothing is
        sent through the socket but the receipt.

        Args:
            source: The id of the source.
            item: The path of an item, or a query.
            workspace: The path of the workspace as the calling process sees it.
            format: Such as `csv` or `parquet`; by default that of the connector.
            parameters: As for `preview`.
        """
        body = {"item": item, "format": format, "parameters": dict(parameters or {})}
        path = f"{source_path(source)}/fetch"
        answer = self._json("POST", path, body, timeout=self._content_timeout)
        file, content = read_model(FileReceipt, answer), read_model(ContentReceipt, answer)
        own_path = os.path.join(workspace, file.path)
        return Receipt(source, item, own_path, file.size, file.sha256, content)

    def open_file(self, workspace: str, path: str) -> Content:
        """Open a file of a workspace, under the path that its receipt says."""
        address = f"/v1/workspaces/{segment(workspace)}/files"
        parts = "/".join(segment(part) for part in path.split("/"))
        return Content(self._transport.send("GET", f"{address}/{parts}"))

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs of the caller, of an administrator all, the newest first, page by page."""
        return all_items(lambda cursor: self._page(Job, "/v1/jobs", {"cursor": cursor}))

    def job(self, id: str) -> Job:
        """Return a job as it is now: one of the caller, for an administrator any."""
        return read_model(Job, self._json("GET", f"/v1/jobs/{segment(id)}"))

    def cancel_job(self, id: str) -> Job:
        """Cancel a job, which ends within seconds; one that has ended stays as it is."""
        return read_model(Job, self._json("DELETE", f"/v1/jobs/{segment(id)}"))

    def job_events(self, id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """Yield the events of a job as they happen, to its end.

        Args:
            id: Of the job.
            after: The number of the last event that was seen; 0 for all.
        """
        path, headers = f"/v1/jobs/{segment(id)}/events", {"Last-Event-ID": str(after)}
        with closing(self._transport.send("GET", path, headers=headers)) as response:
            rest = b""
            for chunk in response.chunks():
                *blocks, rest = (rest + chunk).split(b"\n\n")
                if len(rest) > _LONGEST_EVENT:
                    raise ResponseError("the server sends an event that is too long")
                yield from (event for block in blocks if (event := _read_event(block)))


def _read_event(block: bytes) -> JobEvent | None:
    """Return an event of a stream of server-sent events; None for a comment."""
    lines = (line.partition(b": ") for line in block.splitlines() if not line.startswith(b":"))
    fields = {name: value for name, _, value in lines}
    if b"data" not in fields:
        return None
    try:
        number = int(fields[b"id"]) if b"id" in fields else None
        return JobEvent(fields[b"event"].decode(), json.loads(fields[b"data"]), number)
    except (KeyError, ValueError) as exc:
        raise ResponseError("the server sends an event that cannot be read") from exc
