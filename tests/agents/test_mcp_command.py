"""`datasources mcp` as clients start it: on stdin and stdout, and on loopback."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from datasources.cli.app import cli
from datasources_agents import commands
from datasources_agents.tools import TOOLS
from tests.agents.shops import SLOW, Shop, open_shop
from tests.core.plugin_fixtures import Site, connector_module
from tests.docs.blocks import DOCS, blocks
from tests.server.client import Answer, Client as ApiClient
from tests.servers import Database, Server
from tests.waiting import wait_until, wait_until_blocking

PROGRAM = str(Path(sys.executable).with_name("datasources"))
CALL = ("preview_item", {"source": "lake", "item": "orders.csv"})
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


class Home:
    """A store of its own, and the command on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {"XDG_DATA_HOME": str(directory / "home"), "TMPDIR": str(directory)}
        (directory / "lake").mkdir(exist_ok=True)
        (directory / "lake/orders.csv").write_text("id,city\n1,Oslo\n", "utf-8")
        add = ["add", "local_file", "--id", "lake", "-o", f"path={directory / 'lake'}"]
        done = CliRunner(env=self.environment).invoke(cli, add, catch_exceptions=False)
        assert done.exit_code == 0, done.output

    def run(self, *arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=keywords.pop("check", True),
            **keywords,
        )

    @asynccontextmanager
    async def connect(self, *arguments: str, command: str = PROGRAM) -> AsyncIterator[Client]:
        server = StdioServerParameters(
            command=command, args=list(arguments), env=self.environment, cwd=self.directory
        )
        async with Client(server) as client:
            yield client


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server end by itself, whose process the SDK kills after a few seconds."""
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", 60.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def text_of(result: Any) -> str:
    return next(block.text for block in result.content if isinstance(block, TextContent))


def configurations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each snippet of the page says about the server, with the line it is at."""
    for block in blocks(DOCS / "mcp.md"):
        if block.language not in ("json", "toml"):
            continue
        load = json.loads if block.language == "json" else tomllib.loads
        document = load(block.text)
        for key in ("mcpServers", "servers", "context_servers", "mcp_servers"):
            for server in document.get(key, {}).values():
                yield f"{key}-{block.line}", server


CONFIGURATIONS = dict(configurations())


def test_the_page_has_a_configuration_for_each_client_that_it_names() -> None:
    assert len(CONFIGURATIONS) == 5
    assert [server.get("type") for server in CONFIGURATIONS.values()].count("http") == 1


async def test_each_configuration_starts_a_server(home: Home) -> None:
    servers = [server for server in CONFIGURATIONS.values() if "command" in server]
    assert {server["command"] for server in servers} == {Path(PROGRAM).name}
    for arguments in {tuple(server["args"]) for server in servers}:  # once if all have the same
        async with home.connect(*arguments) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)
            result = await client.call_tool(*CALL)
        assert json.loads(text_of(result))["rows"] == [["1", "Oslo"]]


