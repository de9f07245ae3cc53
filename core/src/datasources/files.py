"""Open files that may have been replaced by something else."""

from __future__ import annotations

import errno
import os
import stat


def open_regular(
    path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, follow_links: bool = False
) -> int:
    """Open a regular file and return its descriptor; `open` takes it as an `opener`.

    Opening a pipe would wait until another process opens its other end; here it is an error at
    once, as are devices, sockets and directories. A new file has mode 600.

        with open(path, "rb", opener=open_regular) as file:
            ...

    Args:
        path: The file.
        flags: As `os.open` takes them.
        follow_links: Open what a symbolic link at `path` leads to; otherwise it is an error.

    Raises:
        OSError: As `os.open`, with `errno.ELOOP` for a link, and `errno.EINVAL` for what is not a
            regular file.
    """
    links = 0 if follow_links else os.O_NOFOLLOW
    descriptor = os.open(path, flags | os.O_NONBLOCK | links, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor
