"""Delete the directories of workspace sessions that ended without deleting them.

A session holds the exclusive lock of its directory, which the operating system drops when the
process dies. As long as the directory may exist, there is a mark of it: an empty file in the folder
`.datasources-sessions` beside it, whose name is that of the directory and the number of its inode.
The mark tells it from other directories, also from a later one of the same name. It stands outside,
where code that runs in the directory has nothing to delete.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress

from datasources.errors import OptionError, RegistryError
from datasources.workspace import lock

_MARKS = ".datasources-sessions"  # no id of a workspace begins with a dot
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def mark_session(path: str, descriptor: int) -> None:
    """Mark the directory of a session, which is open, as used now.

    Raises:
        OSError: The mark cannot be written.
    """
    mark = _mark(path, descriptor)
    folder = os.path.dirname(mark)
    while True:
        try:  # not `makedirs`, which fails if the folder is deleted right after it was seen
            os.mkdir(folder, mode=0o700)
        except FileExistsError:
            if os.path.islink(folder):
                raise
        with suppress(FileNotFoundError):  # the end of another session has deleted the folder
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            os.utime(mark)
            return


def unmark_session(path: str, descriptor: int) -> None:
    """Delete the mark of a directory that was deleted and is open still."""
    mark = _mark(path, descriptor)
    with suppress(OSError):  # there is none; the last mark takes the folder with it
        os.unlink(mark)
        os.rmdir(os.path.dirname(mark))


def sweep_workspaces(root: str | os.PathLike[str], older_than: float) -> list[str]:
    """Delete abandoned directories; see `DataSourceRegistry.sweep_workspaces`."""
    if older_than < 0:
        raise OptionError("'older_than' must be a number of seconds of at least 0")
    path = os.path.realpath(root)
    try:
        names = sorted(os.listdir(path))
    except OSError as exc:
        raise RegistryError(f"{path!r} cannot be swept: {exc.strerror}") from exc
    deadline = time.time() - older_than
    return [name for name in names if _swept(os.path.join(path, name), deadline)]


def _mark(path: str, descriptor: int) -> str:
    root, name = os.path.split(path)
    return os.path.join(root, _MARKS, f"{name}.{os.fstat(descriptor).st_ino}")


def _swept(path: str, deadline: float) -> bool:
    """Delete a directory of a session that was not used since a time; return True if it is gone."""
    try:
        descriptor = os.open(path, _DIRECTORY)
    except OSError:  # no directory, or a link
        return False
    try:
        # Before the lock, too: a session that is opened meanwhile would be refused.
        if not _is_abandoned(path, descriptor, deadline) or not lock(descriptor, wait=False):
            return False
        same = os.path.samestat(os.fstat(descriptor), os.lstat(path))
        if not same or not _is_abandoned(path, descriptor, deadline):
            return False
        shutil.rmtree(path)  # which refuses a link, and follows none
        unmark_session(path, descriptor)
    except (OSError, RecursionError):  # locked by its session, or gone; or too deep to be deleted
        return False
    finally:
        os.close(descriptor)
    return True


def _is_abandoned(path: str, descriptor: int, deadline: float) -> bool:
    """Return True for a directory of a session in which nothing was changed since a time.

    The times are those that the system sets (`st_ctime`): programs can give a file any other.
    """
    try:
        marked = os.lstat(_mark(path, descriptor)).st_ctime
    except OSError:
        return False
    latest = max(marked, os.fstat(descriptor).st_ctime)
    folders = [path]  # not by `os.walk`, which fails where hundreds are nested
    while folders and latest <= deadline:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):  # gone meanwhile
                    latest = max(latest, entry.stat(follow_symlinks=False).st_ctime)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return latest <= deadline
