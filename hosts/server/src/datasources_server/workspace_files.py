"""Files in the directories of workspaces, whose links are never followed."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from typing import BinaryIO

from datasources_server.problems import Problem

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_below(directory: str, path: str) -> BinaryIO:
    """Open a regular file below a directory.

    Each folder is opened in the one above it, so that a link is not followed even if it takes the
    place of a folder meanwhile.

    Raises:
        Problem: 404, there is no such file.
    """
    try:
        *folders, name = path.split("/")
        if any(part in ("", ".", "..") for part in (*folders, name)):
            raise FileNotFoundError(path)
        descriptor = os.open(directory, _FOLDER)
        for folder in folders:
            above = descriptor
            try:
                descriptor = os.open(folder, _FOLDER, dir_fd=above)
            finally:
                os.close(above)
        try:
            file = os.open(name, _FILE, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        if stat.S_ISREG(os.fstat(file).st_mode):
            return open(file, "rb")
        os.close(file)
    except (OSError, ValueError):  # the latter of a NUL, or of what UTF-8 cannot hold
        pass
    raise Problem(404, "file-not-found", "there is no such file in the workspace")


def make_mark(directory: str) -> int:
    """Return the time of the file system of a directory, in nanoseconds.

    It is that of a file made now, as the clock of the system may be ahead of that of its files.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_ctime_ns


def delete_since(directory: str, mark: int) -> None:
    """Delete the files below a directory that were made or changed since a mark.

    The times are those that the system sets (`st_ctime`): programs can give a file any other.
    """
    with suppress(FileNotFoundError):  # the directory is gone
        for _, folders, files, descriptor in os.fwalk(directory, follow_symlinks=False):
            for name in (*files, *folders):
                with suppress(OSError):  # gone, or not to be deleted
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode) and status.st_ctime_ns >= mark:
                        os.unlink(name, dir_fd=descriptor)
