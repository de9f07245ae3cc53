"""The registry for code without an event loop, callable from any thread.

```python
from datasources.blocking import DataSourceRegistry

with DataSourceRegistry() as registry:
    registry.register_data_source(config)
    receipt = registry.fetch("sales", "public.orders", "/tmp/workspace")
```
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, aclosing, closing, contextmanager, suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

from datasources import registry as asynchronous, splits, streams
from datasources.credentials import CredentialManager
from datasources.errors import RegistryError
from datasources.models import DataItem, FetchReceipt, FetchResult, Limits, PoolConfig
from datasources.plugins import Plugins
from datasources.policy import Policy
from datasources.principals import Principal
from datasources.splits import Split
from datasources.stores import Store
from datasources.workspace import Workspace

_OWN_THREAD = "a blocking call from the registry's own thread would wait for itself"

P = ParamSpec("P")
T = TypeVar("T")


@overload
def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]: ...
@overload
def _blocking(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]: ...
def _blocking(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that calls `method` of the asynchronous object and waits for its result.

    Parameters, annotations and docstring are those of `method`, for type checkers, `inspect` and
    the documentation alike.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self._asynchronous, *args, **kwargs)
        return self._run(result) if inspect.iscoroutine(result) else result

    return call


class _Asynchronous:
    """An object whose methods run those of an asynchronous one on the registry's loop."""

    def __init__(self, asynchronous_object: Any, registry: DataSourceRegistry) -> None:
        self._asynchronous = asynchronous_object
        self._registry = registry
        self._run = registry._run


class WorkspaceSession(_Asynchronous):
    """A `datasources.WorkspaceSession` for code without an event loop.

    `DataSourceRegistry.workspace` and `Access.workspace` make them.
    """

    @property
    def path(self) -> Workspace:
        """The directory; there from the beginning of the block to its end."""
        path: Workspace = self._asynchronous.path
        return path

    fetch = _blocking(asynchronous.WorkspaceSession.fetch)
    fetch_many = _blocking(asynchronous.WorkspaceSession.fetch_many)
    fetch_tree = _blocking(asynchronous.WorkspaceSession.fetch_tree)
    list_sources = _blocking(asynchronous.WorkspaceSession.list_sources)
    list_items = _blocking(asynchronous.WorkspaceSession.list_items)
    list_page = _blocking(asynchronous.WorkspaceSession.list_page)
    glob_items = _blocking(asynchronous.WorkspaceSession.glob_items)
    expand = _blocking(asynchronous.WorkspaceSession.expand)
    get_metadata = _blocking(asynchronous.WorkspaceSession.get_metadata)
    preview = _blocking(asynchronous.WorkspaceSession.preview)
    statistics = _blocking(asynchronous.WorkspaceSession.statistics)


class ItemStream(_Asynchronous):
    """A `datasources.ItemStream` for code without an event loop: an iterator of bytes.

    `DataSourceRegistry.open_stream` and `Access.open_stream` make them.
    """

    def __init__(self, asynchronous_object: Any, registry: DataSourceRegistry) -> None:
        super().__init__(asynchronous_object, registry)
        self._reading = asyncio.Lock()

    @property
    def size(self) -> int | None:
        """Bytes that the stream brings; None where unknown."""
        size: int | None = self._asynchronous.size
        return size

    @property
    def etag(self) -> str | None:
        """The version of the content; None where the source has none."""
        etag: str | None = self._asynchronous.etag
        return etag

    @property
    def media_type(self) -> str | None:
        """The media type of the content; None where unknown."""
        media_type: str | None = self._asynchronous.media_type
        return media_type

    @property
    def receipt(self) -> FetchReceipt | None:
        """The receipt, after the end of the stream."""
        receipt: FetchReceipt | None = self._asynchronous.receipt
        return receipt

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk: bytes | None = self._run(self._next())
        if chunk is None:
            raise StopIteration
        return chunk

    async def _next(self) -> bytes | None:
        async with self._reading:
            return await anext(self._asynchronous, None)

    async def _leave(self, opening: AbstractAsyncContextManager[streams.ItemStream]) -> None:
        """Close the stream, once a call of `_next` that was interrupted has ended."""
        try:
            async with self._reading:
                pass
        finally:
            await opening.__aexit__(None, None, None)


