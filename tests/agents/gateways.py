"""Gateways in the process of a test, each in front of a scripted upstream."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
from fastapi import Request

from datasources import Grant, Principal
from datasources_agents.gateway import GatewaySettings, gateway_routes
from datasources_server import ServerSettings, create_app
from tests.agents.conftest import ANN, House
from tests.agents.serving import serving
from tests.agents.upstream import KEY, Upstream

TEXT = {"type": "text", "text": "Sums?"}
BOB = Principal("bob", grants=[Grant("lake", {"read"})])


@dataclass
class Gateway:
    """A gateway, its upstream, and clients of it."""

    url: str
    upstream_url: str
    upstream: Upstream
    root: Path
    principals: dict[str, Principal]

    def client(self, token: str = "ann-token", **options: Any) -> openai.AsyncOpenAI:
        # Reading the certificates of all authorities takes longer than most requests.
        options.setdefault("http_client", openai.DefaultAsyncHttpxClient(verify=False))
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=token, **options)

    async def ask(self, *uris: str, token: str = "ann-token", **body: Any) -> Any:
        """Return what the stock client gets for a question with references."""
        async with self.client(token, max_retries=0) as client:
            return await client.chat.completions.create(**question(*uris), extra_body=body)

    def http(self, token: str | None = "ann-token", **headers: str) -> httpx2.AsyncClient:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.AsyncClient(
            base_url=self.url, headers=headers, trust_env=False, verify=False, timeout=60
        )

    def directories(self) -> list[str]:
        """Return the directories of requests and conversations."""
        names = os.listdir(self.root) if self.root.exists() else []
        return [name for name in names if not name.startswith(".")]


@asynccontextmanager
async def gateways(house: House, directory: Path) -> AsyncIterator[Any]:
    """Yield a function that starts a gateway; all end with the block."""
    async with AsyncExitStack() as stack:
        count = 0

        async def start(
            mode: str = "file_ids", upstream: Upstream | None = None, **settings: Any
        ) -> Gateway:
            nonlocal count
            count += 1
            upstream = upstream or Upstream()
            address = await stack.enter_async_context(serving(upstream))
            root = directory / f"data-{count}"
            values = {"url": f"{address}/v1", "key": KEY, "root": str(root), "mode": mode}
            gateway = GatewaySettings(**{**values, **settings})
            principals = {"ann-token": ANN, "bob-token": BOB}

            def authenticate(request: Request) -> Principal | None:
                token = request.headers.get("authorization", "").removeprefix("Bearer ")
                return principals.get(token)

            app = create_app(
                house.registry,
                authenticate=authenticate,
                settings=ServerSettings(recheck_seconds=0.2),
                parts=[gateway_routes(gateway)],
            )
            url = await stack.enter_async_context(serving(app))
            return Gateway(url, gateway.url, upstream, Path(gateway.root or ""), principals)

        yield start


def question(*uris: str) -> dict[str, Any]:
    """Return a chat request of one question with references."""
    parts = [{"type": "file", "file": {"file_id": uri}} for uri in uris]
    return {"model": "m", "messages": [{"role": "user", "content": [TEXT, *parts]}]}
