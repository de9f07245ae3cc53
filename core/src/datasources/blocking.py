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
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

from datasources import registry as asynchronous
from datasources.credentials import CredentialManager
from datasources.errors import RegistryError
from datasources.models import DataItem, Limits, PoolConfig
from datasources.plugins import Plugins
from datasources.policy import Policy
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


class WorkspaceSession:
    """A `datasources.WorkspaceSession` for code without an event loop.

    `DataSourceRegistry.workspace` makes them.
    """

    def __init__(
        self,
        session: asynchronous.WorkspaceSession,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        self._asynchronous = session
        self._run = run

    @property
    def path(self) -> Workspace:
        """The directory; there from the beginning of the block to its end."""
        return self._asynchronous.path

    fetch = _blocking(asynchronous.WorkspaceSession.fetch)
    fetch_many = _blocking(asynchronous.WorkspaceSession.fetch_many)
    fetch_tree = _blocking(asynchronous.WorkspaceSession.fetch_tree)


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

    register_connector_class = _blocking(asynchronous.DataSourceRegistry.register_connector_class)
    register_data_source = _blocking(asynchronous.DataSourceRegistry.register_data_source)
    register_data_sources = _blocking(asynchronous.DataSourceRegistry.register_data_sources)
    unregister_data_source = _blocking(asynchronous.DataSourceRegistry.unregister_data_source)
    exists = _blocking(asynchronous.DataSourceRegistry.exists)
    get_config = _blocking(asynchronous.DataSourceRegistry.get_config)
    list_data_sources = _blocking(asynchronous.DataSourceRegistry.list_data_sources)
    test_connection = _blocking(asynchronous.DataSourceRegistry.test_connection)
    discover = _blocking(asynchronous.DataSourceRegistry.discover)
    check_connection = _blocking(asynchronous.DataSourceRegistry.check_connection)
    list_items = _blocking(asynchronous.DataSourceRegistry.list_items)
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
    reencrypt = _blocking(asynchronous.DataSourceRegistry.reencrypt)
    disconnect_all = _blocking(asynchronous.DataSourceRegistry.disconnect_all)

    def iter_items(self, source_id: str, path: str | None = None) -> Iterator[DataItem]:
        """Yield what `list_items` returns, page by page where the connector can."""
        received: SimpleQueue[DataItem | None] = SimpleQueue()
        resume = asyncio.Event()
        ended = threading.Event()

        # One task from the beginning to the end: a connector may hold what belongs to a task, such
        # as a time limit, while it yields. It waits after each item until the next is asked for.
        async def produce() -> None:
            try:
                items = self._asynchronous.iter_items(source_id, path)
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

    @contextmanager
    def workspace(
        self,
        workspace_id: str,
        *,
        root: str | os.PathLike[str] | None = None,
        sources: Collection[str] | None = None,
        quota: int | None = None,
        limits: Limits | None = None,
    ) -> Iterator[WorkspaceSession]:
        """Return a workspace that is deleted when its `with` block ends.

        Args:
            workspace_id: The host's name for it: letters, digits, `.`, `_`, `-`.
            root: The directory that holds it under that name; None takes a temporary one.
            sources: The ids of the sources that may be fetched from; None grants all.
            quota: Bytes that its files may have together; None is no bound.
            limits: Of each fetch, in place of the source's or the policy's.

        Raises:
            OptionError: `workspace_id` is malformed.
            RegistryError: On entering, that a workspace of that id is open in `root`; on leaving,
                that not everything could be deleted.
        """
        session = self._asynchronous.workspace(
            workspace_id, root=root, sources=sources, quota=quota, limits=limits
        )
        self._run(session.__aenter__())
        try:
            yield WorkspaceSession(session, self._run)
        finally:
            if os.getpid() != self._process:
                pass  # after a fork, the workspace is still the parent's
            elif self._closed:
                self._thread.join()  # which ends the fetches
                session._delete()
            else:
                self._run(session.__aexit__(None, None, None))

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
        # Before the lock, too: in the child of a fork, it may be held by a thread that is not there.
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
