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

# Bytes of receipts that are read into memory, some 200,000 of them. A larger file is deleted.
_MAX_SIZE = 64 << 20

_Key = tuple[str, str, str | None]  # source id, identifier, format


class Receipts:
    """The receipts of one workspace; safe under threads.

    Its methods but `has` read and write files: on an event loop, call them in a worker thread.
    """

    def __init__(self, workspace: str | os.PathLike[str]) -> None:
        self._workspace = os.path.realpath(workspace)
        self._file = os.path.join(self._workspace, RECEIPTS)
        self._by_key: dict[_Key, dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read the receipts of earlier fetches, once."""
        with self._lock:
            if self._by_key is None:
                self._by_key = self._read()

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
        with (
            suppress(OSError, TypeError, ValueError),
            open(self._file, "ab", buffering=0, opener=open_regular) as file,
        ):
            # With a second name, the file may be one outside that was linked into the workspace.
            if os.fstat(file.fileno()).st_nlink == 1:
                file.write(json.dumps(record, default=str).encode() + b"\n")

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
        key = request.source_id, request.identifier, request.format
        return (self._by_key or {}).get(key, {})

    def _read(self) -> dict[_Key, dict[str, Any]]:
        by_key: dict[_Key, dict[str, Any]] = {}
        with suppress(OSError), open(self._file, "rb", opener=open_regular) as file:
            content = file.read(_MAX_SIZE + 1)
            if len(content) > _MAX_SIZE:
                os.unlink(self._file)
                return by_key
            for line in content.splitlines():
                with suppress(ValueError, KeyError, TypeError, RecursionError):
                    record = json.loads(line)
                    by_key[record["source_id"], record["identifier"], record["format"]] = record
        return by_key

    def _is_confirmed(self, receipt: FetchReceipt) -> bool:
        """Return True if the workspace has the file, with the receipt's size and checksum."""
        inside = receipt.path.startswith(os.path.join(self._workspace, ""))
        if not inside or os.path.realpath(receipt.path) != receipt.path:
            return False
        with open(receipt.path, "rb", opener=open_regular) as file:
            if os.fstat(file.fileno()).st_size != receipt.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == receipt.sha256
