"""The HTTP server beside a bare FastAPI route that returns the same bytes, and beside the registry.

Both servers run as one uvicorn process each, and are asked in turn by the same client over
connections that stay open.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from datasources import CredentialManager, DataSourceConfig, DataSourceRegistry, Grant, Limits
from datasources_server import Tokens
from tests.server.served import ServeCommand
from tests.servers import Server

pytestmark = pytest.mark.bench

SOURCES, GRANTS, PAGE = 10_000, 20, 50
ROUNDS, SECONDS, CONNECTIONS = 5, 3.0, 8
LARGE = 256 << 20
ROOT = Path(__file__).parents[2]


class BareServer(Server):
    """The application of `bare.py`."""

    name = "bare"

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._body = body

    def _prepare(self) -> None:
        (self.directory / "body").write_bytes(self._body)

    def _command(self) -> Sequence[str | Path]:
        application = ["tests.bench.bare:app"]
        return [sys.executable, "-m", "uvicorn", *application, "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(ROOT), "BODY": str(self.directory / "body")}


def asked(port: int, path: str, token: str = "") -> tuple[float, float]:
    """Return the requests in a second, and the 99th percentile of their seconds."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    took: list[float] = []
    until = time.perf_counter() + SECONDS

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while (started := time.perf_counter()) < until:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            assert response.read()
            assert response.status == 200
            took.append(time.perf_counter() - started)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took) / SECONDS, statistics.quantiles(took, n=100)[98]


def served(server: ServeCommand) -> dict[str, str]:
    """Fill the store of a server that is down; return tokens by name."""
    home = server.home
    manager = CredentialManager((home / "key").read_text().strip())
    data = str(server.directory / "data")

    async def fill() -> None:
        async with DataSourceRegistry(manager, store=str(home / "sources.db")) as registry:
            await registry.register_data_sources(
                [
                    DataSourceConfig(f"s{number:05}", "local_file", "Source", {"path": data})
                    for number in range(SOURCES)
                ]
            )

    asyncio.run(fill())
    tokens = Tokens(home / "tokens.json")
    step = SOURCES // PAGE
    return {
        "20 grants": tokens.add(
            "ann", grants=[Grant(f"s{number * step:05}", {"read"}) for number in range(GRANTS)]
        ),
        "50 grants": tokens.add(
            "bob", grants=[Grant(f"s{number * step:05}", {"read"}) for number in range(PAGE)]
        ),
        "admin": tokens.add("root", admin=True),
    }


def memory(pid: int, field: str = "VmHWM") -> int:
    """Return a figure of a process's memory in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def test_lists() -> None:
    with ServeCommand() as server:
        tokens = served(server)
        server.restart()
        print(f"\nlists of a store of {SOURCES:,} sources, {CONNECTIONS} connections, medians")
        for name, token in tokens.items():
            path = f"/v1/sources?limit={PAGE}"
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            body = connection.getresponse().read()
            connection.close()
            with BareServer(body) as bare:
                pairs = [
                    (asked(server.port, path, token), asked(bare.port, "/list"))
                    for _ in range(ROUNDS)
                ]
            ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
            rates = [statistics.median(pair[i][0] for pair in pairs) for i in (0, 1)]
            late = [statistics.median(pair[i][1] * 1000 for pair in pairs) for i in (0, 1)]
            print(
                f"  {name:10} {len(body):7,} bytes  {rates[0]:6.0f}/s beside {rates[1]:6.0f}/s: "
                f"{ratio:.2f} x (goal 0.7); p99 {late[0]:.1f} beside {late[1]:.1f} ms"
            )


def content_seconds(
    port: int, method: str, path: str, token: str, body: str, *, size: int = LARGE
) -> float:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.perf_counter()
    connection.request(method, path, body or None, headers)
    response = connection.getresponse()
    received = 0
    buffer = bytearray(1 << 20)
    while read := response.readinto(buffer):
        received += read
    assert (response.status, received) == (200, size)
    seconds = time.perf_counter() - started
    connection.close()
    return seconds


async def test_content(tmp_path: Path) -> None:
    with ServeCommand() as server, BareServer(b"x") as bare:
        data = server.directory / "data"
        with (data / "large.bin").open("wb") as file:
            for _ in range(LARGE >> 20):
                file.write(os.urandom(1 << 20))
        admin = server.admin
        limits = {"max_bytes": LARGE}
        body = {"type": "local_file", "options": {"path": str(data)}, "limits": limits}
        assert admin("PUT", "/sources/s", body, headers={"If-None-Match": "*"}).status == 201
        took: dict[str, list[float]] = {"fetched first": [], "streamed": [], "bare": []}
        took["registry.fetch"] = []
        item, path = '{"item": "large.bin"}', "/v1/sources/s/content"
        assert server.pid
        before = memory(server.pid, "VmRSS")
        for round_ in range(ROUNDS):
            token = str(admin.token)
            took["fetched first"].append(content_seconds(server.port, "POST", path, token, item))
            streamed = f"{path}?stream=true"
            took["streamed"].append(content_seconds(server.port, "POST", streamed, token, item))
            bare_path = f"/content?size={LARGE}"
            took["bare"].append(content_seconds(bare.port, "GET", bare_path, token, ""))
            async with DataSourceRegistry() as registry:
                config = DataSourceConfig("s", "local_file", "S", {"path": str(data)})
                await registry.register_data_source(config)
                started = time.perf_counter()
                target = tmp_path / str(round_)
                await registry.fetch("s", "large.bin", target, limits=Limits(max_bytes=LARGE))
                took["registry.fetch"].append(time.perf_counter() - started)
                (target / "large.bin").unlink()
        growth = memory(server.pid) - before
        print(f"\n{LARGE >> 20} MiB of a local file, medians of {ROUNDS}")
        fetch = statistics.median(took["registry.fetch"])
        for name, seconds in took.items():
            median = statistics.median(seconds)
            print(
                f"  {name:15} {LARGE / median / 1e6:7.0f} MB/s: {fetch / median:.2f} x of "
                "registry.fetch"
            )
        print(f"  memory of the server grew by {growth / (1 << 20):.0f} MiB at most (goal 64)")


def test_start() -> None:
    took = []
    for _ in range(ROUNDS):
        server = ServeCommand()
        started = time.perf_counter()
        with server:
            took.append(time.perf_counter() - started)
            assert server.pid
            size = memory(server.pid, "VmRSS")
    print(
        f"\n`datasources serve` answers after {statistics.median(took):.2f} s, "
        f"with {size / (1 << 20):.0f} MiB"
    )
