"""Workspace sessions: granted sources, a quota, and nothing left at the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from datasources.errors import OptionError, RegistryError
from datasources.models import (
    ColumnStatistics,
    DataItem,
    DataSourceConfig,
    DataSourceType,
    FetchReceipt,
    FetchRequest,
    FetchResult,
    Limits,
    Page,
    Preview,
)
from datasources.names import check_id
from datasources.registry.granted import GrantedOperations
from datasources.registry.sweeping import mark_session, unmark_session
from datasources.threads import run_in_thread
from datasources.workspace import Progress, Quota, Workspace, lock

T = TypeVar("T")


class WorkspaceSession:
    """A workspace directory that lasts as long as its `async with` block.

    Leaving the block cancels the fetches that are still under way, returns their connections and
    deletes the directory with everything in it, unless it is kept. Code that runs in the directory
    has the files, and neither a credential nor a connection.
    """

    def __init__(
        self,
        granted: GrantedOperations,
        workspace_id: str,
        root: str | os.PathLike[str] | None,
        quota: int | None,
        *,
        keep: bool = False,
    ) -> None:
        check_id(workspace_id, "workspace")
        if keep and root is None:
            raise OptionError("a workspace that is kept needs a 'root' to be found in again")
        if quota is not None and quota < 0:
            raise OptionError("'quota' must not be negative; None is no bound")
        self.id = workspace_id
        self.path: Workspace
        """The directory, which exists from the beginning of the block to its end."""
        self._granted = granted
        self._root = root
        self._quota = quota
        self._keep = keep
        self._temporary: str | None = None  # the directory, if this made it for lack of a root
        self._descriptor = -1
        self._closed = True
        self._process = os.getpid()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closers: list[Callable[[], Awaitable[None]]] = []

    @property
    def closed(self) -> bool:
        """True before the block begins, and from the moment at which it ends."""
        return self._closed

    @property
    def granted(self) -> GrantedOperations:
        """The operations of the session's principal; the session's quota bounds each directory.

        The end of the block does not cancel them.
        """
        return self._granted.with_quota(self._quota)

    def call_at_close(self, closer: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Have a function called and awaited when the block ends, before the fetches are cancelled.

        It must not raise. Returns a function that ends this: `closer` is not called then.
        """
        self._closers.append(closer)

        def forget() -> None:
            with suppress(ValueError):  # it was called
                self._closers.remove(closer)

        return forget

    async def __aenter__(self) -> Self:
        if self._descriptor >= 0:
            raise RegistryError(f"workspace {self.id!r} is open already")
        try:
            await run_in_thread(self._open)
        except asyncio.CancelledError:
            if self._descriptor >= 0:
                await run_in_thread(self._leave)
            raise
        self._closed = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        if os.getpid() != self._process:
            return  # the directory and the fetches are the parent's
        async with AsyncExitStack() as stack:  # all of it, even if the host is cancelled here
            stack.push_async_callback(run_in_thread, self._leave)
            stack.push_async_callback(self._cancel_tasks)
            while self._closers:
                await self._closers.pop()()

    async def fetch(
        self,
        source_id: str,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
        parameters: Mapping[str, Any] | None = None,
        splits: int | None = None,
    ) -> FetchReceipt:
        """Fetch one item, as `DataSourceRegistry.fetch` does.

        Args:
            source_id: The source.
            identifier: The item or query.
            format: Such as `csv` or `parquet`; None is the connector's own.
            limits: They can only narrow those of the session.
            progress: Called with the bytes so far and the total, None where unknown.
            parameters: The values of a stored query's parameters, by name.
            splits: The most splits, to write a directory of Parquet files.

        Raises:
            PolicyError: The source or the item is not granted.
            DataSourceNotFoundError: The source does not exist, or the session is one of `Access`
                and its principal has no grant for it.
        """
        return await self._run_task(
            lambda: self._granted.fetch(
                source_id,
                identifier,
                self.path,
                format=format,
                limits=limits,
                progress=progress,
                parameters=parameters,
                splits=splits,
            ),
            writes=True,
        )

    async def fetch_many(
        self,
        requests: Sequence[FetchRequest | tuple[str, str]],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        progress: Mapping[int, Progress] | None = None,
    ) -> list[FetchResult]:
        """Fetch many items, as `DataSourceRegistry.fetch_many` does; `limits` as for `fetch`.

        Raises:
            PolicyError, DataSourceNotFoundError: As `fetch`, for one of the requests; nothing was
                fetched.
        """
        return await self._run_task(
            lambda: self._granted.fetch_many(
                requests, self.path, concurrency=concurrency, limits=limits, progress=progress
            ),
            writes=True,
        )

    async def fetch_tree(
        self,
        source_id: str,
        path: str | None = None,
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        refresh: bool = False,
    ) -> list[FetchResult]:
        """Fetch all items below a path or pattern, as `DataSourceRegistry.fetch_tree` does.

        Raises:
            PolicyError: The source or the item is not granted.
            DataSourceNotFoundError: The source does not exist, or the session is one of `Access`
                and its principal has no grant for it.
        """
        return await self._run_task(
            lambda: self._granted.fetch_tree(
                source_id,
                path,
                self.path,
                concurrency=concurrency,
                limits=limits,
                refresh=refresh,
            ),
            writes=True,
        )

    async def list_sources(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        type: DataSourceType | str | None = None,
        q: str = "",
    ) -> list[DataSourceConfig]:
        """Return the sources that are granted, as `DataSourceRegistry.list_data_sources` does."""
        return await self._run_task(
            lambda: self._granted.list_sources(after=after, limit=limit, type=type, q=q)
        )

    async def list_items(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return the items of a granted source, as `DataSourceRegistry.list_items` does."""
        return await self._run_task(lambda: self._granted.list_items(source_id, path))

    async def list_page(
        self,
        source_id: str,
        path: str | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Return one page of items, as `DataSourceRegistry.list_page` does."""
        return await self._run_task(
            lambda: self._granted.list_page(source_id, path, limit=limit, cursor=cursor)
        )

    async def glob_items(self, source_id: str, pattern: str) -> list[DataItem]:
        """Return the items that match, as `DataSourceRegistry.glob_items` does."""
        return await self._run_task(lambda: self._granted.glob_items(source_id, pattern))

    async def expand(self, source_id: str, path: str | None = None) -> list[DataItem]:
        """Return the items that `fetch_tree` fetches, as `DataSourceRegistry.expand` does."""
        return await self._run_task(lambda: self._granted.expand(source_id, path))

    async def get_metadata(
        self, source_id: str, identifier: str, *, refresh: bool = False
    ) -> dict[str, Any]:
        """Describe one item, as `DataSourceRegistry.get_metadata` does."""
        return await self._run_task(
            lambda: self._granted.get_metadata(source_id, identifier, refresh=refresh)
        )

    async def preview(
        self,
        source_id: str,
        identifier: str,
        rows: int = 10,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> Preview:
        """Return the first rows of an item, as `DataSourceRegistry.preview` does."""
        return await self._run_task(
            lambda: self._granted.preview(source_id, identifier, rows, parameters=parameters)
        )

    async def statistics(
        self,
        source_id: str,
        identifier: str,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, ColumnStatistics]:
        """Return figures of an item's columns, as `DataSourceRegistry.statistics` does."""
        return await self._run_task(
            lambda: self._granted.statistics(source_id, identifier, parameters=parameters)
        )

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_task(self, operation: Callable[[], Awaitable[T]], *, writes: bool = False) -> T:
        """Run an operation in a task of its own, which the end of the block can cancel.

        With `writes`, the files of the workspace are counted first, for its quota.
        """
        if self._closed:
            raise RegistryError(f"workspace {self.id!r} is closed")
        task = asyncio.create_task(self._call(operation, writes=writes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise RegistryError(f"workspace {self.id!r} was closed in mid-fetch") from None

    async def _call(self, operation: Callable[[], Awaitable[T]], *, writes: bool) -> T:
        if writes and self.path.quota:
            await asyncio.to_thread(self.path.quota.recount)
        return await operation()

    def _open(self) -> None:
        try:
            while (path := self._lock()) is None:
                pass  # another process has just deleted the directory
            quota = None if self._quota is None else Quota(path, self._quota)
            self.path = Workspace(path, quota=quota, authorize=self._granted.authorize_fetch)
            self.path.clean()  # a host that was killed may have left more than whole files
            if self._root is not None:
                mark_session(self.path, self._descriptor)
        except OSError as exc:
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)
            self._close()
            busy = isinstance(exc, BlockingIOError)
            reason = "is open already" if busy else f"cannot be opened: {exc.strerror}"
            raise RegistryError(f"workspace {self.id!r} {reason}") from exc

    def _lock(self) -> str | None:
        """Lock the directory and return its path; None if another process has replaced it."""
        path = self._directory()
        with suppress(FileNotFoundError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            lock(self._descriptor, wait=False)
            if os.path.samestat(os.fstat(self._descriptor), os.stat(path)):
                return path
        self._close()
        return None

    def _directory(self) -> str:
        if self._root is None:
            self._temporary = tempfile.mkdtemp(prefix=f"datasources-{self.id}-")
            return self._temporary
        path = os.path.join(os.path.realpath(self._root), self.id)
        with suppress(FileExistsError):  # whatever it is: opening it tells
            os.makedirs(path, mode=0o700)
        return path

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _leave(self) -> None:
        """End the session: leave the directory to a later one, or delete it."""
        if not self._keep:
            self._delete()
            return
        try:
            if os.path.lexists(self.path):  # unless the host has removed it
                self.path.clean()
                mark_session(self.path, self._descriptor)
        except OSError as exc:
            raise RegistryError(f"workspace {self.id!r} cannot be kept: {exc.strerror}") from exc
        finally:
            self._close()  # releases the lock

    def _delete(self) -> None:
        try:
            shutil.rmtree(self.path)
        except (OSError, RecursionError) as exc:  # the latter of folders in hundreds of folders
            if os.path.lexists(self.path):
                # `rmtree` refuses a link by an OSError of one argument, without number or text.
                reason = getattr(exc, "strerror", None) or exc.args[0]
                raise RegistryError(
                    f"workspace {self.id!r} could not be deleted whole; what is left is in "
                    f"{str(self.path)!r}: {reason}"
                ) from exc
        finally:
            if not os.path.lexists(self.path):
                unmark_session(self.path, self._descriptor)
            self._close()  # releases the lock
