"""The application that tests run: a registry on a store, and tokens that name their principals.

Run by uvicorn as `tests.server.hosted:make_app`. The environment holds the settings:

- `STORE`: the URL of the store
- `ROOTS`: directories that sources may read below, separated by `:`
- `PRINCIPALS`: JSON, `{token: {"id", "roles", "grants": [[source, [right, …], [item, …]], …]}}`; a
  path of a file with it
- `SETTINGS`: JSON of `ServerSettings`
- `CONNECTIONS`: JSON of `PoolConfig`
- `DIE_AT`: the process kills itself before this call to the records of jobs, counted from 1
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from datasources import DataSourceRegistry, Grant, PoolConfig, Principal, Record
from datasources_server import ServerSettings, create_app, strict_policy


def authenticate(request: Request) -> Principal | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return find_token(token) if scheme.lower() == "bearer" else None


def find_token(token: str) -> Principal | None:
    """Return the principal of a token; in these tests, its id is the token."""
    described = json.loads(Path(os.environ["PRINCIPALS"]).read_text("utf-8")).get(token)
    if described is None:
        return None
    grants = [Grant(*grant) for grant in described.get("grants", [])]
    return Principal(described["id"], described.get("roles", []), grants)


def kill_at(registry: DataSourceRegistry, number: int) -> None:
    """Have the process killed before a call to the records of jobs, once a job has begun."""
    store = registry.store
    records = store.records()
    assert records is not None
    calls, lock, has_begun = 0, threading.Lock(), False

    def killing(name: str) -> Callable[..., Any]:
        method = getattr(records, name)

        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal calls, has_begun
            first = arguments[0] if arguments else None
            kind = first.kind if isinstance(first, Record) else first
            with lock:
                has_begun = has_begun or (name == "put" and kind == "job-lease")
                if has_begun and str(kind).startswith("job"):
                    calls += 1
                    if calls == number:
                        os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **more)

        return call

    class KillingRecords:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            return killing(name)

    killer = KillingRecords()
    store.records = lambda: killer  # type: ignore[method-assign]


def make_app() -> FastAPI:
    logging.basicConfig()
    registry = DataSourceRegistry(
        store=os.environ["STORE"],
        policy=strict_policy(
            allow_roots=os.environ["ROOTS"].split(":"), allow_networks=["127.0.0.0/8"]
        ),
        pool_config=PoolConfig(**json.loads(os.environ.get("CONNECTIONS", "{}"))),
    )

    if "DIE_AT" in os.environ:
        kill_at(registry, int(os.environ["DIE_AT"]))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with registry:
            yield

    settings = ServerSettings(**json.loads(os.environ.get("SETTINGS", "{}")))
    return create_app(
        registry,
        authenticate=authenticate,
        find_principal=find_token,
        settings=settings,
        lifespan=lifespan,
    )
