"""Part files: files under a temporary name until they are complete.

States of a part file, which its owner, one `WorkspaceFile`, has open all the time:

- created: under a random name and with O_EXCL, so that nobody else opens it for writing;
- locked: the owner holds an exclusive `flock` until it closes the descriptor. The operating system
  drops the lock when the process dies, however it dies; this is how `delete_abandoned` tells the
  part file of a dead process from one that is being written;
- renamed: the file is complete and has its final name. The lock is dropped afterwards;
- deleted: by the owner, if the file will not be completed, or by `delete_abandoned`, once its lock
  can be had.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress

from datasources.files import open_regular
from datasources.workspace.paths import IS_TEMPORARY, TEMPORARY

# Seconds in which a new part file may be on its way from created to locked.
_UNLOCKED_AGE = 1.0


def create_part(directory: int) -> tuple[str, int]:
    """Create a part file in an open directory; return its name and its descriptor, locked.

    Raises:
        OSError: The file cannot be created.
    """
    name = TEMPORARY.format(secrets.token_hex(8))
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(name, flags, 0o666, dir_fd=directory)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return name, descriptor


def delete_abandoned(folder: str) -> list[str]:
    """Delete the part files in a folder whose owners are gone; return their names."""
    deleted = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if IS_TEMPORARY.fullmatch(name) and _is_abandoned(path := os.path.join(folder, name)):
            with suppress(FileNotFoundError):
                os.unlink(path)
                deleted.append(name)
    return deleted


def _is_abandoned(path: str) -> bool:
    try:
        descriptor = open_regular(path)
    except OSError:
        return False
    try:
        if time.time() - os.fstat(descriptor).st_mtime < _UNLOCKED_AGE:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
