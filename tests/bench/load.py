"""Many clients at once: lists, previews and downloads beside a bare route, and event streams.

The clients run in this process, as tasks over connections that stay open. Server and bare server
are asked in turn, each for `SECONDS`: 5 by default, 30 with `LOAD_SECONDS=30`. Beside the rates, the
processor's time of a request is compared, which other work of the machine changes less.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bench.server import BareServer, content_seconds, memory, served
from tests.server.conftest import ApiServer
from tests.server.served import ServeCommand
from tests.servers import Database, Server

pytestmark = pytest.mark.bench

CONNECTIONS, SECONDS, ROUNDS = 200, float(os.environ.get("LOAD_SECONDS", "5")), 3
LISTENERS = 1000
DOWNLOAD = 256 << 10  # bytes
HUGE = 1 << 30
SLOW = "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b"


class Rate(NamedTuple):
    per_second: float
    p99: float
    """Seconds."""
    cpu: float
    """Seconds of the server's processor for one request."""


def request(method: str, path: str, token: str, body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"Authorization: Bearer {token}", "Content-Type: application/json"]
    return "\r\n".join([*lines, "", body]).encode()


async def answered(reader: asyncio.StreamReader) -> int:
    """Read an answer that has a length; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(b" ")[1])


def cpu_seconds(pid: int) -> float:
    """Return the seconds that a process and its threads had of processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(server: Server, sent: bytes) -> Rate:
    assert server.pid
    took: list[float] = []
    used, port = cpu_seconds(server.pid), server.port
    until = time.perf_counter() + SECONDS

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (started := time.perf_counter()) < until:
            writer.write(sent)
            assert await answered(reader) == 200
            took.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    used = cpu_seconds(server.pid) - used
    return Rate(len(took) / SECONDS, statistics.quantiles(took, n=100)[98], used / len(took))


def compared(name: str, ours: list[Rate], bare: list[Rate]) -> None:
    ratio = statistics.median(a.per_second / b.per_second for a, b in zip(ours, bare, strict=True))
    late = [statistics.median(rate.p99 * 1000 for rate in rates) for rates in (ours, bare)]
    rate = statistics.median(rate.per_second for rate in ours)
    cpu = statistics.median(b.cpu / a.cpu for a, b in zip(ours, bare, strict=True))
    print(
        f"  {name:9} {rate:6.0f}/s: {ratio:.2f} x, by processor {cpu:.2f} x; "
        f"p99 {late[0]:.0f} beside {late[1]:.0f} ms"
    )


def test_many_connections() -> None:
    with ServeCommand() as server:
        tokens = served(server)
        server.restart()
        data = server.directory / "data"
        (data / "rows.csv").write_text("n,text\n" + "1,some text\n" * 1000)
        (data / "large.bin").write_bytes(os.urandom(DOWNLOAD))
        assert server.pid
        token = tokens["20 grants"]
        preview = json.dumps({"item": "rows.csv", "rows": 100})
        download = json.dumps({"item": "large.bin"})
        cases = {
            "list": request("GET", "/v1/sources?limit=50", token),
            "preview": request("POST", "/v1/sources/s00000/preview", token, preview),
            "download": request("POST", "/v1/sources/s00000/content", token, download),
        }
        print(
            f"\n{CONNECTIONS} connections, {SECONDS:g} s each, medians of {ROUNDS} beside a bare route"
        )
        before = memory(server.pid, "VmRSS")
        for name, sent in cases.items():
            body = asyncio.run(first_body(server.port, sent))
            with BareServer(body) as bare:
                asked = request("GET", "/list", "")
                pairs = [
                    (asyncio.run(load(server, sent)), asyncio.run(load(bare, asked)))
                    for _ in range(ROUNDS)
                ]
            compared(name, [ours for ours, _ in pairs], [theirs for _, theirs in pairs])
            grown = (memory(server.pid, "VmRSS") - before) >> 20
            print(f"            memory grew by {grown} MiB since the beginning")


async def first_body(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b" 200 " in head.split(b"\r\n")[0], head
    body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()
    return body


@pytest.mark.parametrize("stream", [False, True])
def test_download_of_a_gibibyte(stream: bool) -> None:
    with ServeCommand() as server:
        with (server.directory / "data/large.bin").open("wb") as file:
            file.truncate(HUGE)
        options = {"path": str(server.directory / "data")}
        body = {"type": "local_file", "options": options, "limits": {"max_bytes": HUGE}}
        headers = {"If-None-Match": "*"}
        assert server.admin("PUT", "/sources/s", body, headers=headers).status == 201
        assert server.pid
        before = memory(server.pid, "VmRSS")
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        path = "/v1/sources/s/content" + ("?stream=true" if stream else "")
        token = str(server.admin.token)
        seconds = content_seconds(
            server.port, "POST", path, token, '{"item": "large.bin"}', size=HUGE
        )
        growth = (memory(server.pid) - before) / (1 << 20)
        how = "streamed" if stream else "fetched first"
        print(
            f"\n1 GiB {how}: {HUGE / seconds / 1e6:.0f} MB/s; memory grew by {growth:.0f} MiB (goal 64)"
        )


async def test_thousand_listeners(pg_database: Database) -> None:
    with ApiServer() as server:
        options = {"dsn": pg_database.dsn(), "allow_privileged_role": True}
        server.admin.create("shop", "postgresql", **options)
        ann = server.client("ann", ["shop", ["read", "query"]])
        workspace = ann("POST", "/workspaces", {"sources": ["shop"]}).json["id"]
        items = {"items": [{"source": "shop", "item": SLOW}], "wait": False}
        job = ann("POST", f"/workspaces/{workspace}/fetch", items).json["id"]
        assert server.pid
        before = memory(server.pid, "VmRSS")
        begun, ended = asyncio.Semaphore(0), 0

        async def listen() -> None:
            nonlocal ended
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request("GET", f"/v1/jobs/{job}/events", "ann"))
            await reader.readuntil(b"\r\n\r\n")
            begun.release()
            with suppress(asyncio.IncompleteReadError):
                while not (line := await reader.readline()).startswith(b"event: end"):
                    assert line
                ended += 1
            writer.close()

        listeners = [asyncio.create_task(listen()) for _ in range(LISTENERS)]
        started = time.perf_counter()
        for _ in range(LISTENERS):
            await begun.acquire()
        connected = time.perf_counter() - started
        grown = (memory(server.pid, "VmRSS") - before) >> 20
        used, started = cpu_seconds(server.pid), time.perf_counter()
        took = [
            await asyncio.to_thread(measured, lambda: ann("GET", "/me").status) for _ in range(50)
        ]
        busy = (cpu_seconds(server.pid) - used) / (time.perf_counter() - started)
        await asyncio.to_thread(ann, "DELETE", f"/jobs/{job}")
        started = time.perf_counter()
        await asyncio.gather(*listeners)
        print(
            f"\n{LISTENERS} listeners were there after {connected:.1f} s; {ended} were told the end "
            f"within {time.perf_counter() - started:.1f} s; memory grew by {grown} MiB; meanwhile "
            f"another request took {statistics.median(took) * 1000:.0f} ms, {max(took) * 1000:.0f} ms "
            f"at most, with {busy:.0%} of a processor"
        )


def measured(ask: Callable[[], int]) -> float:
    started = time.perf_counter()
    assert ask() == 200
    return time.perf_counter() - started
