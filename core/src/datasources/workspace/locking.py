"""Locks that end with the process that holds them, where the file system has such locks."""

from __future__ import annotations

import errno
import fcntl

# What `flock` answers where a lock cannot be had at all: ENOSYS from Lustre mounted without
# `-o flock`, EOPNOTSUPP (ENOTSUP) from FUSE file systems, ENOLCK from NFS without a lock manager;
# EBADF from NFS for a descriptor that is not open for writing, as one of a directory never is.
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EBADF}


def lock(descriptor: int, *, wait: bool = True) -> bool:
    """Take the exclusive lock of an open file or directory, held until the descriptor is closed.

    Args:
        descriptor: On NFS, it must be open for writing.
        wait: Wait while somebody else holds the lock.

    Returns:
        True if the lock is held, False if the file system has no locks.

    Raises:
        BlockingIOError: Somebody else holds the lock, and `wait` is false.
        OSError: The file system failed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            return False
        raise
    return True
