"""Check the paths of the command line's own files."""

from __future__ import annotations

import os


def exists(path: str) -> bool:
    """Return True if a file exists, also if it is no regular file, such as a pipe.

    `os.path.exists` is also False for a file that cannot be reached; taking that for a file that
    does not exist would show a store as empty and a key as lost.

    Raises:
        OSError: The path cannot be reached, such as for lack of permission.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True