class SplitPlan(_Asynchronous):
    """A `datasources.SplitPlan` for code without an event loop.

    `DataSourceRegistry.plan` and `Access.plan` make them.
    """

    @property
    def schema(self) -> Any:
        """The `pyarrow.Schema` of the rows of every split."""
        return self._asynchronous.schema

    @property
    def splits(self) -> Sequence[Split]:
        """The splits; together they have each row of the item once."""
        every_split: Sequence[Split] = self._asynchronous.splits
        return every_split

    @property
    def consistent(self) -> bool:
        """True if all splits are read from one state of the source."""
        consistent: bool = self._asynchronous.consistent
        return consistent

    @property
    def concurrency(self) -> int | None:
        """Splits that may be read at once, over all readers; None if the source sets no bound."""
        concurrency: int | None = self._asynchronous.concurrency
        return concurrency

    def read(self, split: Split, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the rows of a split as `pyarrow.RecordBatch`; any thread may read."""
        return self._registry._iterate(lambda: self._asynchronous.read(split, columns))


class Access(_Asynchronous):
    """A `datasources.Access` for code without an event loop.

    `DataSourceRegistry.access` makes them.
    """

    @property
    def wrapped(self) -> asynchronous.Access:
        """The asynchronous access that this one calls, for code with an event loop of its own."""
        access: asynchronous.Access = self._asynchronous
        return access

    list_sources = _blocking(asynchronous.Access.list_sources)
    get_source = _blocking(asynchronous.Access.get_source)
    list_abilities = _blocking(asynchronous.Access.list_abilities)
    limits = _blocking(asynchronous.Access.limits)
    list_items = _blocking(asynchronous.Access.list_items)
    list_page = _blocking(asynchronous.Access.list_page)
    glob_items = _blocking(asynchronous.Access.glob_items)
    expand = _blocking(asynchronous.Access.expand)
    get_metadata = _blocking(asynchronous.Access.get_metadata)
    preview = _blocking(asynchronous.Access.preview)
    statistics = _blocking(asynchronous.Access.statistics)
    upload = _blocking(asynchronous.Access.upload)
    fetch = _blocking(asynchronous.Access.fetch)
    fetch_many = _blocking(asynchronous.Access.fetch_many)
    fetch_tree = _blocking(asynchronous.Access.fetch_tree)

    @property
    def principal(self) -> Principal:
        """The caller that the host acts for."""
        principal: Principal = self._asynchronous.principal
        return principal

    def iter_items(self, source_id: str, path: str | None = None) -> Iterator[DataItem]:
        """Yield what `list_items` returns, page by page where the connector can."""
        return self._registry._iterate(lambda: self._asynchronous.iter_items(source_id, path))

    def iter_fetch_tree(
        self,
        source_id: str,
        path: str | None,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        refresh: bool = False,
    ) -> Iterator[FetchResult]:
        """Yield what `fetch_tree` returns, as `DataSourceRegistry.iter_fetch_tree` does.

        An item that the principal may not fetch, as the connector does not tell items from queries,
        is a result with a `PolicyError`.
        """
        return self._registry._iterate(
            lambda: self._asynchronous.iter_fetch_tree(
                source_id,
                path,
                workspace,
                concurrency=concurrency,
                limits=limits,
                refresh=refresh,
            )
        )

    @contextmanager
    def open_stream(
        self,
        source_id: str,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,
        start: int | None = None,
        end: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Iterator[ItemStream]:
        """Return a stream of an item's bytes, as `DataSourceRegistry.open_stream` does.

        The limits can only be narrower than those of the source and of the principal.
        """
        opening = self._asynchronous.open_stream(
            source_id,
            identifier,
            format=format,
            limits=limits,
            start=start,
            end=end,
            parameters=parameters,
        )
        with self._registry._stream(opening) as stream:
            yield stream

    @contextmanager
    def plan(
        self,
        source_id: str,
        identifier: str,
        *,
        target_bytes: int = 128 << 20,
        max_splits: int = 64,
        key: str | None = None,
        consistent: bool = True,
        max_age: float = 3600.0,
    ) -> Iterator[SplitPlan]:
        """Divide an item into splits for a block, as `DataSourceRegistry.plan` does."""
        planning = self._asynchronous.plan(
            source_id,
            identifier,
            target_bytes=target_bytes,
            max_splits=max_splits,
            key=key,
            consistent=consistent,
            max_age=max_age,
        )
        with self._registry._plan(planning) as plan:
            yield plan

    def read_split(self, split: Split, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the rows of a split, as `DataSourceRegistry.read_split` does."""
        return self._registry._iterate(lambda: self._asynchronous.read_split(split, columns))

    @contextmanager
    def workspace(
        self,
        workspace_id: str,
        *,
        root: str | os.PathLike[str] | None = None,
        quota: int | None = None,
        keep: bool = False,
    ) -> Iterator[WorkspaceSession]:
        """Return a workspace session under the principal's grants, limits and quota.

        Args:
            workspace_id: The host's name for it: letters, digits, `.`, `_`, `-`.
            root: The directory that holds it under that name; None takes a temporary one.
            quota: Bytes that its files may have together; the principal's quota holds, too.
            keep: Leave the directory with its files in `root`.

        Raises:
            OptionError: `workspace_id` is malformed, or `keep` is given without `root`.
            RegistryError: As `DataSourceRegistry.workspace`.
        """
        session = self._asynchronous.workspace(workspace_id, root=root, quota=quota, keep=keep)
        with self._registry._session(session) as opened:
            yield opened


class DataSourceRegistry:
    """A `datasources.DataSourceRegistry` for code without an event loop.

    It runs an event loop in a thread of its own. Its methods take the arguments of those of the
    same name there, give their results and raise their errors. Use it as a context manager, or
    call `close`. A call that is interrupted (Ctrl-C) cancels the operation.

    Any thread may call it, and that of a running event loop, too, which then waits. After a fork
    it belongs to the parent: in the child, every method that needs the event loop raises
    `RegistryError`.
    """

    def __init__(
        self,
        credential_manager: CredentialManager | None = None,
        cache_ttl: float = 300.0,
        *,
        store: Store | str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        pool_config: PoolConfig | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        self._asynchronous = asynchronous.DataSourceRegistry(
            credential_manager,
            cache_ttl,
            store=store,
            policy=policy,
            pool_config=pool_config,
            plugins=plugins,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="datasources", daemon=True)
        self._thread.start()
        self._process = os.getpid()
        # Held while a coroutine is handed to the loop: none is once `_closed` is set.
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def wrapped(self) -> asynchronous.DataSourceRegistry:
        """The asynchronous registry that this one calls, for code with an event loop of its own."""
        return self._asynchronous

    register_connector_class = _blocking(asynchronous.DataSourceRegistry.register_connector_class)
    register_data_source = _blocking(asynchronous.DataSourceRegistry.register_data_source)
    register_data_sources = _blocking(asynchronous.DataSourceRegistry.register_data_sources)
    update_data_source = _blocking(asynchronous.DataSourceRegistry.update_data_source)
    pause = _blocking(asynchronous.DataSourceRegistry.pause)
    resume = _blocking(asynchronous.DataSourceRegistry.resume)
    unregister_data_source = _blocking(asynchronous.DataSourceRegistry.unregister_data_source)
    exists = _blocking(asynchronous.DataSourceRegistry.exists)
    get_config = _blocking(asynchronous.DataSourceRegistry.get_config)
    list_data_sources = _blocking(asynchronous.DataSourceRegistry.list_data_sources)
    test_connection = _blocking(asynchronous.DataSourceRegistry.test_connection)
    discover = _blocking(asynchronous.DataSourceRegistry.discover)
    check_connection = _blocking(asynchronous.DataSourceRegistry.check_connection)
    validate_config = _blocking(asynchronous.DataSourceRegistry.validate_config)
    check_config = _blocking(asynchronous.DataSourceRegistry.check_config)
    check_update = _blocking(asynchronous.DataSourceRegistry.check_update)
    list_items = _blocking(asynchronous.DataSourceRegistry.list_items)
    list_page = _blocking(asynchronous.DataSourceRegistry.list_page)
    glob_items = _blocking(asynchronous.DataSourceRegistry.glob_items)
    expand = _blocking(asynchronous.DataSourceRegistry.expand)
    limits = _blocking(asynchronous.DataSourceRegistry.limits)
    get_metadata = _blocking(asynchronous.DataSourceRegistry.get_metadata)
    preview = _blocking(asynchronous.DataSourceRegistry.preview)
    statistics = _blocking(asynchronous.DataSourceRegistry.statistics)
    upload = _blocking(asynchronous.DataSourceRegistry.upload)
    fetch = _blocking(asynchronous.DataSourceRegistry.fetch)
    fetch_many = _blocking(asynchronous.DataSourceRegistry.fetch_many)
    fetch_tree = _blocking(asynchronous.DataSourceRegistry.fetch_tree)
    cache_metadata = _blocking(asynchronous.DataSourceRegistry.cache_metadata)
    get_cached_metadata = _blocking(asynchronous.DataSourceRegistry.get_cached_metadata)
    clear_cache = _blocking(asynchronous.DataSourceRegistry.clear_cache)
    sweep_workspaces = _blocking(asynchronous.DataSourceRegistry.sweep_workspaces)
    reencrypt = _blocking(asynchronous.DataSourceRegistry.reencrypt)
    disconnect_all = _blocking(asynchronous.DataSourceRegistry.disconnect_all)

    def iter_items(self, source_id: str, path: str | None = None) -> Iterator[DataItem]:
        """Yield the items that `list_items` returns, page by page where the connector can."""
        return self._iterate(lambda: self._asynchronous.iter_items(source_id, path))

    def access(
        self,
        principal: Principal,
        *,
        limits: Limits | None = None,
        quota: int | None = None,
        concurrency: int | None = 4,
    ) -> Access:
        """Return the registry's operations on data, narrowed to what a principal may do.

        Args:
            principal: The caller that the host acts for.
            limits: Of each fetch, in addition to the source's or the policy's: the smaller counts.
            quota: Bytes that the files of each workspace may have together; None is no bound.
            concurrency: Fetches and streams at once of all objects for principals of the same id,
                whatever bounds those objects have; more wait. None is no bound, and not counted.

        Raises:
            OptionError: `quota` is negative, or `concurrency` not at least 1.
        """
        access = self._asynchronous.access(
            principal, limits=limits, quota=quota, concurrency=concurrency
        )
        return Access(access, self)

    def _iterate(self, iterate: Callable[[], AsyncIterator[T]]) -> Generator[T]:
        """Yield the items of an asynchronous generator, which `iterate` makes."""
        received: SimpleQueue[T | None] = SimpleQueue()
        resume = asyncio.Event()
        ended = threading.Event()

        # One task from the beginning to the end: a connector may hold what belongs to a task, such
        # as a time limit, while it yields. It waits after each item until the next is asked for.
        async def produce() -> None:
            try:
                items = iterate()
                assert isinstance(items, AsyncGenerator)
                async with aclosing(items):
                    async for item in items:
                        received.put(item)
                        await resume.wait()
                        resume.clear()
            finally:
                ended.set()

        future = self._submit(produce())
        future.add_done_callback(lambda _: received.put(None))
        try:
            while (item := received.get()) is not None:
                yield item
                with self._open():
                    self._loop.call_soon_threadsafe(resume.set)
        except GeneratorExit:
            future.cancel()
            if self._unusable() is None:
                ended.wait()  # until the connection is returned; the task has begun before
            raise
        except BaseException:
            future.cancel()
            raise
        self._wait(future)

    def iter_fetch_tree(
        self,
        source_id: str,
        path: str | None,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        refresh: bool = False,
    ) -> Iterator[FetchResult]:
        """Yield what `fetch_tree` returns, as it comes, in memory for one page of the listing.

        All items of a connector without the ability `pages` are in memory. Results come in the order in which the fetches
        end. Of two different items that would be one file in the workspace, the one that begins to
        write first has it, and the other is an error. Closing the iterator cancels the fetches that
        are under way; files that are in place stay.

        Args:
            source_id: The source.
            path: As `expand` takes it.
            workspace: Directory, made if missing.
            concurrency: How many at once, also between two results.
            limits: In place of the source's or the policy's, for each item by itself.
            refresh: Fetch what is unchanged, too.

        Raises:
            ItemNotFoundError: As `fetch_tree`; also after results, if listing fails then.
        """
        return self._iterate(
            lambda: self._asynchronous.iter_fetch_tree(
                source_id,
                path,
                workspace,
                concurrency=concurrency,
                limits=limits,
                refresh=refresh,
            )
        )

    @contextmanager
    def open_stream(
        self,
        source_id: str,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,
        start: int | None = None,
        end: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Iterator[ItemStream]:
        """Return a stream of an item's bytes, for an `with` block that holds a connection.

        What a connector cannot stream is fetched into a temporary workspace first. The stream ends
        with all bytes and a receipt, or raises an error.

        Args:
            source_id: The source.
            identifier: As for `fetch`.
            format: Such as `csv` or `parquet`; None is the connector's own.
            limits: In place of the source's or the policy's. The time is that from the opening to
                the last byte, in which the host's own reading counts, too.
            start: The first byte, from 0; None is the beginning.
            end: The byte after the last one; None, or more than there are, is the end.
            parameters: As for `fetch`.

        Raises:
            LimitExceededError: On entering or in the stream, a limit of bytes or time is reached.
            OptionError: The range begins after the end of the content, or ends before it begins.
            ConnectorError: As `fetch`, also in the stream.
        """
        opening = self._asynchronous.open_stream(
            source_id,
            identifier,
            format=format,
            limits=limits,
            start=start,
            end=end,
            parameters=parameters,
        )
        with self._stream(opening) as stream:
            yield stream

    @contextmanager
    def plan(
        self,
        source_id: str,
        identifier: str,
        *,
        target_bytes: int = 128 << 20,
        max_splits: int = 64,
        key: str | None = None,
        consistent: bool = True,
        max_age: float = 3600.0,
    ) -> Iterator[SplitPlan]:
        """Divide an item into splits for an `with` block, in which readers may read them.

        All splits together are the item as it was on entering. What holds that state at the source,
        such as an open transaction, ends with the block; a split that is read later is an error.

        Args:
            source_id: The source.
            identifier: As for `fetch`; stored queries have no splits.
            target_bytes: Bytes that a split should have, as far as they can be estimated.
            max_splits: The most splits.
            key: A column whose ranges divide what cannot be divided otherwise: a query, a view.
            consistent: False to accept splits of different states of the source, where its readers
                cannot have one, such as those of several servers.
            max_age: Seconds after which the block ends with LimitExceededError.

        Raises:
            UnsupportedError: The connector has no splits.
            OptionError: A number is out of its range, or there is no column `key`.
            ConnectorError: The outside system failed.
        """
        planning = self._asynchronous.plan(
            source_id,
            identifier,
            target_bytes=target_bytes,
            max_splits=max_splits,
            key=key,
            consistent=consistent,
            max_age=max_age,
        )
        with self._plan(planning) as plan:
            yield plan

    def read_split(self, split: Split, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the rows of a split as `pyarrow.RecordBatch`, of a plan of this or another process.

        Close the iterator, or read it to its end: it holds a connection.

        Args:
            split: A split of a plan whose block has not ended.
            columns: The columns to read, in this order; None is all.

        Raises:
            ConflictError: The source has another configuration now, or the split was changed.
            OptionError: There is no such column.
            ConnectorError: The plan has ended, or the outside system failed.
        """
        return self._iterate(lambda: self._asynchronous.read_split(split, columns))

    @contextmanager
    def workspace(
        self,
        workspace_id: str,
        *,
        root: str | os.PathLike[str] | None = None,
        sources: Collection[str] | None = None,
        quota: int | None = None,
        limits: Limits | None = None,
        keep: bool = False,
    ) -> Iterator[WorkspaceSession]:
        """Return a workspace that is deleted when its `with` block ends, unless it is kept.

        A kept one has its files when a workspace of the same id is opened later, also by another
        process; `sweep_workspaces` deletes those that nobody has opened for long.

        Args:
            workspace_id: The host's name for it: letters, digits, `.`, `_`, `-`.
            root: The directory that holds it under that name; None takes a temporary one.
            sources: The ids of the sources that may be fetched from; None grants all.
            quota: Bytes that its files may have together; None is no bound.
            limits: Of each fetch, in place of the source's or the policy's.
            keep: Leave the directory with its files in `root`.

        Raises:
            OptionError: `workspace_id` is malformed, or `keep` is given without `root`.
            RegistryError: On entering, that a workspace of that id is open in `root`; on leaving,
                that not everything could be deleted.
        """
        session = self._asynchronous.workspace(
            workspace_id, root=root, sources=sources, quota=quota, limits=limits, keep=keep
        )
        with self._session(session) as opened:
            yield opened

    @contextmanager
    def _stream(
        self, opening: AbstractAsyncContextManager[streams.ItemStream]
    ) -> Iterator[ItemStream]:
        """Open a stream for a block, and close it at its end."""
        stream = ItemStream(self._run(opening.__aenter__()), self)
        leaving = None
        try:
            yield stream
        finally:
            with suppress(RegistryError):  # closing the registry has closed the stream
                leaving = self._submit(stream._leave(opening))
            if leaving is not None:
                self._wait(leaving)

    @contextmanager
    def _plan(self, planning: AbstractAsyncContextManager[splits.SplitPlan]) -> Iterator[SplitPlan]:
        """Keep a plan open for a block, in one task on the loop."""

        async def hold() -> AsyncIterator[splits.SplitPlan]:
            async with planning as plan:
                yield plan

        with closing(self._iterate(hold)) as plans:
            yield SplitPlan(next(plans), self)

    @contextmanager
    def _session(self, session: asynchronous.WorkspaceSession) -> Iterator[WorkspaceSession]:
        """Open a session for a block, and close it at its end."""
        self._run(session.__aenter__())
        try:
            yield WorkspaceSession(session, self)
        finally:
            if os.getpid() != self._process:
                pass  # after a fork, the workspace is still the parent's
            else:
                try:
                    leaving = self._submit(session.__aexit__(None, None, None))
                except RegistryError:
                    if not self._closed:
                        raise
                    self._thread.join()  # which ends the fetches
                    session._leave()
                else:
                    self._wait(leaving)

    def close(self, *, timeout: float | None = None) -> None:
        """Close every connection, the store and the thread; closing twice does nothing more.

        In the child of a fork it does nothing: what is open belongs to the parent.

        Args:
            timeout: Seconds that operations under way in other threads may take to finish before
                they are cut off; None is 30.

        Raises:
            DataSourceError: As `disconnect_all`; everything is closed all the same.
            RegistryError: It was called from the registry's own thread, as in a progress callback.
        """
        if os.getpid() != self._process:
            return
        if threading.current_thread() is self._thread:
            raise RegistryError(_OWN_THREAD)
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._end(timeout), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run_loop(self) -> None:
        """Run the event loop until `close` stops it; called in the registry's own thread.

        The loop is closed here as well: in the thread of the caller, another one may be running.
        """
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _end(self, timeout: float | None) -> None:
        """Close the registry and end all that still runs on the loop, as `asyncio.run` does."""
        try:
            await self._asynchronous.close(timeout=timeout)
        finally:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            await self._loop.shutdown_default_executor()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result; an interruption cancels it."""
        return self._wait(self._submit(coroutine))

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        # What `caller` names in this thread holds for the operation too.
        context = contextvars.copy_context()
        try:
            with self._open():
                return context.run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)
        except RegistryError:
            coroutine.close()
            raise

    def _wait(self, future: Future[T]) -> T:
        try:
            return future.result()
        except CancelledError:
            raise RegistryError("this registry was closed in mid-operation") from None
        except BaseException:
            future.cancel()
            raise

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Keep the registry from being closed during the block, or raise why it cannot be used."""
        # Before the lock, too: in the child of a fork, a thread that is not there may hold it.
        if reason := self._unusable():
            raise RegistryError(reason)
        with self._lock:
            if reason := self._unusable():
                raise RegistryError(reason)
            yield

    def _unusable(self) -> str | None:
        if os.getpid() != self._process:
            return "this registry belongs to the process that made it; make one after the fork"
        if self._closed:
            return "this registry is closed"
        if threading.current_thread() is self._thread:
            return _OWN_THREAD
        return None
