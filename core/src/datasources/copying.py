"""Copy a local file that others may write to at the same time."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import BinaryIO

from datasources.errors import DataFetchError
from datasources.threads import run_in_thread
from datasources.workspace import Workspace

_CHUNK = 1024 * 1024  # bytes read in one call of a worker thread; a cancelled copy waits for it


async def copy_file(
    source: BinaryIO,
    workspace: Workspace,
    name: str,
    *,
    version: Callable[[os.stat_result], str] | None = None,
) -> str:
    """Copy an open file into a workspace, at the size it has now; return the path of the copy.

    The copy is the file as it was at one time, never a mixture of two contents. A file whose status
    changes during the copy is read a second time: if what was copied is still its beginning, as
    that of a log to which lines are added, the copy is good.

    Args:
        source: The file, at its beginning, opened for reading without a buffer.
        workspace: The workspace.
        name: The name of the copy in the workspace.
        version: Makes the source's mark of this content from the file's status.

    Raises:
        DataFetchError: The file changed during the copy, or the copy cannot be written.
        LimitExceededError: The file is over a limit of the workspace.
    """
    before = os.fstat(source.fileno())
    with workspace.create(name, size=before.st_size) as target:
        if version is not None:
            target.version = version(before)
        checksum = 0
        # In chunks, so that a cancelled copy stops after the one that is being read.
        while target.size < before.st_size:
            chunk = await run_in_thread(source.read, min(_CHUNK, before.st_size - target.size))
            if not chunk:
                raise _changed(name)
            target.write(chunk)
            checksum = zlib.crc32(chunk, checksum)
        if _status(os.fstat(source.fileno())) != _status(before):
            source.seek(0)
            if await _checksum(source, before.st_size) != checksum:
                raise _changed(name)
    return target.path


async def _checksum(source: BinaryIO, size: int) -> int:
    checksum = 0
    while size > 0 and (chunk := await run_in_thread(source.read, min(_CHUNK, size))):
        checksum = zlib.crc32(chunk, checksum)
        size -= len(chunk)
    return checksum


def _status(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_size


def _changed(name: str) -> DataFetchError:
    return DataFetchError(f"{name!r} changed while it was copied; fetch it again")
