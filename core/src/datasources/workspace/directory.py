"""Where fetched data is written, and the only code of this project that writes there.

A file is written under a temporary name in the workspace's root and renamed into place when it
is whole, so a final path is whole or absent whatever happens; directories are opened one by one
without following links, so no name and no planted link leads outside.  Data is not synced to
disk: a file survives the death of the process, not of the machine.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from datasources.errors import DataFetchError, LimitExceededError
from datasources.files import open_regular
from datasources.models import Limits
from datasources.workspace.checksums import Checksums
from datasources.workspace.paths import IS_TEMPORARY, TEMPORARY, safe_path
from datasources.workspace.quota import Quota

Progress = Callable[[int, int | None], None]
"""Called with the bytes written so far, and the total where it is known."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """What `WorkspaceFile` knows about a file it has put in place."""

    path: str
    size: int
    sha256: str
    rows: int | None
    truncated: bool
    version: str | None


class Workspace(str):  # noqa: SLOT000  (a handful of attributes, a handful of objects)
    """A directory that a fetch writes into.

    It is a string, its absolute path, so that a connector which takes a plain directory works
    unchanged; `Workspace.of(workspace)` gives any connector the rest.
    """

    limits: Limits
    """What one file may hold.  Rows are counted by the connector, bytes by `create`'s file."""
    file_format: str | None
    """The file format the caller wants; `None` leaves it to the connector. See
    `require_format`."""
    progress: Progress | None
    written: dict[str, WrittenFile]
    """The files completed through this object, by path."""
    owners: dict[str, str]
    """Who writes which path, shared by the fetches of one batch: two never write one file."""
    owner: str
    quota: Quota | None
    """Bounds all files together; a workspace made of another has the other's."""

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        limits: Limits | None = None,
        file_format: str | None = None,
        progress: Progress | None = None,
        owner: str = "",
        owners: dict[str, str] | None = None,
        quota: Quota | None = None,
    ) -> Workspace:
        self = super().__new__(cls, os.path.realpath(path))
        self.limits = limits or Limits()
        self.file_format = file_format
        self.progress = progress
        self.written = {}
        self.owner = owner
        self.owners = {} if owners is None else owners
        self.quota = quota or (path.quota if isinstance(path, Workspace) else None)
        return self

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Workspace:
        """Return `path` itself if it is a workspace, else one with the default limits."""
        return path if isinstance(path, cls) else cls(path)

    def create(self, name: str, *, flat: bool = False, size: int | None = None) -> WorkspaceFile:
        """Return a new file for the item `name`, to be used as a context manager.

        Leaving the block puts the file in place; an exception leaves nothing.

        Args:
            name: The item's name; slashes are folders, as in `data/sales.csv`.
            flat: Take slashes as part of the file's name instead.
            size: Bytes expected, where known: refused at once when over the limit, and an
                error when fewer or more arrive.

        Raises:
            LimitExceededError: `size` is over the limit, or more bytes were written.
            DataFetchError: The file cannot be written; the reason is in the message.
        """
        return WorkspaceFile(self, name, safe_path(name, flat=flat), size)

    def claim(self, path: str, name: str) -> None:
        """Note that the item `name` is what `path` holds, for the rest of the batch.

        Raises:
            DataFetchError: Another item of the batch is.
        """
        owner = self.owners.setdefault(path, self.owner)
        if owner != self.owner:
            raise DataFetchError(
                f"{name!r} would overwrite what {owner} brings in the same batch; "
                "fetch them into separate workspaces"
            )

    def require_format(self, *formats: str | None) -> None:
        """Refuse a `file_format` that a connector cannot write; None is an item as it is stored.

        Raises:
            DataFetchError: It is not among `formats`.
        """
        if self.file_format not in {None, *formats}:
            possible = ", ".join(filter(None, formats)) or "none, items come as they are stored"
            raise DataFetchError(
                f"{self.file_format!r} is not a format of this source; possible: {possible}"
            )

    def adopt(self, path: object) -> WrittenFile:
        """Return the facts of a file that a connector says it fetched, checked and hashed.

        Raises:
            DataFetchError: It is not a regular file inside the workspace.
            LimitExceededError: It is over the limit; it is deleted.
        """
        if not isinstance(path, str) or "\0" in path:
            raise DataFetchError(f"the connector returned {path!r}, no file of the workspace")
        real = os.path.realpath(path)
        if real in self.written:
            return self.written[real]
        if not real.startswith(os.path.join(self, "")) or not os.path.isfile(real):
            raise DataFetchError(f"the connector returned {path!r}, no file of the workspace")
        size, name = os.path.getsize(real), os.path.basename(real)
        try:
            _check(name, size, self.limits.max_bytes)
            if self.quota:
                self.quota.take(size, name)
        except LimitExceededError:
            os.unlink(real)
            raise
        with open(real, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(real, size, digest, None, False, None)

    def clean(self) -> list[str]:
        """Delete temporary files whose writer is gone; return their names."""
        removed = []
        for name in os.listdir(self) if os.path.isdir(self) else []:
            if IS_TEMPORARY.fullmatch(name) and _abandoned(path := os.path.join(self, name)):
                with suppress(FileNotFoundError):
                    os.unlink(path)
                    removed.append(name)
        return removed


class WorkspaceFile:
    """A file being written: temporary until the `with` block ends well.

    Writes go to the operating system's cache and are made on the calling thread: hand over
    pieces of 64 KiB to 1 MiB, and no event loop notices.
    """

    rows: int | None = None
    """Set it to the data rows written."""
    truncated: bool = False
    """Set it if the row limit cut the result."""
    version: str | None = None
    """Set it to the source's mark of this content, such as an ETag."""

    def __init__(self, workspace: Workspace, name: str, relative: str, size: int | None) -> None:
        self.path = os.path.join(workspace, relative)
        """Where the file will be."""
        self.size = 0
        """Bytes written so far."""
        self._workspace = workspace
        self._name = name
        self._relative = relative
        self._expected = size
        self._checksums = Checksums()
        self._root = self._file = -1
        self._temporary = TEMPORARY.format(secrets.token_hex(8))

    def __enter__(self) -> WorkspaceFile:
        if self._expected is not None:
            self._check_limit(self._expected)
        self._workspace.claim(self.path, self._name)
        try:
            os.makedirs(self._workspace, exist_ok=True)
            if os.path.isdir(self.path):
                raise IsADirectoryError(errno.EISDIR, "")
            self._root = os.open(self._workspace, os.O_RDONLY | os.O_DIRECTORY)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = os.open(self._temporary, flags, 0o666, dir_fd=self._root)
            # Held while the writer lives; `Workspace.clean` asks for it.
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError as exc:
            self._discard()
            raise self._unwritable(exc) from exc
        return self

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes.

        Raises:
            LimitExceededError: The file would grow over the limit.
            DataFetchError: The operating system refused, as on a full disk.
        """
        self._put(self.size, data)
        self._checksums.update(data)

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes at their place: in any order, each byte once, in place of `write`.

        Call `update_checksums` now and then, or leaving the block does all of it.

        Raises:
            LimitExceededError: The file would grow over the limit.
            DataFetchError: The operating system refused, as on a full disk.
        """
        self._put(offset, data)
        self._checksums.arrived(offset, offset + len(data))

    def update_checksums(self) -> None:
        """Hash what `write_at` has completed from the start on; meant for a worker thread."""
        if self._file >= 0:
            self._hash(wait=False)

    def expect_checksum(self, algorithm: str, digest: bytes) -> None:
        """Check the bytes against a digest that the source gave; call it before the first byte.

        Args:
            algorithm: As `hashlib.new` takes it, such as `md5`.
            digest: Leaving the block raises `DataFetchError` if that of the bytes differs.
        """
        self._checksums.expect(algorithm, digest)

    def _put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_limit(self.size + len(data))
        if self._workspace.quota:
            self._workspace.quota.take(len(data), self._name)
        self.size += len(data)
        view = memoryview(data).cast("B")
        try:
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        except OSError as exc:
            raise self._unwritable(exc) from exc
        if self._workspace.progress:
            self._workspace.progress(self.size, self._expected)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                self._commit()
        finally:
            self._discard()

    def _commit(self) -> None:
        self._check_content()
        *folders, leaf = self._relative.split("/")
        opened = [self._root]
        try:
            for folder in folders:
                opened.append(_enter(opened[-1], folder))
            replaced = _size(leaf, opened[-1]) if self._workspace.quota else 0
            os.rename(self._temporary, leaf, src_dir_fd=self._root, dst_dir_fd=opened[-1])
        except OSError as exc:
            raise self._unwritable(exc) from exc
        finally:
            for descriptor in opened[1:]:
                os.close(descriptor)
        self._temporary = ""
        if self._workspace.quota:
            self._workspace.quota.give(replaced)
        self._workspace.written[self.path] = WrittenFile(
            self.path, self.size, self._checksums.sha256, self.rows, self.truncated, self.version
        )

    def _check_content(self) -> None:
        if self._expected is not None and self.size != self._expected:
            raise DataFetchError(
                f"{self._name!r} should have {self._expected} bytes, but {self.size} arrived"
            )
        if self._checksums.whole != self.size:
            raise DataFetchError(f"{self._name!r} did not arrive whole: its pieces leave gaps")
        self._hash(wait=True)
        for algorithm in self._checksums.wrong():
            raise DataFetchError(
                f"{self._name!r} arrived damaged: its {algorithm} is not the one the source gave"
            )

    def _hash(self, *, wait: bool) -> None:
        try:
            self._checksums.follow(self._file, wait=wait)
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _discard(self) -> None:
        self._checksums.stop()
        if self._temporary and self._file >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._root)
            if self._workspace.quota:
                self._workspace.quota.give(self.size)
        for descriptor in (self._file, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._root = -1

    def _check_limit(self, size: int) -> None:
        _check(self._name, size, self._workspace.limits.max_bytes)

    def _unwritable(self, exc: OSError) -> DataFetchError:
        reason = {
            errno.ELOOP: "a folder on its way is a symbolic link",
            errno.ENOTDIR: "a folder on its way is a file or a link in the workspace",
            errno.EISDIR: "a folder of that name is in the workspace",
            errno.ENOTEMPTY: "a folder of that name is in the workspace",
        }.get(exc.errno or 0, os.strerror(exc.errno) if exc.errno else str(exc))
        return DataFetchError(f"cannot write {self._name!r} to the workspace: {reason}")


def _check(name: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise LimitExceededError(
            f"{name!r} has {size} bytes or more, over the limit of {limit} bytes a fetch"
        )


def _enter(directory: int, name: str) -> int:
    """Open a folder inside an open one, made if missing."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=directory)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _size(name: str, directory: int) -> int:
    """Return the bytes of a file in an open directory, 0 if there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except OSError:
        return 0


def _abandoned(path: str) -> bool:
    """Tell whether a temporary file's writer is gone: its lock can be had."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return False
    try:
        # A writer locks just after it creates: a file this young may be on its way to the lock.
        if time.time() - os.fstat(descriptor).st_mtime < 1:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
