"""Walk folders in a fixed order that can be resumed after any path, in bounded memory.

The order is that of `LocalFileConnector.list_items`: the files of a folder by name, then its
subfolders by name, each with all that lies below it. To resume after `a/b/c.txt` are left: the
files of `a/b` after `c.txt`, the subfolders of `a/b`, those of `a` after `b`, and those of the top
after `a`. A file system lists names in no order, so a folder is read once for each batch of its
names; no other folder that was walked before is read again.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator

_BATCH = 1_000  # names of one folder in memory at once

Keep = Callable[[os.DirEntry[str]], bool]
ReadNames = Callable[[str, str, Keep], list[os.DirEntry[str]]]
"""Returns the first entries of a folder after a name that are to be kept, by name."""


def walk_after(
    top: str, after: str, is_folder: Keep, read: ReadNames
) -> Iterator[os.DirEntry[str]]:
    """Yield the entries below a folder that are no folders, from after a path relative to it.

    Args:
        top: The folder.
        after: The path of the last entry that was seen; empty to begin.
        is_folder: True for an entry that is walked into.
        read: Reads a folder.
    """

    def is_file(entry: os.DirEntry[str]) -> bool:
        return not is_folder(entry)

    *folders, name = after.split("/")
    folder = os.path.join(top, *folders)
    pending = [
        entries_after(os.path.join(top, *folders[:depth]), folders[depth], is_folder, read)
        for depth in range(len(folders))
    ]
    yield from entries_after(folder, name, is_file, read)
    pending.append(entries_after(folder, "", is_folder, read))
    while pending:
        subfolder = next(pending[-1], None)
        if subfolder is None:
            pending.pop()
            continue
        yield from entries_after(subfolder.path, "", is_file, read)
        pending.append(entries_after(subfolder.path, "", is_folder, read))


def entries_after(
    folder: str, name: str, keep: Keep, read: ReadNames
) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of one folder after a name, by name."""
    while batch := read(folder, name, keep):
        yield from batch
        if len(batch) < _BATCH:
            return
        name = batch[-1].name


def first_after(
    entries: Iterator[os.DirEntry[str]], name: str, keep: Keep
) -> list[os.DirEntry[str]]:
    """Return the entries of a batch: the first after a name that are to be kept, by name."""
    following = (entry for entry in entries if entry.name > name and keep(entry))
    return heapq.nsmallest(_BATCH, following, key=lambda entry: entry.name)
