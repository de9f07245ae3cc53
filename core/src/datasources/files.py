"""Open files that may have been replaced by something else, and make private directories."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Where there is O_PATH, a folder may be passed through that may not be listed.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW


def open_regular(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    follow_links: bool = False,
    dir_fd: int | None = None,
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
        dir_fd: An open directory that a relative path begins at; None for the current one.

    Raises:
        OSError: As `os.open`, with `errno.ELOOP` for a link, and `errno.EINVAL` for what is not a
            regular file.
    """
    links = 0 if follow_links else os.O_NOFOLLOW
    descriptor = os.open(path, flags | os.O_NONBLOCK | links, 0o600, dir_fd=dir_fd)
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


def open_below(directory: str | os.PathLike[str], path: str) -> int:
    """Open a regular file below a directory for reading, and return its descriptor.

    Each folder is opened in the one above it, so that a link is not followed even if somebody puts
    it in the place of a folder meanwhile.

    Args:
        directory: The directory.
        path: The relative path of the file, with `/` between its parts.

    Raises:
        OSError: There is no such file, it is not a regular one, or the directory or a part of the
            path is a link.
        ValueError: The path has characters that no path can have.
    """
    with _folder_of(directory, path) as (folder, name):
        return open_regular(name, dir_fd=folder)


def delete_below(directory: str | os.PathLike[str], path: str) -> None:
    """Delete a file below a directory, or the link that is in its place, as `open_below` finds it.

    Raises:
        OSError, ValueError: As `open_below`.
    """
    with _folder_of(directory, path) as (folder, name):
        os.unlink(name, dir_fd=folder)


@contextmanager
def _folder_of(directory: str | os.PathLike[str], path: str) -> Iterator[tuple[int, str]]:
    """Open the folder of a file below a directory; yield its descriptor and the file's name."""
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") for part in (*folders, name)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    descriptor = os.open(directory, _FOLDER)
    try:
        for folder in folders:
            above = descriptor
            descriptor = os.open(folder, _FOLDER, dir_fd=above)
            os.close(above)
        yield descriptor, name
    finally:
        os.close(descriptor)
