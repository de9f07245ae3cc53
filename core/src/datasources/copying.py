"""Copy a local file that others may write to at the same time."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import BinaryIO

from datasources.errors import DataFetchError
from datasources.threads import run_in_thread
from datasources.workspace import Workspace

_CHUNK = 1024 * 1024  # bytes read in one call of a worker thread; a cancelled copy waits for it


async def copy_file(
    source: BinaryIO | Callable[[], BinaryIO],
    workspace: Workspace,
    name: str,
    *,
    version: Callable[[os.stat_result], str] | None = None,
) -> str:
    """Copy a file into a workspace, at the size it has now; return the path of the copy.

    The copy is the file as it was at one time, never a mixture of two contents. A file whose status
    changes during the copy is read a second time: if what was copied is still its beginning, as
    that of a log to which lines are added, the copy is good.

    A file of up to 1 MiB is opened, copied and put in place in one call of a worker thread: most of
    the time that a small file takes is that of switching between threads.

    Args:
        source: The file, at its beginning, opened for reading without a buffer; or a function that
            opens it so, which is called in a worker thread, and whose file is closed at the end.
        workspace: The workspace.
        name: The name of the copy in the workspace.
        version: Makes the source's mark of this content from the file's status.

    Raises:
        DataFetchError: The file changed during the copy, or the copy cannot be written.
        LimitExceededError: The file is over a limit of the workspace.
    """
    cancelled = threading.Event()
    with ExitStack() as opened:

        def begin() -> str | tuple[BinaryIO, os.stat_result]:
            """Return the path of the copy if the file is small, else the open file and its status."""
            file = opened.enter_context(source()) if callable(source) else source
            before = os.fstat(file.fileno())
            if before.st_size > _CHUNK:
                return file, before
            path = _copy_chunk(file, before, workspace, name, version, cancelled)
            opened.close()
            return path

        copied = await run_in_thread(begin, on_cancel=cancelled.set)
        if isinstance(copied, str):
            return copied
        return await _copy_in_chunks(*copied, workspace, name, version)


async def _copy_in_chunks(
    source: BinaryIO,
    before: os.stat_result,
    workspace: Workspace,
    name: str,
    version: Callable[[os.stat_result], str] | None,
) -> str:
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


def _copy_chunk(
    source: BinaryIO,
    before: os.stat_result,
    workspace: Workspace,
    name: str,
    version: Callable[[os.stat_result], str] | None,
    cancelled: threading.Event,
) -> str:
    with workspace.create(name, size=before.st_size) as target:
        if version is not None:
            target.version = version(before)
        content = _read(source, before.st_size)
        target.write(content)
        if _status(os.fstat(source.fileno())) != _status(before):
            source.seek(0)
            if _read(source, before.st_size) != content:
                raise _changed(name)
        if len(content) < before.st_size:
            raise _changed(name)
        if cancelled.is_set():  # so that nothing is left; the caller sees its cancellation instead
            raise DataFetchError(f"the copy of {name!r} was cancelled")
    return target.path


def _read(source: BinaryIO, size: int) -> bytes:
    """Read as many bytes; fewer if the file ends before."""
    content = source.read(size)
    while len(content) < size and (more := source.read(size - len(content))):
        content += more
    return content


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
