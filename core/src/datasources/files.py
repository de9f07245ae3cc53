"""Open files that may have been replaced by something else, and make private directories."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress


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


def make_private_directory(path: str) -> None:
    """Make a directory and the missing ones above it, for their owner alone whatever the umask."""
    if not path or os.path.isdir(path):
        return
    make_private_directory(os.path.dirname(path))
    with suppress(FileExistsError):  # another process was faster
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)
