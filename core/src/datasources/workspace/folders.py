"""A folder of several files that appears in a workspace when all of them are complete.

States of a folder: it is made under a temporary name in the root of the workspace and locked, as a
part file is (see `partfiles`); files are put into it when they are complete; then it is renamed, or
deleted with all that it has. A folder of the same kind that has the final name is moved aside
before, and deleted after that: for a moment there is none, and never a part of one.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil

from datasources.errors import DataFetchError
from datasources.workspace.directory import (
    Workspace,
    WorkspaceFile,
    WrittenFile,
    open_folder,
    open_root,
)
from datasources.workspace.locking import lock
from datasources.workspace.paths import TEMPORARY, safe_path

MANIFEST = "_manifest.json"
"""The file that describes the others; readers of datasets leave out names that begin so."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILES = re.compile(r"_manifest\.json|part-[0-9]+\.parquet")


class WorkspaceFolder:
    """A folder being written; call `close` in any case, and `commit` before if it is complete.

    Its files are `MANIFEST` and `part-NUMBER.parquet`. The methods read and write files: call
    `commit` and `close` in a worker thread.

    Args:
        workspace: The workspace, whose limits hold for each file.
        name: The name of the folder; slashes become part of it.

    Raises:
        DataFetchError: The folder cannot be made, or another item of the batch has its path.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._relative = safe_path(name, flat=True)
        if workspace.folder:
            self._relative = f"{safe_path(workspace.folder)}/{self._relative}"
        self.path = os.path.join(workspace, self._relative)
        """The final path of the folder."""
        self._workspace = workspace
        # The files are no results of the fetch, and their bytes are not its progress.
        self._files = Workspace(workspace, limits=workspace.limits)
        self._name = name
        self._temporary = TEMPORARY.format(secrets.token_hex(8))
        self._replaced: list[str] = []  # earlier folders, by their temporary names
        self._root = self._lock = -1
        workspace.claim(self.path, name)
        try:
            self._root = open_root(workspace)
            self._lock = open_folder(self._root, self._temporary)
            lock(self._lock)
            # It may have been deleted as abandoned before it was locked.
            os.stat(self._temporary, dir_fd=self._root, follow_symlinks=False)
        except OSError as exc:
            self.close()
            raise self._error(exc) from exc

    def create(self, name: str) -> WorkspaceFile:
        """Return a new file of the folder, to be used as a context manager."""
        return WorkspaceFile(self._files, name, f"{self._temporary}/{name}", None)

    def written(self, file: WorkspaceFile) -> WrittenFile:
        """Return the facts about a file that is complete."""
        return self._files.written[file.path]

    def commit(self) -> None:
        """Rename the folder to its final name, in place of an earlier one.

        Raises:
            DataFetchError: Something else has the name, or the folder cannot be renamed.
        """
        *folders, name = self._relative.split("/")
        descriptors = [self._root]
        try:
            for folder in folders:
                descriptors.append(open_folder(descriptors[-1], folder))
            with self._workspace.order.lock:  # so that no earlier item comes between the two
                self._workspace.claim(self.path, self._name)
                self._put_in_place(name, descriptors[-1])
        except OSError as exc:
            raise self._error(exc) from exc
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)

    def close(self) -> None:
        """Delete the folder if it still has its temporary name, and those that it has replaced."""
        if self._root >= 0:
            for name in (self._temporary, *self._replaced):
                # What cannot be deleted stays for `Workspace.clean`.
                shutil.rmtree(name, ignore_errors=True, dir_fd=self._root)
        for descriptor in (self._lock, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._root = -1
        if self._workspace.quota:
            self._workspace.quota.recount()

    def _put_in_place(self, name: str, directory: int) -> None:
        """Give the folder its final name, as often as other writers have put theirs there before.

        Raises:
            DataFetchError: Something else has the name.
        """
        while True:
            earlier = self._move_aside(name, directory)
            try:
                self._rename(self._temporary, self._root, name, directory)
            except OSError as exc:
                if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    if earlier:
                        self._rename(earlier, self._root, name, directory)
                    raise
            else:
                return
            finally:
                if earlier:
                    self._replaced.append(earlier)

    def _move_aside(self, name: str, directory: int) -> str | None:
        """Give an earlier folder a temporary name in the root, and return that; None without one.

        Raises:
            DataFetchError: Something else has the name.
        """
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=directory)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            names = []
        else:
            try:
                names = os.listdir(descriptor)
            finally:
                os.close(descriptor)
        if MANIFEST not in names or not all(map(_FILES.fullmatch, names)):
            raise DataFetchError(
                f"cannot write {self._name!r} to the workspace: something else has this name there"
            )
        earlier = TEMPORARY.format(secrets.token_hex(8))
        self._rename(name, directory, earlier, self._root)
        return earlier

    def _rename(self, name: str, directory: int, new_name: str, new_directory: int) -> None:
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)

    def _error(self, exc: OSError) -> DataFetchError:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        return DataFetchError(f"cannot write {self._name!r} to the workspace: {reason}")
