"""Serve applications on loopback in the process of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tests.waiting import wait_until


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application by uvicorn; yield its address."""
    config = uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listening]))
    try:
        await wait_until(lambda: server.started or task.done())
        yield "http://{}:{}".format(*listening.getsockname())
    finally:
        server.should_exit = True
        await task
        listening.close()
