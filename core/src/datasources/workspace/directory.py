"""The directory that fetched data is written to: the only code of this project that writes there.

A file is written as a part file in the root of the workspace (see `partfiles`) and renamed to its
final name when it is complete: whatever happens, there is a complete file under that name, or what
was there before. Folders are opened one by one without following links, so that neither a name
nor a link planted by somebody else leads outside. Nothing is synced to disk: a file survives the
death of the process, not that of the machine.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from datasources.errors import DataFetchError, LimitExceededError, OptionError
from datasources.models import Limits
from datasources.workspace.checksums import Checksums
from datasources.workspace.order import RequestOrder
from datasources.workspace.partfiles import create_part, delete_abandoned
from datasources.workspace.paths import safe_path
from datasources.workspace.quota import Quota
from datasources.workspace.spilling import TextTable

Progress = Callable[[int, int | None], None]
"""Called with the bytes written so far, and the total where it is known."""


Authorize = Callable[[str, str], Awaitable[None]]
"""Called with a source id and an identifier; raises if that may not be fetched."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """The facts about a file that was put in place, from which its receipt is made."""

    path: str
    size: int
    sha256: str
    rows: int | None
    truncated: bool
    version: str | None


class Workspace(str):  # noqa: SLOT000  (a handful of attributes, a handful of objects)
    """A directory that a fetch writes into.

    It is a string, the absolute path of the directory, since the contract says
    `fetch_data(identifier, workspace: str)`: a connector that takes a plain path works unchanged,
    and `Workspace.of(workspace)` gives the others limits, progress and atomic files. A string
    computed from it, such as `os.path.join(workspace, "folder")`, is a plain one again, with the
    default limits.
    """

    limits: Limits
    """Bounds of one file. The connector counts the rows, `WorkspaceFile` the bytes."""
    file_format: str | None
    """The file format that the caller asks for; `None` leaves it to the connector. See
    `require_format`."""
    progress: Progress | None
    """Called after each write, on the thread that writes. That of a registry's fetch reports on the
    event loop of the fetch in any case."""
    written: dict[str, WrittenFile]
    """The files completed through this object, by path."""
    owners: dict[str, str] | TextTable
    """By path, the `owner` that has claimed it. The fetches of one batch share this mapping, so
    that two items of a batch never write one file."""
    owner: str
    """The item and source of the fetch, as errors about a claimed path name them."""
    order: RequestOrder
    """The order of the requests of a batch, by which a path goes to the earliest of them."""
    quota: Quota | None
    """Bound of all files of the workspace together. A workspace made from another shares its
    quota."""
    authorize: Authorize | None
    """Called before each fetch into the workspace. One made from another shares it."""
    folder: str
    """A folder of the workspace that `create` puts files into, such as the id of a source; empty
    for none. A workspace made from another has its folder."""

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        limits: Limits | None = None,
        file_format: str | None = None,
        progress: Progress | None = None,
        owner: str = "",
        owners: dict[str, str] | TextTable | None = None,
        quota: Quota | None = None,
        order: RequestOrder | None = None,
        authorize: Authorize | None = None,
        folder: str = "",
    ) -> Workspace:
        real = path if isinstance(path, Workspace) else os.path.realpath(path)
        self = super().__new__(cls, real)
        self.limits = limits or Limits()
        self.file_format = file_format
        self.progress = progress
        self.written = {}
        self.owner = owner
        self.owners = {} if owners is None else owners
        self.order = order or RequestOrder()
        self.quota = quota or (path.quota if isinstance(path, Workspace) else None)
        self.authorize = authorize or (path.authorize if isinstance(path, Workspace) else None)
        self.folder = folder or (path.folder if isinstance(path, Workspace) else "")
        return self

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Workspace:
        """Return `path` itself if it is a workspace, else one with the default limits."""
        return path if isinstance(path, cls) else cls(path)

    def create(self, name: str, *, flat: bool = False, size: int | None = None) -> WorkspaceFile:
        """Return a new file for the item `name`, to be used as a context manager.

        Leaving the block puts the file in place; an exception leaves nothing.

        Args:
            name: The item's name; slashes are folders, as in `data/sales.csv`. Characters that
                cannot stand in a path are percent-encoded.
            flat: True takes slashes as part of the file's name.
            size: Bytes expected, None if unknown. Fewer or more of them are an error.

        Raises:
            LimitExceededError: On entering, `size` is over the limit; on writing, the bytes
                written so far are, or those of all files together are over the quota.
            DataFetchError: At once, no file can have the name; on entering, another item of the
                batch has the path, or the file cannot be created; on leaving, the bytes are not
                as many as `size`, do not match a checksum, or the file cannot be put in place.
                The message says which.
        """
        path = safe_path(name, flat=flat)
        if self.folder:
            path = f"{safe_path(self.folder)}/{path}"
        return WorkspaceFile(self, name, path, size)

    def claim(self, path: str, name: str) -> None:
        """Reserve `path` for the item `name` until the end of the batch.

        An item that comes earlier in `order` takes the path from a later one. The later one fails
        when it puts its file in place; if it has done so, claiming the path again tells it.

        Raises:
            DataFetchError: Another item of the batch has the path, and this one is not before it.
        """
        with self.order.lock:
            owner = self.owners.setdefault(path, self.owner)
            if self.order.precedes(self.owner, owner):
                owner = self.owners[path] = self.owner
        if owner != self.owner:
            raise DataFetchError(
                f"{name!r} would overwrite what {owner} brings in the same batch; "
                "fetch them into separate workspaces"
            )

    def require_format(self, *formats: str | None) -> None:
        """Check that the connector can write the `file_format` that was asked for.

        Args:
            formats: Those that the connector can write; None stands for an item as it is stored.

        Raises:
            OptionError: The `file_format` is not among them.
        """
        if self.file_format not in {None, *formats}:
            possible = ", ".join(filter(None, formats)) or "none, items come as they are stored"
            raise OptionError(
                f"{self.file_format!r} is not a format of this source; possible: {possible}"
            )

    def adopt(self, path: object) -> WrittenFile:
        """Return the facts of the file whose path a connector returned.

        A file written by `create` was checked when it was put in place. Any other is checked,
        counted and hashed here, which takes as long as reading it.

        Raises:
            DataFetchError: The path is not that of a regular file inside the workspace.
            LimitExceededError: The file is over the limit or the quota; it has been deleted.
        """
        if not isinstance(path, str) or "\0" in path:
            raise DataFetchError(f"the connector returned {path!r}, no file of the workspace")
        if path in self.written:
            return self.written[path]
        real = os.path.realpath(path)
        if real in self.written:
            return self.written[real]
        if not real.startswith(os.path.join(self, "")) or not os.path.isfile(real):
            raise DataFetchError(f"the connector returned {path!r}, no file of the workspace")
        size, name = os.path.getsize(real), os.path.basename(real)
        try:
            _check_size(name, size, self.limits.max_bytes)
            if self.quota:
                self.quota.reserve(size, name)
                self.quota.settle(size)
        except LimitExceededError:
            os.unlink(real)
            raise
        with open(real, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(real, size, digest, None, False, None)

    def clean(self) -> list[str]:
        """Delete the part files of writers that died; return the names of these files."""
        return delete_abandoned(self)


class WorkspaceFile:
    """A file being written, which gets its final name when the `with` block ends well.

    Writes go to the operating system's cache and are made on the calling thread; pieces of 64 KiB
    to 1 MiB are short enough for an event loop. The object may be used from any thread, but by one
    at a time; `update_checksums` alone may run at the same time as another method.
    """

    rows: int | None = None
    """Set it to the number of data rows written; None is unknown."""
    truncated: bool = False
    """Set it to True if the row limit cut the result."""
    version: str | None = None
    """Set it to the source's mark of this content, such as an ETag; None if there is none."""

    def __init__(self, workspace: Workspace, name: str, relative: str, size: int | None) -> None:
        self.path = os.path.join(workspace, relative)
        """The final path of the file."""
        self.size = 0
        """Bytes written so far."""
        self._workspace = workspace
        self._name = name
        self._relative = relative
        self._expected_size = size
        self._checksums = Checksums()
        self._root_fd = self._fd = -1
        self._part_name = ""
        self._process = os.getpid()

    def __enter__(self) -> WorkspaceFile:
        if self._expected_size is not None:
            self._check_limit(self._expected_size)
        self._workspace.claim(self.path, self._name)
        try:
            if os.path.isdir(self.path):
                raise IsADirectoryError(errno.EISDIR, "")
            self._root_fd = open_root(self._workspace)
            self._part_name, self._fd = create_part(self._root_fd)
        except OSError as exc:
            self._cleanup()
            raise self._write_error(exc) from exc
        return self

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; afterwards the buffer is the caller's again.

        Raises:
            LimitExceededError: The file would grow over the limit.
            DataFetchError: The operating system refused, as on a full disk.
        """
        self._write(self.size, data)
        self._checksums.update(data)

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes at an offset; ranges may be written in any order, in place of `write`.

        Each byte must be written exactly once: gaps and overlapping ranges make leaving the block
        raise `DataFetchError`. The bytes are in the file when this returns, so that the buffer may
        be reused at once. Call it from one thread at a time; bytes are hashed later, by
        `update_checksums`, and what is left of them when the block is left, on the thread that
        leaves it.

        Args:
            offset: Bytes from the start of the file.
            data: The bytes; any object with a contiguous buffer.

        Raises:
            LimitExceededError: The file would grow over the limit.
            DataFetchError: The operating system refused, as on a full disk.
        """
        self._write(offset, data)
        self._checksums.mark_written(offset, offset + len(data))

    def update_checksums(self) -> None:
        """Read back and hash the ranges written by `write_at` that have no gap before them.

        Meant for a worker thread, while another thread writes. Returns at once if a third does
        this already.

        Raises:
            DataFetchError: The file cannot be read, or was cut short by another program.
        """
        if self._fd >= 0:
            self._catch_up(wait=False)

    def expect_checksum(self, algorithm: str, digest: bytes) -> None:
        """Check the bytes against a digest from the source; call it before the first byte.

        Args:
            algorithm: As `hashlib.new` takes it, such as `md5`.
            digest: The digest of the complete file. If that of the bytes written differs, leaving
                the block raises `DataFetchError`.
        """
        self._checksums.expect(algorithm, digest)

    def _write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_limit(self.size + len(data))
        if self._workspace.quota:
            self._workspace.quota.reserve(len(data), self._name, written=self.size)
        self.size += len(data)
        view = memoryview(data).cast("B")
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as exc:
            raise self._write_error(exc) from exc
        if self._workspace.progress:
            self._workspace.progress(self.size, self._expected_size)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process != os.getpid():
            # After a fork, the part file is that of the parent, which goes on writing it.
            self._close()
            if exc_type is None:
                raise DataFetchError(
                    f"{self._name!r} belongs to the process that began to write it"
                )
            return
        try:
            if exc_type is None:
                self._commit()
        finally:
            self._cleanup()

    def _commit(self) -> None:
        self._verify_content()
        *folders, file_name = self._relative.split("/")
        descriptors = [self._root_fd]
        try:
            for folder in folders:
                descriptors.append(open_folder(descriptors[-1], folder))
            replaced_size = _size_of(file_name, descriptors[-1]) if self._workspace.quota else 0
            with self._workspace.order.lock:  # so that no earlier item comes between the two
                self._workspace.claim(self.path, self._name)
                os.rename(
                    self._part_name, file_name, src_dir_fd=self._root_fd, dst_dir_fd=descriptors[-1]
                )
        except OSError as exc:
            raise self._write_error(exc) from exc
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)
        self._part_name = ""
        if self._workspace.quota:
            self._workspace.quota.settle(self.size, replaced=replaced_size)
        self._workspace.written[self.path] = WrittenFile(
            self.path, self.size, self._checksums.sha256, self.rows, self.truncated, self.version
        )

    def _verify_content(self) -> None:
        if self._expected_size is not None and self.size != self._expected_size:
            raise DataFetchError(
                f"{self._name!r} should have {self._expected_size} bytes, but {self.size} arrived"
            )
        if self._checksums.contiguous != self.size:
            # Overlapping ranges count twice in `size`, so that this finds them, too.
            raise DataFetchError(f"{self._name!r} did not arrive whole: its pieces leave gaps")
        self._catch_up(wait=True)
        for algorithm in self._checksums.mismatched():
            raise DataFetchError(
                f"{self._name!r} arrived damaged: its {algorithm} is not the one the source gave"
            )

    def _catch_up(self, *, wait: bool) -> None:
        try:
            self._checksums.catch_up(self._fd, wait=wait)
        except OSError as exc:
            raise self._write_error(exc) from exc

    def _cleanup(self) -> None:
        """Close the descriptors, and delete the part file unless it was renamed."""
        # First: a thread may be hashing from the descriptor, whose number is given to the next
        # file that anybody opens once it is closed.
        self._checksums.cancel()
        if self._part_name:
            with suppress(FileNotFoundError):
                os.unlink(self._part_name, dir_fd=self._root_fd)
            if self._workspace.quota:
                self._workspace.quota.release(self.size)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._fd, self._root_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._root_fd = -1

    def _check_limit(self, size: int) -> None:
        _check_size(self._name, size, self._workspace.limits.max_bytes)

    def _write_error(self, exc: OSError) -> DataFetchError:
        reason = {
            errno.ELOOP: "a folder on its way is a symbolic link",
            errno.ENOTDIR: "a folder on its way is a file or a link in the workspace",
            errno.EISDIR: "a folder of that name is in the workspace",
            errno.ENOTEMPTY: "a folder of that name is in the workspace",
        }.get(exc.errno or 0, os.strerror(exc.errno) if exc.errno else str(exc))
        return DataFetchError(f"cannot write {self._name!r} to the workspace: {reason}")


def _check_size(name: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise LimitExceededError(
            f"{name!r} has {size} bytes or more, over the limit of {limit} bytes a fetch"
        )


def open_root(path: str) -> int:
    """Open a directory; make it, and those above it, if it is missing."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)
        return os.open(path, flags)


def open_folder(directory: int, name: str) -> int:
    """Open a folder inside an open one without following a link; make it if it is missing."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=directory)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _size_of(name: str, directory: int) -> int:
    """Return the bytes of a file in an open directory, 0 if there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except OSError:
        return 0
