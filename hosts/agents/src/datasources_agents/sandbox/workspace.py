"""The files of a workspace, seen without following a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from datasources_agents.sandbox.models import ChangedFile

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAX_DEPTH = 64  # folders in folders; each of them is open while what is in it is seen


@dataclass(slots=True)
class Usage:
    """The sums of a workspace."""

    size: int = 0
    count: int = 0
    is_too_deep: bool = False


class Entry(NamedTuple):
    """One entry of a workspace."""

    path: str
    """Relative to the workspace."""
    name: str
    """In its folder."""
    folder: int
    """A descriptor of its folder, open until the next entry."""
    status: os.stat_result


def walk(path: str, *, mode: int = 0o500) -> Iterator[Entry]:
    """Yield each entry of a workspace, those of a folder after the folder itself.

    Folders deeper than `MAX_DEPTH` are yielded, and not entered. What disappears meanwhile is left out.

    Args:
        path: The workspace.
        mode: Permissions that each folder gets for its owner, so that no code can hide what is in it.
    """
    stack: list[tuple[str, int, list[str]]] = []
    try:
        with suppress(FileNotFoundError):  # its session has ended
            stack.append(("", _open_folder(path, None, mode), []))
            stack[-1][2].extend(os.listdir(stack[-1][1]))
        while stack:
            above, folder, names = stack[-1]
            if not names:
                os.close(stack.pop()[1])
                continue
            name = names.pop()
            with suppress(OSError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield Entry(above + name, name, folder, status)
                if stat.S_ISDIR(status.st_mode) and len(stack) < MAX_DEPTH:
                    stack.append((f"{above}{name}/", _open_folder(name, folder, mode), []))
                    stack[-1][2].extend(os.listdir(stack[-1][1]))
    finally:
        for _, folder, _ in stack:
            os.close(folder)


def _open_folder(name: str, above: int | None, mode: int) -> int:
    """Open a folder, which gets the permissions of `mode` for its owner.

    They are set on what is open, and not by the name, in whose place code that runs may put a link.
    """
    place = os.open(name, _PLACE, dir_fd=above)
    try:
        path = f"/proc/self/fd/{place}"
        found = stat.S_IMODE(os.fstat(place).st_mode)
        if found & mode != mode:
            os.chmod(path, found | mode)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(place)


def measure(path: str, max_count: int) -> Usage:
    """Return the sums of a workspace; counting ends beyond `max_count` entries."""
    usage = Usage()
    for entry in walk(path):
        usage.count += 1
        if stat.S_ISREG(entry.status.st_mode):
            usage.size += size_of(entry.status)
        usage.is_too_deep |= entry.path.count("/") >= MAX_DEPTH - 1
        if usage.count > max_count:
            break
    return usage


def size_of(status: os.stat_result) -> int:
    """Return the bytes of a file, a sparse one at its full size."""
    return max(status.st_size, status.st_blocks * 512)


def free_bytes(path: str) -> int:
    """Return the free bytes of the file system of a workspace; none if it has ended."""
    with suppress(OSError):
        status = os.statvfs(path)
        return status.f_bfree * status.f_frsize
    return 0


Snapshot = dict[str, tuple[int, int, int]]
"""Of each regular file: inode, size, and the time of its last change, which the system sets."""


def take_snapshot(path: str) -> Snapshot:
    """Return what tells changed files from others."""
    return {
        entry.path: _mark(entry.status)
        for entry in walk(path)
        if stat.S_ISREG(entry.status.st_mode)
    }


def _mark(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_ctime_ns


def find_changes(
    path: str, before: Snapshot, max_count: int, max_bytes: int
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
    for entry in walk(path, mode=0o700):
        status = entry.status
        if not stat.S_ISREG(status.st_mode) or before.get(entry.path) == _mark(status):
            continue
        if len(changed) == max_count:
            break
        max_bytes -= status.st_size
        digest = _hash(entry) if max_bytes >= 0 else None
        changed.append(ChangedFile(entry.path, status.st_size, digest))
    return tuple(sorted(changed, key=lambda file: file.path))


def raise_deep_folders(path: str) -> None:
    """Move folders that are too deep to be deleted to the top, until there are none; no code may run."""
    is_deep = True
    while is_deep:
        is_deep = False
        for entry in walk(path, mode=0o700):
            if stat.S_ISDIR(entry.status.st_mode) and entry.path.count("/") >= MAX_DEPTH - 1:
                is_deep = True
                # A folder that is moved must be writable, as its entry `..` changes.
                os.close(_open_folder(entry.name, entry.folder, 0o700))
                top = os.path.join(path, f"deep-{os.urandom(8).hex()}")
                os.rename(entry.name, top, src_dir_fd=entry.folder)


def _hash(entry: Entry) -> str | None:
    """Return the SHA-256 of a file; None if it cannot be read."""
    try:
        descriptor = os.open(entry.name, _FILE, dir_fd=entry.folder)
        with open(descriptor, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
