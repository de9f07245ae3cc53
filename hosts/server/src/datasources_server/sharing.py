"""Files of a workspace that code of another user may read."""

from __future__ import annotations

import os
import stat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe would wait for its writer.
_ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def share_below(directory: str, path: str) -> None:
    """Let every user read a file below a directory, and enter the folders on its way.

    Links are not followed. What belongs to another user, or has a second name, stays as it is.
    """
    descriptor = os.open(directory, _FOLDER)
    try:
        for name in path.split("/"):
            above = descriptor
            descriptor = os.open(name, _ENTRY, dir_fd=above)
            os.close(above)
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid():
                return
            if stat.S_ISDIR(status.st_mode):
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | 0o055)
            elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | 0o044)
    except OSError:  # the code in the workspace has moved it away meanwhile
        pass
    finally:
        os.close(descriptor)
