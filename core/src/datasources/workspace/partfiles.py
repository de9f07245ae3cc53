"""Part files: files under a temporary name until they are complete.

States of a part file, which its owner, one `WorkspaceFile`, has open all the time:

- created: under a random name and with O_EXCL, so that nobody else opens it for writing;
- locked: the owner holds an exclusive lock until it closes the descriptor. The operating system
  drops the lock when the process dies, however it dies; this is how `delete_abandoned` tells the
  part file of a dead process from one that is being written. Where the file system has no locks,
  the file is written all the same, and is never deleted as abandoned;
- renamed: the file is complete and has its final name. The lock is dropped afterwards;
- deleted: by the owner, if the file will not be completed, or by `delete_abandoned`, which holds
  the lock while it deletes.

A file may be deleted between created and locked. The owner sees this once it has the lock, and
creates another: so nobody has to guess from the age of a file, which clocks get wrong.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress

from datasources.files import open_regular
from datasources.workspace.locking import lock
from datasources.workspace.paths import IS_TEMPORARY, TEMPORARY

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def create_part(directory: int) -> tuple[str, int]:
    """Create a part file in an open directory; return its name and its descriptor, locked.

    Raises:
        OSError: The file cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    while True:
        name = TEMPORARY.format(secrets.token_hex(8))
        descriptor = os.open(name, flags, 0o666, dir_fd=directory)
        try:
            lock(descriptor)
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            return name, descriptor
        except FileNotFoundError:  # deleted before it was locked
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            os.unlink(name, dir_fd=directory)
            raise


def delete_abandoned(folder: str) -> list[str]:
    """Delete the part files in a folder whose owners are gone; return their names."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [
        name
        for name in names
        if IS_TEMPORARY.fullmatch(name) and _delete_if_abandoned(os.path.join(folder, name))
    ]


def _delete_if_abandoned(path: str) -> bool:
    """Delete a part file, or a folder of them, if its lock can be had; return True if deleted."""
    with suppress(OSError):  # locked, gone meanwhile, or not ours to open or to delete
        is_folder = os.path.isdir(path) and not os.path.islink(path)
        descriptor = os.open(path, _FOLDER) if is_folder else _open(path)
        try:
            if lock(descriptor, wait=False):
                shutil.rmtree(path) if is_folder else os.unlink(path)
                return True
        finally:
            os.close(descriptor)
    return False


def _open(path: str) -> int:
    try:
        return open_regular(path, os.O_RDWR)  # NFS locks only what is open for writing
    except PermissionError:  # another user's
        return open_regular(path)
