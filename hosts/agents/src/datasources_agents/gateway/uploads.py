"""Files that the gateway uploads to the model's server, and deletes whatever happens.

Each upload is a record of the store, in one of these states:

- noted: written before the upload begins. The name is unique, so that the file can be found in the
  server's list of files even if its id never arrived;
- uploaded: the id of the file is in the record;
- lost: its worker has no live heartbeat, or could not delete it. Any worker tries to delete it.

The record is removed when the file is deleted. Heartbeats are records that expire by themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO
from uuid import uuid4

from datasources import (
    ConflictError,
    DataSourceError,
    Record,
    Records,
    StoreError,
    guess_media_type,
    run_in_thread,
)
from datasources_agents.gateway.settings import GatewaySettings
from datasources_agents.gateway.upstream import Upstream, UpstreamError
from datasources_server import Problem

_UPLOAD = "gateway-upload"
_WORKER = "gateway-worker"
_LOST = ""  # the worker of a record that any worker may delete
_LATE = 60.0  # seconds in which a file may still appear whose upload was broken off
_LIMIT = 1000
_UNUSUAL = re.compile(r"[^\w.()+-]+")  # not in names of files that servers take

_log = logging.getLogger("datasources.gateway")


class Uploads:
    """The uploads of this worker, and the end of those of dead ones to the same server."""

    def __init__(self, records: Records, upstream: Upstream, settings: GatewaySettings) -> None:
        self._records = records
        self._upstream = upstream
        self._url = settings.url
        self._timeout = settings.heartbeat_timeout
        self._worker = uuid4().hex
        self._deleting: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Give signs of life, and delete what dead workers have uploaded."""
        await self._beat()
        task = asyncio.create_task(self._sweep_regularly())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task, *self._deleting])
            with suppress(StoreError):  # then it expires
                await asyncio.to_thread(self._records.remove, _WORKER, self._worker)

    def plan(self, owner: str, name: str, mark: str) -> Record:
        """Return the record of an upload, for `upload` and `delete`.

        Args:
            owner: The id of the principal.
            name: The name of the file.
            mark: A part of the name that no file of another request or conversation has.
        """
        data = {
            "url": self._url,
            "name": name,
            "mark": mark,
            "file_id": None,
            "worker": self._worker,
            "since": time.time(),
        }
        return Record(_UPLOAD, uuid4().hex, owner, data)

    async def upload(self, record: Record, file: BinaryIO) -> str:
        """Note an upload, upload the file, and return its id.

        Raises:
            UpstreamError, Problem: As `Upstream.upload`.
            StoreError: The upload cannot be noted.
        """
        name = record.data["name"]
        # To its end, so that a caller that is cancelled finds the record when it deletes it.
        await run_in_thread(partial(self._records.put, record, expected=0))
        media_type = guess_media_type(name) or "application/octet-stream"
        file_id = await self._upstream.upload(name, file, media_type)
        await self._update(record, file_id=file_id)
        return file_id

    def delete(self, record: Record) -> None:
        """Delete the file of an upload, and then its record, in a task of its own.

        The task of a request is cancelled when its client leaves, which may be now. What fails is
        tried again later.
        """
        task = asyncio.create_task(self._delete(record))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    async def _delete(self, record: Record) -> None:
        try:
            current = await asyncio.to_thread(self._records.get, _UPLOAD, record.id)
            if current is not None and await self._delete_file(current):
                await asyncio.to_thread(self._records.remove, _UPLOAD, current.id)
            elif current is not None:
                await self._update(current, worker=_LOST)
        except (UpstreamError, Problem, DataSourceError) as exc:
            _log.warning("a file of the model's server is not deleted yet: %s", exc)
            with suppress(StoreError):
                await self._update(record, worker=_LOST)

    async def _delete_file(self, record: Record) -> bool:
        """Delete the file of an upload; return False if it may appear later."""
        if record.data["file_id"] is not None:
            await self._upstream.delete(record.data["file_id"])
            return True
        noted = {other.data["file_id"] for other in await self._noted()}
        try:
            files = await self._upstream.find(record.data["mark"])
        except UpstreamError as exc:
            if exc.status not in (404, 405, 501):
                raise
            _log.warning("the model's server lists no files, so that one may be left there")
            return True
        for file_id in files:
            if file_id not in noted:  # of a later request with the same name
                await self._upstream.delete(file_id)
        return bool(files) or record.data["since"] < time.time() - _LATE

    async def _sweep_regularly(self) -> None:
        while True:
            try:
                await self._sweep()
                await self._beat()
            except Exception as exc:  # noqa: BLE001  (the next round may succeed)
                _log.warning("uploads of dead workers are not deleted: %s", type(exc).__name__)
            await asyncio.sleep(self._timeout / 4)

    async def _sweep(self) -> None:
        """Delete the uploads that are lost."""
        for record in await self._noted():
            worker = record.data["worker"]
            if worker == self._worker:
                continue
            if worker == _LOST or not await asyncio.to_thread(self._records.get, _WORKER, worker):
                await self._delete(record)

    async def _beat(self) -> None:
        record = Record(_WORKER, self._worker, expires_at=time.time() + self._timeout)
        await asyncio.to_thread(self._records.put, record)

    async def _noted(self) -> list[Record]:
        """Return the uploads to this server."""
        records = await asyncio.to_thread(partial(self._records.list, _UPLOAD, limit=_LIMIT))
        return [record for record in records if record.data["url"] == self._url]

    async def _update(self, record: Record, **changes: object) -> None:
        """Change a record, unless it is removed: a thread of a cancelled upload may be that late."""
        get = partial(self._records.get, _UPLOAD, record.id)
        while (current := await asyncio.to_thread(get)) is not None:
            new = replace(current, data={**current.data, **changes})
            with suppress(ConflictError):  # changed or removed meanwhile
                await asyncio.to_thread(self._records.put, new, expected=current.version)
                return


def upload_name(path: str, key: str) -> tuple[str, str]:
    """Return the name that a file is uploaded under, and the mark in it.

    Args:
        path: The path of the file.
        key: A text that belongs to one request or conversation.
    """
    name = PurePosixPath(path)
    mark = hashlib.sha256(f"{key}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem, suffix = (_UNUSUAL.sub("_", part) for part in (name.stem, name.suffix))
    return f"{stem[:100]}-{mark}{suffix[:20]}", mark
