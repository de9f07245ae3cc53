"""The time until a model starts, and what the gateway adds to a streamed answer.

The model of the first test starts when the host of the documentation calls it, on uvicorn in this
process. In the second one, client, gateway and model's server are three processes; the client
keeps a connection open to each of the others, and asks them in turn.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.agents.conftest import House, container, house, shop  # fixtures
from tests.agents.gateways import question
from tests.agents.test_chat_host import Host, host  # a fixture
from tests.server.served import ServeCommand
from tests.servers import Server

__all__ = ["container", "host", "house", "shop"]

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parents[2]
ROUNDS, STREAMS = 40, 300
ITEMS = [
    ("shop", "public.orders"),
    ("shop", "SELECT id, total FROM orders"),
    ("blobs", "2026/orders.csv"),
]
URIS = [
    "datasource://shop/public.orders",
    "datasource://shop/SELECT%20id,%20total%20FROM%20orders",
    "datasource://blobs/2026/orders.csv",
]


async def test_model_starts_when_the_slowest_reference_is_there(
    host: Host, house: House, tmp_path: Path
) -> None:
    started: list[float] = []

    async def model(messages: list[Any], directory: str) -> AsyncIterator[str]:
        started.append(time.perf_counter())
        yield "x"

    host.module.app.state.model = model
    alone: list[list[float]] = [[] for _ in ITEMS]
    in_turn, at_once = [], []
    headers = {"authorization": "Bearer token"}
    async with httpx2.AsyncClient(base_url=host.url, headers=headers, trust_env=False) as client:
        for number in range(ROUNDS):
            for (source, item), figures in zip(ITEMS, alone, strict=True):
                before = time.perf_counter()
                await house.access().fetch(source, item, tmp_path / "w")
                figures.append(time.perf_counter() - before)
            in_turn.append(sum(figures[-1] for figures in alone))
            before = time.perf_counter()
            await client.post("/v1/chat/completions", json=question(*URIS))
            at_once.append(started[number] - before)
    for name, pick in PICKS.items():
        slowest, begun = max(pick(figures) for figures in alone), pick(at_once)
        print(
            f"\n  three small references, {name} of {ROUNDS}: request to model {ms(begun)}, the "
            f"slowest alone {ms(slowest)}, one by one {ms(pick(in_turn))}; over the slowest: "
            f"{ms(begun - slowest)}"
        )


class UpstreamProcess(Server):
    """The scripted server of a model in a process of its own."""

    name = "upstream"

    def _prepare(self) -> None:
        pass

    def _command(self) -> Sequence[str | Path]:
        application = ["tests.agents.upstream:app", "--log-level", "warning", "--no-access-log"]
        return [sys.executable, "-m", "uvicorn", *application, "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, ServeCommand]]:
    """The model's server, and the gateway in front of it."""
    with UpstreamProcess() as upstream:
        config = tmp_path / "config.toml"
        url = f"http://127.0.0.1:{upstream.port}/v1"
        config.write_text(f'[gateway]\nurl = "{url}"\nmode = "file_ids"\n')
        with ServeCommand(config=config) as gateway:
            yield upstream, gateway


def test_gateway_adds_little_to_the_first_chunk(servers: tuple[Server, ServeCommand]) -> None:
    gateway = servers[1]
    body = json.dumps({**question(), "stream": True})
    headers = {"Authorization": f"Bearer {gateway.admin.token}", "Content-Type": "application/json"}
    connections = [http.client.HTTPConnection("127.0.0.1", each.port) for each in servers]
    first: list[list[float]] = [[], []]
    spent = processor_time(gateway)
    for _ in range(STREAMS):
        for connection, figures in zip(connections, first, strict=True):
            before = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            assert response.read(6) == b"data: "
            figures.append(time.perf_counter() - before)
            response.read()
    for connection in connections:
        connection.close()
    spent = (processor_time(gateway) - spent) / STREAMS
    for name, pick in PICKS.items():
        direct, through = (pick(figures) for figures in first)
        print(
            f"\n  first chunk, {name} of {STREAMS}: direct {ms(direct)}, through the gateway "
            f"{ms(through)}; added {ms(through - direct)}"
        )
    print(f"\n  the gateway's processor time of a whole request: {ms(spent)}")


def processor_time(server: Server) -> float:
    assert server.pid is not None
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def fastest_tenth(figures: Sequence[float]) -> float:
    return statistics.quantiles(figures, n=10)[0]


# The second one is less of a figure of what else runs on the machine.
PICKS: dict[str, Callable[[Sequence[float]], float]] = {
    "median": statistics.median,
    "fastest tenth": fastest_tenth,
}