async def test_only_the_sources_named_are_offered(home: Home, tmp_path: Path) -> None:
    home.run("add", "local_file", "--id", "other", "-o", f"path={tmp_path / 'lake'}")
    for arguments, expected in (
        (["--source", "lake"], ["lake"]),
        (["--source", "lake", "--source", "other"], ["lake", "other"]),
        (["--all"], ["lake", "other"]),
    ):
        async with home.connect("mcp", *arguments) as client:
            listed = json.loads(text_of(await client.call_tool("list_sources", {})))
        assert [source["id"] for source in listed["sources"]] == expected
        assert {tuple(source["rights"]) for source in listed["sources"]} == {("read",)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --source ID for each source to offer, or --all"),
        (["--all", "--source", "lake"], "give --source ID for each source to offer, or --all"),
        (["--source", "missing"], "there is no source 'missing'"),
    ],
)
def test_wrong_arguments_are_one_sentence_on_stderr(
    home: Home, arguments: Sequence[str], sentence: str
) -> None:
    done = home.run("mcp", *arguments, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "returncode"),
    [(["mcp", "--source", "lake"], 1), (["serve", "--check"], 0)],
    ids=["mcp", "serve"],
)
def test_another_package_of_that_name_is_told_and_ends_no_server(
    home: Home, tmp_path: Path, arguments: Sequence[str], returncode: int
) -> None:
    (tmp_path / "older/mcp").mkdir(parents=True)
    (tmp_path / "older/mcp/__init__.py").write_text("Client = None\n", "utf-8")
    home.environment["PYTHONPATH"] = os.pathsep.join(
        [str(tmp_path / "older"), os.environ.get("PYTHONPATH", "")]
    )
    done = home.run(*arguments, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == returncode, done.stderr
    assert "pip install 'datasources-agents[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr


async def test_sources_of_a_configuration_file_are_offered(home: Home, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    declared = "".join(
        f'[sources.{name}]\ntype = "local_file"\noptions = {{ path = "{tmp_path / name}" }}\n'
        for name in ("one", "two")
    )
    (tmp_path / "sources.toml").write_text(declared, "utf-8")
    arguments = ["--config", str(tmp_path / "sources.toml"), "mcp", "--source", "one"]
    async with home.connect(*arguments, "--source", "two") as client:
        listed = json.loads(text_of(await client.call_tool("list_sources", {})))
    assert [source["id"] for source in listed["sources"]] == ["one", "two"]
    done = home.run(*arguments, "--source", "lake", check=False, stdin=subprocess.DEVNULL)
    assert "declared and stored sources cannot be used together" in done.stderr


async def test_queries_need_their_flag(pg_database: Database, home: Home, tmp_path: Path) -> None:
    query = ("preview_item", {"source": "shop", "item": "SELECT 1 AS one"})
    async with open_shop(pg_database, tmp_path / "shop") as shop:
        add_shop(home, shop)
        async with home.connect("mcp", "--source", "shop") as client:
            refused = await client.call_tool(*query)
        async with home.connect("mcp", "--source", "shop", "--query") as client:
            allowed = await client.call_tool(*query)
    assert "does not have the right 'query'" in text_of(refused)
    assert json.loads(text_of(allowed))["rows"] == [[1]]


def add_shop(home: Home, shop: Shop) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in shop.options.items()]
    home.run("add", "postgresql", "--id", "shop", "--stdin", input="\n".join(lines))


async def test_a_client_that_dies_leaves_no_query(
    pg_database: Database, home: Home, tmp_path: Path
) -> None:
    async with open_shop(pg_database, tmp_path / "shop") as shop:
        add_shop(home, shop)
        process = subprocess.Popen(  # noqa: ASYNC220  (it returns at once)
            [PROGRAM, "mcp", "--source", "shop", "--query"],
            env=os.environ | home.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        with process:
            call = {"name": "fetch_item", "arguments": {"source": "shop", "item": SLOW}}
            for message in (
                INITIALIZE,
                {"jsonrpc": "2.0", "method": "notifications/initialized"},
                {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
            ):
                process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            await wait_until(shop.running)
            process.stdin.close()
            await wait_until(lambda: not shop.running())
            assert process.stderr.read() == ""
        assert process.returncode == 0


async def test_files_are_kept_where_the_user_says(home: Home, tmp_path: Path) -> None:
    call = ("fetch_item", {"source": "lake", "item": "orders.csv"})
    kept = []
    for _ in range(2):
        async with home.connect("mcp", "--all", "--workspace", str(tmp_path / "kept")) as client:
            kept.append(Path(json.loads(text_of(await client.call_tool(*call)))["path"]))
    assert all(path.read_text("utf-8") == "id,city\n1,Oslo\n" for path in kept)
    assert all(path.is_relative_to(tmp_path / "kept") for path in kept)
    assert kept[0].parent != kept[1].parent
    async with home.connect("mcp", "--all") as client:
        path = Path(json.loads(text_of(await client.call_tool(*call)))["path"])
        assert path.exists()
    assert not path.exists()
    async with home.connect("mcp", "--all", "--quota", "3") as client:
        assert "may have 3" in text_of(await client.call_tool(*call))


async def test_uploads_need_their_flag(home: Home) -> None:
    call = ("upload_file", {"source": "lake", "path": "orders.csv"})
    async with home.connect("mcp", "--all") as client:
        refused = await client.call_tool(*call)
    assert text_of(refused) == "Unknown tool: upload_file"
    async with home.connect("mcp", "--all", "--upload") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [*TOOLS, "upload_file"]
        assert text_of(await client.call_tool(*call)) == "the workspace has no such file"
        listed = json.loads(text_of(await client.call_tool("list_sources", {})))
    assert listed["sources"][0]["rights"] == ["read", "write"]


NOISE = """
import os, subprocess, sys
def make_noise():
    print("noise")
    sys.__stdout__.write("noise"); sys.__stdout__.flush()
    os.write(1, b"noise")
    subprocess.run(["echo", "noise"])
print("noise of the import")
"""
NOISY = NOISE + connector_module("noisy").replace("return None", "return make_noise() or True")


def test_stdout_has_nothing_but_the_protocol(home: Home, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    site.connector("noisy", "noisy", NOISY)
    home.environment["PYTHONPATH"] = str(site.path)
    home.run("add", "noisy", "--id", "noisy", "--no-test")
    lines: list[dict[str, Any]] = [
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    for number, source in enumerate(["lake", "noisy", "missing"], 3):
        params = {"name": "list_items", "arguments": {"source": source}}
        lines.append({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    process = subprocess.Popen(
        [PROGRAM, "-v", "mcp", "--all"],
        env=os.environ | home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        answers = []
        for line in lines:
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
            if "id" in line:
                answers.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.stderr.read().count("noise") >= 5
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


class HttpCommand(Server):
    """`datasources mcp --http`."""

    name = "mcp-http"

    @property
    def token_file(self) -> Path:
        return self.directory / "home/datasources/mcp-token"

    @property
    def token(self) -> str:
        return self.token_file.read_text("ascii").strip()

    def _prepare(self) -> None:
        self.home = Home(self.directory)

    def _command(self) -> Sequence[str | Path]:
        return [PROGRAM, "mcp", "--source", "lake", "--http", "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        return os.environ | self.home.environment


@pytest.fixture(scope="module")
def served() -> Iterator[HttpCommand]:
    with HttpCommand() as server:
        yield server


def post(server: HttpCommand, token: str | None, **headers: str) -> Answer:
    accept = {"Accept": "application/json, text/event-stream"}
    return ApiClient(server.port, token)(
        "POST", "/mcp", INITIALIZE, headers=accept | headers, prefix=""
    )


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_http_serves_who_has_the_token(served: HttpCommand, mode: str) -> None:
    (configuration,) = [c for c in CONFIGURATIONS.values() if c.get("type") == "http"]
    headers = {
        name: value.replace("${input:token}", served.token)
        for name, value in configuration["headers"].items()
    }
    url = re.sub(r":\d+/", f":{served.port}/", configuration["url"])
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        result = await client.call_tool(*CALL)
    assert json.loads(text_of(result))["rows"] == [["1", "Oslo"]]


def test_http_refuses_everybody_else(served: HttpCommand) -> None:
    assert post(served, served.token).status == 200
    for token in (None, "", "wrong", f"{served.token}x", served.token[:-1]):
        assert post(served, token).status == 401
    basic = {"Authorization": f"Basic {served.token}"}
    assert post(served, None, **basic).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_http_refuses_foreign_pages(
    served: HttpCommand, headers: dict[str, str], status: int
) -> None:
    assert post(served, served.token, **headers).status == status


def test_the_token_is_for_its_owner_alone(served: HttpCommand) -> None:
    assert served.token_file.stat().st_mode & 0o777 == 0o600
    served.token_file.chmod(0o644)
    try:
        done = served.home.run("mcp", "--source", "lake", "--http", "--port", "0", check=False)
    finally:
        served.token_file.chmod(0o600)
    assert "may be read by others" in done.stderr
    assert served.token not in done.stderr + done.stdout


def test_two_first_starts_at_once_have_one_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tokens = tmp_path / "mcp-token", []
    random, context = secrets.token_urlsafe, cast("Any", None)

    def start_another(size: int) -> str:
        monkeypatch.setattr(secrets, "token_urlsafe", random)
        tokens.append(commands._read_token(context, str(path)))
        return random(size)

    monkeypatch.setattr(secrets, "token_urlsafe", start_another)
    tokens.append(commands._read_token(context, str(path)))
    assert tokens == [path.read_text("ascii").strip()] * 2
    assert os.listdir(tmp_path) == ["mcp-token"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_http_ends_at_a_signal_and_leaves_no_files(number: signal.Signals) -> None:
    with HttpCommand() as server:
        process = server._process
        assert process is not None
        assert list(server.directory.glob("datasources-*"))
        process.send_signal(number)
        wait_until_blocking(lambda: process.poll() is not None)
        assert "Traceback" not in (server.directory / "log").read_text("utf-8")
        assert not list(server.directory.glob("datasources-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stdio_ends_at_a_signal_and_leaves_no_files(home: Home, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [PROGRAM, "mcp", "--all"],
        env=os.environ | home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.write(json.dumps(INITIALIZE) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        assert list(home.directory.glob("datasources-*"))
        process.send_signal(number)
        wait_until_blocking(lambda: process.poll() is not None)
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert not list(home.directory.glob("datasources-*"))
