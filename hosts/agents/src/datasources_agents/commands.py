"""The command `datasources mcp`."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, paths
from datasources.cli.completers import complete
from datasources.cli.context import CliContext
from datasources.errors import OptionError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from datasources import DataSourceRegistry, Principal, WorkspaceSession

_QUOTA = 1 << 30


@click.command("mcp")
@click.option(
    "--source",
    "source_ids",
    multiple=True,
    metavar="ID",
    shell_complete=complete("source_ids"),
    help="A source to offer; may be given several times.",
)
@click.option("--all", "all_sources", is_flag=True, help="Offer all stored sources.")
@click.option("--query", is_flag=True, help="Admit queries such as SQL, not only listed items.")
@click.option(
    "--upload", is_flag=True, help="Admit that files of the workspace are stored in the sources."
)
@click.option(
    "--workspace",
    metavar="DIR",
    type=paths.expand,
    shell_complete=complete("directories"),
    help="Keep fetched files below this directory. [default: a temporary one, deleted at the end]",
)
@click.option(
    "--quota", type=click.IntRange(min=1), default=_QUOTA, help="Bytes of fetched files together."
)
@click.option(
    "--structured",
    is_flag=True,
    help="Send structured content instead of JSON as text; not all clients show it to models.",
)
@click.option("--http", is_flag=True, help="Serve HTTP on 127.0.0.1 instead of stdin and stdout.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8400, show_default=True)
@click.option(
    "--token-file",
    metavar="FILE",
    type=paths.expand,
    help="The file of the token that HTTP demands, made if it is missing. [default: mcp-token "
    "beside the store]",
)
@click.pass_obj
def mcp_command(context: CliContext, /, **options: Any) -> None:
    """Serve sources to a language model over the Model Context Protocol.

    A client such as a desktop application starts this command and talks to it through stdin and
    stdout. Only the sources named are offered, to be read.
    """
    if bool(options["source_ids"]) == options["all_sources"]:
        raise click.UsageError("give --source ID for each source to offer, or --all")
    try:
        from datasources_agents.mcp import build
    except ImportError as exc:  # no `mcp`, or a version that the extra does not admit
        raise OptionError("MCP needs an extra: pip install 'datasources-agents[mcp]'") from exc
    token = _read_token(context, options["token_file"]) if options["http"] else None
    client = _take_stdout() if token is None else -1

    async def serve(registry: DataSourceRegistry) -> None:
        access = registry.access(_principal(registry, options))
        async with _open_workspace(access, options) as session:
            server = build(
                access,
                workspace=session,
                structured=options["structured"],
                upload=options["upload"],
            )
            if token is not None:
                await _serve_http(server, options["port"], token)
                return
            killed = await _serve_stdio(server, client)
        if killed:  # the thread that waits for stdin would keep the process alive
            await registry.close()
            os._exit(0)

    with contextlib.suppress(KeyboardInterrupt):
        context.run(serve, *options["source_ids"])


def _principal(registry: DataSourceRegistry, options: Mapping[str, Any]) -> Principal:
    from datasources import Grant, Principal

    source_ids: Sequence[str] = options["source_ids"]
    if options["all_sources"]:
        source_ids = [config.id for config in registry.list_data_sources()]
    rights = {"read"}
    rights |= {"query"} if options["query"] else set()
    rights |= {"write"} if options["upload"] else set()
    return Principal("mcp", grants=[Grant(source_id, rights) for source_id in source_ids])


def _open_workspace(access: Any, options: Mapping[str, Any]) -> WorkspaceSession:
    """Return a session of a name of its own, as several clients may be given one directory."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    root = options["workspace"]
    session: WorkspaceSession = access.workspace(
        name, root=root, quota=options["quota"], keep=root is not None
    )
    return session


def _take_stdout() -> int:
    """Return a descriptor of stdout for the protocol, and send descriptor 1 to stderr from now on.

    Connectors and their libraries may print at any time, until the process has ended.
    """
    client = os.dup(1)
    os.dup2(2, 1)
    return client


async def _serve_stdio(server: MCPServer[Any], client: int) -> bool:
    """Serve until stdin ends; return True if a signal has come before."""
    import asyncio  # not for the help of a command line

    killed, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, killed.set)
    os.dup2(client, 1)  # the SDK takes it, and sends to stderr what others print there
    with contextlib.redirect_stdout(sys.__stdout__):
        serving = asyncio.create_task(server.run_stdio_async())
        waiting = asyncio.create_task(killed.wait())
        await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            return True
        os.dup2(2, 1)  # the SDK has given it back
        waiting.cancel()
        serving.result()
    return False


async def _serve_http(server: MCPServer[Any], port: int, token: str) -> None:
    import uvicorn

    from datasources_agents.mcp.http import loopback_app

    config = uvicorn.Config(
        loopback_app(server, token),
        host="127.0.0.1",
        port=port,
        server_header=False,
        log_config=None,
    )
    output.echo_err(f"MCP: http://127.0.0.1:{port}/mcp")
    # uvicorn raises the signal that has ended it again: the workspace is still to be deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    await uvicorn.Server(config).serve()


def _make_token(path: str) -> None:
    """Make a file with a new token whole, unless another process makes it meanwhile."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"dsm_{secrets.token_urlsafe(32)}\n")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            output.echo_err(f"Made the token that clients send: {path}")
    finally:
        os.unlink(temporary)


def _read_token(context: CliContext, path: str | None) -> str:
    """Return the token of the file, which is made with a new one if it does not exist."""
    if path is None:
        store = paths.store_file(context.store_url)
        folder = context.home if store is None else os.path.dirname(os.path.abspath(store))
        path = os.path.join(folder, "mcp-token")
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        if not os.path.exists(path):
            _make_token(path)
        with open(path, encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise OptionError(
                    f"the token {path!r} may be read by others; change its mode to 0600"
                )
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise OptionError(f"the token {path!r} cannot be used: {type(exc).__name__}") from exc
    if len(token) < 32:
        raise OptionError(f"the token {path!r} is too short; delete the file for a new one")
    return token
