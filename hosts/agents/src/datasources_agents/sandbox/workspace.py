"""The files of a workspace, seen without following a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from datasources_agents.sandbox.models import ChangedFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAX_DEPTH = 64  # folders in folders; each of them is open while what is in it is seen


@dataclass(slots=True)
class Usage:
    """The sums of a workspace."""

    size: int = 0
    count: int = 0
    is_too_deep: bool = False


def walk(path: str, *, repair: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative path and status of each entry, those of a folder after the folder itself.

    Folders deeper than `MAX_DEPTH` are yielded, and not entered. What disappears meanwhile is left out.

    Args:
        path: The workspace.
        repair: True to make folders readable for their owner; only when no code runs.
    """
    stack: list[tuple[str, int, list[str]]] = []
    try:
        with suppress(FileNotFoundError):  # its session has ended
            if repair:
                os.chmod(path, 0o700)
            root = os.open(path, _FOLDER)
            stack.append(("", root, os.listdir(root)))
        while stack:
            above, folder, names = stack[-1]
            if not names:
                os.close(stack.pop()[1])
                continue
            name = names.pop()
            with suppress(OSError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield above + name, status
                if stat.S_ISDIR(status.st_mode) and len(stack) < MAX_DEPTH:
                    if repair and status.st_mode & 0o700 != 0o700:
                        os.chmod(name, 0o700, dir_fd=folder)
                    child = os.open(name, _FOLDER, dir_fd=folder)
                    stack.append((f"{above}{name}/", child, []))
                    stack[-1][2].extend(os.listdir(child))
    finally:
        for _, folder, _ in stack:
            os.close(folder)


def measure(path: str, max_count: int) -> Usage:
    """Return the sums of a workspace; counting ends beyond `max_count` entries."""
    usage = Usage()
    for name, status in walk(path):
        usage.count += 1
        if stat.S_ISREG(status.st_mode):
            usage.size += max(status.st_size, status.st_blocks * 512)
        usage.is_too_deep |= name.count("/") >= MAX_DEPTH - 1
        if usage.count > max_count:
            break
    return usage


Snapshot = dict[str, tuple[int, int, int]]
"""Of each regular file: inode, size, and the time of its last change, which the system sets."""


def take_snapshot(path: str) -> Snapshot:
    """Return what tells changed files from others."""
    return {
        name: (status.st_ino, status.st_size, status.st_ctime_ns)
        for name, status in walk(path)
        if stat.S_ISREG(status.st_mode)
    }


def find_changes(
    path: str, before: Snapshot, *, max_count: int, max_bytes: int
) -> tuple[ChangedFile, ...]:
    """Return the files that are new or changed since a snapshot; no code may run any more.

    Args:
        path: The workspace.
        before: The snapshot.
        max_count: Files that are returned.
        max_bytes: Bytes that are read for checksums.
    """
    raise_deep_folders(path)
    changed: list[ChangedFile] = []
    for name, status in walk(path, repair=True):
        mark = (status.st_ino, status.st_size, status.st_ctime_ns)
        if not stat.S_ISREG(status.st_mode) or before.get(name) == mark:
            continue
        if len(changed) == max_count:
            break
        max_bytes -= status.st_size
        digest = _hash(path, name) if max_bytes >= 0 else None
        changed.append(ChangedFile(name, status.st_size, digest))
    return tuple(sorted(changed, key=lambda file: file.path))


def raise_deep_folders(path: str) -> None:
    """Move folders that are too deep to be deleted to the top, until there are none; no code may run."""
    while deep := [
        name
        for name, status in walk(path, repair=True)
        if stat.S_ISDIR(status.st_mode) and name.count("/") >= MAX_DEPTH - 1
    ]:
        for name in deep:
            os.rename(os.path.join(path, name), os.path.join(path, f"deep-{os.urandom(8).hex()}"))


def _hash(path: str, name: str) -> str | None:
    """Return the SHA-256 of a file; None if it cannot be read."""
    try:
        descriptor = os.open(os.path.join(path, name), _FILE)
        with open(descriptor, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
