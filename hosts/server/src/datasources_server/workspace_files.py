"""Files in the directories of workspaces, whose links are never followed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from datasources import open_below
from datasources_server.problems import Problem

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(directory: str, path: str) -> BinaryIO:
    """Open a regular file below a directory.

    Raises:
        Problem: 404, there is no such file.
    """
    try:
        return os.fdopen(open_below(directory, path), "rb")
    except (OSError, ValueError):  # the latter of a NUL, or of what UTF-8 cannot hold
        raise Problem(404, "file-not-found", "there is no such file in the workspace") from None


class Staging:
    """The files of one job, in a folder beside their workspace until all of them are there.

    A job fetches its files into `new`. Then it has their paths and inodes recorded, and puts them in
    place one by one; a file that one of them replaces stays in `old`. So the job can be undone at
    any moment, by another process, too, without a change to files that are not the job's: what
    other programs have written at one of the paths since is told by its inode. Programs in the
    workspace cannot reach the folder.

    The methods block. Whoever calls them holds the lock of the workspace.

    Args:
        directory: The workspace.
        job_id: The job.
    """

    def __init__(self, directory: str, job_id: str) -> None:
        self._workspace = str(directory)
        self._folder = f"{directory}.{job_id}"
        self.new = os.path.join(self._folder, "new")
        """The folder that files are fetched into."""

    def make(self) -> None:
        """Make the folder; raises OSError."""
        for folder in (self._folder, self.new, os.path.join(self._folder, "old")):
            os.mkdir(folder, mode=0o700)

    def files(self) -> list[tuple[str, int]]:
        """Return the path that each file will have in the workspace, and its inode."""
        files = []
        for folder, _, names in os.walk(self.new):
            for name in names:
                path = os.path.join(folder, name)
                files.append((os.path.relpath(path, self.new), os.stat(path).st_ino))
        return files

    def place(self, files: Sequence[tuple[str, int]]) -> None:
        """Put files in place; raises OSError, and some may then be in place."""
        with _opened(self._workspace) as workspace, _opened(self._folder) as folder:
            for path, _ in files:
                with (
                    _folder_of(workspace, path, create=True) as (target, name),
                    _folder_of(folder, f"old/{path}", create=True) as (old, _),
                    _folder_of(folder, f"new/{path}") as (new, _),
                ):
                    with suppress(FileNotFoundError):  # nothing is replaced
                        os.link(
                            name, name, src_dir_fd=target, dst_dir_fd=old, follow_symlinks=False
                        )
                    os.replace(name, name, src_dir_fd=new, dst_dir_fd=target)

    def restore(self, files: Sequence[tuple[str, int]]) -> None:
        """Remove files from their places, and put back what they have replaced."""
        with (
            suppress(FileNotFoundError),  # it was not made yet
            _opened(self._workspace) as workspace,
            _opened(self._folder) as folder,
        ):
            for path, inode in files:
                with suppress(OSError):  # a link has taken the place of a folder
                    _restore(workspace, folder, path, inode)

    def delete(self) -> None:
        """Delete the folder with what is left in it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _restore(workspace: int, folder: int, path: str, inode: int) -> None:
    with _folder_of(workspace, path) as (target, name):
        current: int | None = None
        with suppress(FileNotFoundError):
            current = os.stat(name, dir_fd=target, follow_symlinks=False).st_ino
        if current not in (None, inode):
            return  # it was not put in place, or somebody else has replaced it
        try:
            with _folder_of(folder, f"old/{path}") as (old, _):
                os.replace(name, name, src_dir_fd=old, dst_dir_fd=target)
        except FileNotFoundError:  # it has replaced nothing
            if current is not None:
                os.unlink(name, dir_fd=target)


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _folder_of(root: int, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder of a path below an open directory; yield it, and the last name of the path.

    Each folder is opened in the one above it, so that a link is not followed even if it takes the
    place of a folder meanwhile.
    """
    *folders, name = path.split("/")
    descriptor = os.dup(root)
    try:
        for folder in folders:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=descriptor)
            above, descriptor = descriptor, os.open(folder, _FOLDER, dir_fd=descriptor)
            os.close(above)
        yield descriptor, name
    finally:
        os.close(descriptor)
