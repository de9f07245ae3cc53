"""The conformance suite of MCP and its inspector find nothing in our server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import IN_CI, SERVER_CACHE, _served
from tests.servers import Server, ServerError
from tests.servers.azurite import install_package

SUITE = ("@modelcontextprotocol/conformance", "0.2.0-alpha.12", "dist/index.js")
INSPECTOR = ("@modelcontextprotocol/inspector", "2.12.0", "clients/launcher/build/index.js")
NODE_MINIMUM = 22
# Scenarios that the suite runs and does not score. The SDK has no tasks; the other two are fixtures of
# the suite that are no part of this server: a schema with every keyword, and a stream that is resumed.
NOT_SCORED = {
    "json-schema-2020-12",
    "server-sse-polling",
    "tasks-capability-negotiation",
    "tasks-dispatch-and-envelope",
    "tasks-lifecycle",
    "tasks-mrtr-composition",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-request-state-removal",
    "tasks-required-task-error",
    "tasks-wire-fields",
}


class FixtureServer(Server):
    """The server of `conformance_server` in a uvicorn process."""

    name = "mcp"

    def _prepare(self) -> None: ...

    def _command(self) -> Sequence[str | Path]:
        application = "tests.judges.conformance_server:app"
        return [sys.executable, "-m", "uvicorn", application, "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def program(package: str, version: str, file: str) -> list[str]:
    """Return the command of a program of npm, installed if it is missing."""
    try:
        node, script = install_package(
            SERVER_CACHE, package, version, file, node_minimum=NODE_MINIMUM
        )
    except ServerError as exc:
        if IN_CI:
            pytest.fail(str(exc), pytrace=False)
        pytest.skip(str(exc))
    return [str(node), str(script)]


@pytest.fixture(scope="module")
def fixture_server() -> Iterator[FixtureServer]:
    yield from _served(FixtureServer())


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
def test_the_conformance_suite_finds_nothing(
    fixture_server: FixtureServer, tmp_path: Path, revision: str
) -> None:
    url = f"http://127.0.0.1:{fixture_server.port}/mcp"
    command = [*program(*SUITE), "server", "--url", url, "--requirements", revision]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    print(done.stdout)
    summary = done.stdout.partition("=== SUMMARY ===")[2]
    failed = set(re.findall(r"^✗ ([a-z0-9-]+):", summary, re.MULTILINE))
    assert done.returncode == 0, summary
    assert failed <= NOT_SCORED
    assert len(re.findall(r"^✓ ", summary, re.MULTILINE)) >= 30


@pytest.fixture
def inspect(tmp_path: Path) -> Any:
    """Call a method of `datasources mcp` by the inspector, and return what it prints."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake/a.csv").write_text("id,city\n1,Oslo\n", "utf-8")
    data_home = {"XDG_DATA_HOME": str(tmp_path / "home")}
    datasources = [sys.executable, "-m", "datasources.cli"]
    add = ["add", "local_file", "--id", "lake", "-o", f"path={tmp_path / 'lake'}"]
    subprocess.run([*datasources, *add], env=os.environ | data_home, check=True, timeout=60)
    inspector = [*program(*INSPECTOR), "--cli"]

    def inspect(*arguments: str) -> Any:
        setting = ["-e", f"XDG_DATA_HOME={data_home['XDG_DATA_HOME']}"]
        command = [*inspector, *setting, *arguments, "--", *datasources, "mcp", "--source", "lake"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    return inspect


def test_the_inspector_lists_calls_and_reads(inspect: Any) -> None:
    tools = inspect("--method", "tools/list")["tools"]
    assert [tool["name"] for tool in tools][:2] == ["list_sources", "list_items"]
    call = ["--method", "tools/call", "--tool-name", "preview_item"]
    result = inspect(*call, "--tool-arg", "source=lake", "--tool-arg", "item=a.csv")
    text, link = result["content"]
    assert json.loads(text["text"])["rows"] == [["1", "Oslo"]]
    templates = inspect("--method", "resources/templates/list")["resourceTemplates"]
    assert [template["uriTemplate"] for template in templates] == [
        "datasource://{source}/{+item}{?format}"
    ]
    (content,) = inspect("--method", "resources/read", "--uri", link["uri"])["contents"]
    assert content["text"] == "id,city\n1,Oslo\n"
