"""What a workspace holds of which version, so that it need not be fetched again.

The receipts stand in a file of the workspace, a line each, the last of an item counting.  Whoever
can write in the workspace can write there: nothing is believed that the fetched file itself does
not bear out, and a receipt that is lost costs a fetch, no more.
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

_MOST = 64 << 20  # bytes of receipts that are read; a file that is larger is begun anew

_Key = tuple[str, str, str | None]


class Receipts:
    """The receipts of one workspace; safe under threads.  Its methods do I/O."""

    def __init__(self, workspace: str | os.PathLike[str]) -> None:
        self._workspace = os.path.realpath(workspace)
        self._file = os.path.join(self._workspace, RECEIPTS)
        self._known: dict[_Key, dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def keep(self, request: FetchRequest, receipt: FetchReceipt) -> None:
        """Note what was fetched, if the source has versions and no limit cut it."""
        if receipt.version is None or receipt.truncated:
            return
        path = os.path.relpath(receipt.path, self._workspace)
        line = receipt.to_dict() | {"format": request.format, "path": path}
        # A connector's figures may be anything.
        with (
            suppress(OSError, TypeError, ValueError),
            open(self._file, "ab", buffering=0, opener=open_regular) as file,
        ):
            if os.fstat(file.fileno()).st_nlink == 1:  # the other may be outside the workspace
                file.write(json.dumps(line, default=str).encode() + b"\n")

    def unchanged(self, request: FetchRequest, max_bytes: int | None) -> FetchReceipt | None:
        """Return the receipt of a file that is of the request's version, and still as fetched.

        One of more than `max_bytes` is to be fetched again, which says that it is too large.
        """
        with self._lock:
            if self._known is None:
                self._known = self._read()
        line = self._known.get((request.source_id, request.identifier, request.format))
        if line is None or line.get("version") != request.version:
            return None
        try:
            receipt = FetchReceipt(
                source_id=request.source_id,
                identifier=request.identifier,
                path=os.path.join(self._workspace, line["path"]),
                size=line["size"],
                sha256=line["sha256"],
                rows=None if line["rows"] is None else int(line["rows"]),
                truncated=False,
                version=request.version,
                fetched_at=datetime.fromisoformat(line["fetched_at"]),
                duration=float(line["duration"]),
                unchanged=True,
            )
            fits = max_bytes is None or receipt.size <= max_bytes
            return receipt if fits and self._holds(receipt) else None
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return None

    def _read(self) -> dict[_Key, dict[str, Any]]:
        known: dict[_Key, dict[str, Any]] = {}
        with suppress(OSError), open(self._file, "rb", opener=open_regular) as file:
            content = file.read(_MOST + 1)
            if len(content) > _MOST:
                os.unlink(self._file)
                return known
            for line in content.splitlines():
                with suppress(ValueError, KeyError, TypeError, RecursionError):
                    found = json.loads(line)
                    known[found["source_id"], found["identifier"], found["format"]] = found
        return known

    def _holds(self, receipt: FetchReceipt) -> bool:
        """Tell whether the file is in the workspace, with that content."""
        inside = receipt.path.startswith(os.path.join(self._workspace, ""))
        if not inside or os.path.realpath(receipt.path) != receipt.path:
            return False
        with open(receipt.path, "rb", opener=open_regular) as file:
            if os.fstat(file.fileno()).st_size != receipt.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == receipt.sha256
