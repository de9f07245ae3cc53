"""The application that tests run: a registry on a store, and tokens that name their principals.

Run by uvicorn as `tests.server.hosted:make_app`. The environment holds the settings:

- `STORE`: the URL of the store
- `ROOTS`: directories that sources may read below, separated by `:`
- `PRINCIPALS`: JSON, `{token: {"id", "roles", "grants": [[source, [right, …], [item, …]], …]}}`; a
  path of a file with it
- `SETTINGS`: JSON of `ServerSettings`
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request

from datasources import DataSourceRegistry, Grant, Principal
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


def make_app() -> FastAPI:
    logging.basicConfig()
    registry = DataSourceRegistry(
        store=os.environ["STORE"],
        policy=strict_policy(
            allow_roots=os.environ["ROOTS"].split(":"), allow_networks=["127.0.0.0/8"]
        ),
    )

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
