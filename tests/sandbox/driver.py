"""A host process that runs code in a sandbox, for tests as root and as an ordinary user.

It reads plans, JSON on a line of its input, and prints a line for each: the result of `code` under
`limits`; with `hunt`, what the code finds of secrets without a sandbox, and then in one.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from datasources import (
    CredentialManager,
    DataSourceConfig,
    DataSourceError,
    DataSourceRegistry,
    Grant,
    Principal,
    WorkspaceSession,
)
from datasources_agents.sandbox import Runner, RunResult
from datasources_server import serve_workspace

RUNNER = Runner(sandbox=os.environ["SANDBOX"], python=os.environ["CODE_PYTHON"])


def canary(name: str) -> str:
    return f"CANARY-{name}-{secrets.token_hex(8)}"


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[DataSourceRegistry]:
    """Return a registry on a store in a file, with a source that holds a secret."""
    manager = CredentialManager(os.environ.setdefault("DATASOURCE_ENCRYPTION_KEY", make_key()))
    store = str(folder / "sources.db")
    async with DataSourceRegistry(manager, store=store) as registry:
        (folder / "lake").mkdir()
        (folder / "lake/orders.csv").write_text("id,total\n1,9.5\n")
        for name in ("lake", "other"):
            options = {"path": str(folder / "lake")}
            await registry.register_data_source(DataSourceConfig(name, "local_file", name, options))
        yield registry


def make_key() -> str:
    return CredentialManager.generate_key()


async def run(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    async with opened(folder) as registry:
        access = registry.access(Principal("ann", grants=[Grant("lake", {"read"})]))
        async with access.workspace("work") as session:
            result = await RUNNER.run(plan["code"], session, **plan["limits"])
            return described(result)


def described(result: RunResult) -> dict[str, Any]:
    return {
        "reason": result.reason,
        "exit_code": result.exit_code,
        "output": result.output.decode("utf-8", "replace"),
        "files": {file.path: [file.size, file.sha256] for file in result.files},
        "held_by": dict(result.held_by),
        "duration": result.duration,
    }


async def hunt(folder: Path, code: str) -> dict[str, Any]:
    """Plant a secret of each kind; return what the code finds outside, and in a sandbox."""
    memory = bytearray(canary("memory").encode())
    for name in ("keyfile", "configuration"):
        (folder / name).write_text(canary(name))
    async with opened(folder) as registry:
        await registry.register_data_source(
            DataSourceConfig("named", "local_file", canary("store"), {"path": str(folder)})
        )
        access = registry.access(Principal("ann", grants=[Grant("lake", {"read"})]))
        foreign = registry.access(Principal("bob", grants=[Grant("named", {"read"})]))
        places = [str(folder / name) for name in ("keyfile", "configuration", "sources.db")]
        places.append(str(folder / "sources.db-wal"))
        with tempfile.TemporaryFile() as deleted:
            deleted.write(canary("descriptor").encode())
            deleted.flush()
            os.set_inheritable(deleted.fileno(), True)
            port, network = await listen("127.0.0.1")
            name, abstract = await listen(None)
            async with (
                network,
                abstract,
                foreign.workspace("bob") as bobs,
                serve_workspace(bobs) as other,
                access.workspace("work") as session,
            ):
                plan = {"places": places, "processes": [os.getpid()], "sockets": [other.socket]}
                plan |= {"ports": [port], "abstract": [name]}
                outside = await without_sandbox(code, plan)
                inside = await in_sandbox(code, plan, session)
        assert memory
    return {"outside": outside, "inside": inside}


async def listen(host: str | None) -> tuple[Any, asyncio.Server]:
    """Return a listener that sends a secret, on a port or in the abstract namespace."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(secret)
        writer.close()

    secret = canary("abstract" if host is None else "network").encode()
    if host is None:
        name = f"datasources-test-{secrets.token_hex(8)}"
        return name, await asyncio.start_unix_server(answer, f"\0{name}")
    server = await asyncio.start_server(answer, host)
    return server.sockets[0].getsockname()[1], server


async def without_sandbox(code: str, plan: Mapping[str, Any]) -> list[str]:
    command = [sys.executable, "-c", code, json.dumps(plan)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, close_fds=False
    )
    output, _ = await process.communicate()
    return json.loads(output)


async def in_sandbox(code: str, plan: Mapping[str, Any], session: WorkspaceSession) -> Any:
    results = []
    numbers: tuple[list[int], ...] = (plan["processes"], [])
    for processes in numbers:  # by number, and all that are seen
        arguments = [json.dumps({**plan, "processes": processes})]
        results.append(await RUNNER.run(code, session, arguments=arguments))
    outputs = [result.output.decode() for result in results]
    return [json.loads(output) if output.startswith("[") else output for output in outputs]


async def answer(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a plan says in a new folder; add the names of what is left of it."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            if plan.get("hunt"):
                result = await hunt(Path(folder), plan["code"])
            else:
                result = await run(Path(folder), plan)
    except DataSourceError as error:
        return {"error": str(error), "slug": error.slug}
    left = [name for name in os.listdir(tempfile.gettempdir()) if "datasources" in name]
    return {**result, "left": left}


async def main() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
