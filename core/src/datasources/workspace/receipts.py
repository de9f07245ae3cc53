"""Receipts kept in a workspace, so that what has not changed need not be fetched again.

They are lines of JSON in a file of the workspace; the last one of an item counts. Anybody who can
write in the workspace can write them, too: a receipt is used only if the fetched file itself
confirms it. A receipt that is lost costs another fetch, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from datetime import datetime
from typing import Any

from datasources.files import open_regular
from datasources.models import FetchReceipt, FetchRequest
from datasources.workspace.paths import RECEIPTS
from datasources.workspace.spilling import TextTable

# Bytes of receipts that are read, some 1.5 million of them. A larger file is deleted.
_MAX_SIZE = 512 << 20
_MAX_LINE = 1 << 20  # bytes of one of them


class Receipts:
    """The receipts of one workspace, in bounded memory; safe under threads.

    On an event loop, call `load`, `unchanged` and the first `save` in a worker thread.
    """

    def __init__(self, workspace: str | os.PathLike[str]) -> None:
        self._workspace = os.path.realpath(workspace)
        self._file = os.path.join(self._workspace, RECEIPTS)
        self._by_key: TextTable | None = None
        self._lock = threading.Lock()
        self._descriptor = -1  # of the file, while `save` appends to it

    def load(self) -> None:
        """Read the receipts of earlier fetches, once."""
        with self._lock:
            if self._by_key is None:
                self._by_key = TextTable()
                self._read(self._by_key)

    @property
    def is_writing(self) -> bool:
        """True if `save` only appends to a file that is open."""
        return self._descriptor >= 0

    def close(self) -> None:
        """Close what is open; the receipts can be loaded again."""
        with self._lock:
            self._stop_writing()
            if self._by_key is not None:
                self._by_key.close()
            self._by_key = None

    def has(self, request: FetchRequest) -> bool:
        """Return True if `load` has found a receipt of the request's item in its version."""
        record = self._record(request)
        return request.version is not None and record.get("version") == request.version

    def save(self, request: FetchRequest, receipt: FetchReceipt) -> None:
        """Append the receipt of a fetch, if the source has versions and no limit cut the file."""
        if receipt.version is None or receipt.truncated:
            return
        path = os.path.relpath(receipt.path, self._workspace)
        record = receipt.to_dict() | {"format": request.format, "path": path}
        # Type and value errors: JSON cannot hold every value that a connector may report.
        with suppress(OSError, TypeError, ValueError), self._lock:
            line = json.dumps(record, default=str).encode() + b"\n"
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._descriptor = open_regular(self._file, flags)
            # With a second name, the file may be one outside that was linked into the workspace;
            # without one, it has been deleted.
            if os.fstat(self._descriptor).st_nlink == 1:
                os.write(self._descriptor, line)
            else:
                self._stop_writing()

    def unchanged(self, request: FetchRequest, max_bytes: int | None) -> FetchReceipt | None:
        """Return the receipt of an earlier fetch if it need not be repeated, else None.

        The request must have the version of that fetch, and the file its content. A file of more
        than `max_bytes` counts as changed: fetching it again raises the error that it is too large.
        """
        self.load()
        if not self.has(request):
            return None
        record = self._record(request)
        try:
            receipt = FetchReceipt(
                source_id=request.source_id,
                identifier=request.identifier,
                path=os.path.join(self._workspace, record["path"]),
                size=record["size"],
                sha256=record["sha256"],
                rows=None if record["rows"] is None else int(record["rows"]),
                truncated=False,
                version=request.version,
                fetched_at=datetime.fromisoformat(record["fetched_at"]),
                duration=float(record["duration"]),
                unchanged=True,
            )
            fits = max_bytes is None or receipt.size <= max_bytes
            return receipt if fits and self._is_confirmed(receipt) else None
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return None

    def _record(self, request: FetchRequest) -> dict[str, Any]:
        """Return the last receipt of the request's item; empty if there is none."""
        if self._by_key is None:
            return {}
        key = _key(request.source_id, request.identifier, request.format)
        record: dict[str, Any] = json.loads(self._by_key.get(key) or "{}")
        return record

    def _read(self, by_key: TextTable) -> None:
        with suppress(OSError), open(self._file, "rb", opener=open_regular) as file:
            if os.fstat(file.fileno()).st_size > _MAX_SIZE:
                os.unlink(self._file)
                return
            while line := file.readline(_MAX_LINE):
                with suppress(ValueError, KeyError, TypeError, RecursionError):
                    record = json.loads(line)
                    key = _key(record["source_id"], record["identifier"], record["format"])
                    by_key[key] = line.decode()

    def _stop_writing(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _is_confirmed(self, receipt: FetchReceipt) -> bool:
        """Return True if the workspace has the file, with the receipt's size and checksum."""
        inside = receipt.path.startswith(os.path.join(self._workspace, ""))
        if not inside or os.path.realpath(receipt.path) != receipt.path:
            return False
        with open(receipt.path, "rb", opener=open_regular) as file:
            if os.fstat(file.fileno()).st_size != receipt.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == receipt.sha256


def _key(source_id: str, identifier: str, format: str | None) -> str:
    return json.dumps([source_id, identifier, format])
