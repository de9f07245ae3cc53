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
import os
import threading
from collections.abc import (
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import CancelledError
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from datasources import registry as asynchronous, sessions
from datasources.connector import DataSourceConnector
from datasources.credentials import CredentialManager
from datasources.errors import RegistryError
from datasources.models import (
    ColumnStatistics,
    ConnectionCheck,
    DataItem,
    DataSourceConfig,
    DataSourceType,
    FetchReceipt,
    FetchRequest,
    FetchResult,
    Limits,
    PoolConfig,
    Preview,
    Rotation,
)
from datasources.plugins import Plugins
from datasources.policy import Policy
from datasources.stores import Store
from datasources.workspace import Progress, Workspace

T = TypeVar("T")


class WorkspaceSession:
    """A `datasources.WorkspaceSession` without an event loop: its methods are those there."""

    def __init__(
        self,
        session: sessions.WorkspaceSession,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        self._session = session
        self._run = run

    @property
    def path(self) -> Workspace:
        return self._session.path

    def fetch(self, source_id: str, identifier: str, *, format: str | None = None) -> FetchReceipt:
        receipt: FetchReceipt = self._run(self._session.fetch(source_id, identifier, format=format))
        return receipt

    def fetch_many(
        self, requests: Sequence[FetchRequest | tuple[str, str]], *, concurrency: int = 8
    ) -> list[FetchResult]:
        results: list[FetchResult] = self._run(
            self._session.fetch_many(requests, concurrency=concurrency)
        )
        return results

    def fetch_tree(
        self, source_id: str, path: str | None = None, *, concurrency: int = 8
    ) -> list[FetchResult]:
        results: list[FetchResult] = self._run(
            self._session.fetch_tree(source_id, path, concurrency=concurrency)
        )
        return results


class DataSourceRegistry:
    """A `datasources.DataSourceRegistry` on an event loop in a thread of its own.

    Arguments, results and errors are those of the methods of the same name there.  Use it as a
    context manager, or call `close`; an interrupted call (Ctrl-C) cancels the operation.
    """

    def __init__(
        self,
        credential_manager: CredentialManager | None = None,
        cache_ttl: float = 300.0,
        *,
        store: Store | str | None = None,
        policy: Policy | None = None,
        pool_config: PoolConfig | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        self._registry = asynchronous.DataSourceRegistry(
            credential_manager,
            cache_ttl,
            store=store,
            policy=policy,
            pool_config=pool_config,
            plugins=plugins,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="datasources", daemon=True
        )
        self._thread.start()
        self._process = os.getpid()
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

    def register_connector_class(
        self, type: DataSourceType | str, connector_class: type[DataSourceConnector]
    ) -> None:
        self._registry.register_connector_class(type, connector_class)

    def register_data_source(
        self, config: DataSourceConfig, test_connection: bool = False, *, replace: bool = False
    ) -> None:
        self._run(self._registry.register_data_source(config, test_connection, replace=replace))

    def register_data_sources(
        self, configs: Iterable[DataSourceConfig], *, replace: bool = False
    ) -> None:
        self._run(self._registry.register_data_sources(configs, replace=replace))

    def unregister_data_source(self, source_id: str, *, timeout: float | None = None) -> None:
        self._run(self._registry.unregister_data_source(source_id, timeout=timeout))

    def exists(self, source_id: str) -> bool:
        return self._registry.exists(source_id)

    def get_config(
        self, source_id: str, decrypt: bool = False, sanitize: bool = True
    ) -> DataSourceConfig:
        return self._registry.get_config(source_id, decrypt, sanitize)

    def list_data_sources(self) -> list[DataSourceConfig]:
        return self._registry.list_data_sources()

    def test_connection(self, source_id: str) -> bool:
        return self._run(self._registry.test_connection(source_id))

    def check_connection(self, source_id: str) -> ConnectionCheck:
        return self._run(self._registry.check_connection(source_id))

    def list_items(self, source_id: str, path: str | None = None) -> list[DataItem]:
        return self._run(self._registry.list_items(source_id, path))

    def glob_items(self, source_id: str, pattern: str) -> list[DataItem]:
        return self._run(self._registry.glob_items(source_id, pattern))

    def get_metadata(
        self, source_id: str, identifier: str, *, refresh: bool = False
    ) -> dict[str, Any]:
        return self._run(self._registry.get_metadata(source_id, identifier, refresh=refresh))

    def preview(self, source_id: str, identifier: str, rows: int = 10) -> Preview:
        return self._run(self._registry.preview(source_id, identifier, rows))

    def statistics(self, source_id: str, identifier: str) -> dict[str, ColumnStatistics]:
        return self._run(self._registry.statistics(source_id, identifier))

    def upload(
        self, source_id: str, local_path: str, name: str | None = None, *, overwrite: bool = True
    ) -> DataItem:
        return self._run(self._registry.upload(source_id, local_path, name, overwrite=overwrite))

    def fetch(
        self,
        source_id: str,
        identifier: str,
        workspace: str | os.PathLike[str],
        *,
        format: str | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> FetchReceipt:
        return self._run(
            self._registry.fetch(
                source_id, identifier, workspace, format=format, limits=limits, progress=progress
            )
        )

    def fetch_many(
        self,
        requests: Sequence[FetchRequest | tuple[str, str]],
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        progress: Mapping[int, Progress] | None = None,
    ) -> list[FetchResult]:
        return self._run(
            self._registry.fetch_many(
                requests, workspace, concurrency=concurrency, limits=limits, progress=progress
            )
        )

    def fetch_tree(
        self,
        source_id: str,
        path: str | None,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        limits: Limits | None = None,
        refresh: bool = False,
    ) -> list[FetchResult]:
        return self._run(
            self._registry.fetch_tree(
                source_id,
                path,
                workspace,
                concurrency=concurrency,
                limits=limits,
                refresh=refresh,
            )
        )

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
        session = self._registry.workspace(
            workspace_id, root=root, sources=sources, quota=quota, limits=limits
        )
        self._run(session.__aenter__())
        try:
            yield WorkspaceSession(session, self._run)
        finally:
            if self._closed:
                self._thread.join()  # which ends the fetches
                session._delete()
            else:
                self._run(session.__aexit__(None, None, None))

    def cache_metadata(self, source_id: str, metadata: dict[str, Any]) -> None:
        self._registry.cache_metadata(source_id, metadata)

    def get_cached_metadata(self, source_id: str) -> dict[str, Any] | None:
        return self._registry.get_cached_metadata(source_id)

    def clear_cache(self, source_id: str | None = None) -> None:
        self._registry.clear_cache(source_id)

    def reencrypt(self) -> Rotation:
        return self._registry.reencrypt()

    def disconnect_all(self, *, timeout: float | None = None) -> None:
        self._run(self._registry.disconnect_all(timeout=timeout))

    def close(self) -> None:
        """Close every connection, the store and the thread; closing twice does nothing more.

        Operations under way in other threads may finish, for as long as `disconnect_all` waits.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if os.getpid() != self._process:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        try:
            await self._registry.close()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            # Here, on the loop's own thread: the thread of `close` may be running another loop, as
            # that of a notebook does, and cannot run this one as well.
            await self._loop.shutdown_default_executor()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # What `caller` names in this thread holds for the operation too.
        context = contextvars.copy_context()
        with self._lock:
            if reason := self._unusable():
                coroutine.close()
                raise RegistryError(reason)
            future = context.run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RegistryError("this registry was closed in mid-operation") from None
        except BaseException:
            future.cancel()
            raise

    def _unusable(self) -> str | None:
        if self._closed:
            return "this registry is closed"
        if os.getpid() != self._process:
            return "this registry belongs to the process that made it; make one after the fork"
        if threading.current_thread() is self._thread:
            return "a blocking call from the registry's own thread would wait for itself"
        return None
