"""`datasources serve`: safe by default, and started by one command."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from datasources.cli.app import cli
from tests.server.client import Client
from tests.server.served import ServeCommand
from tests.waiting import wait_until_blocking


@pytest.fixture
def served() -> Iterator[ServeCommand]:
    with ServeCommand() as server:
        yield server


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "datasources.cli", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def check(*arguments: str) -> Result:
    """Run `datasources serve --check`, which starts no server, in this process."""
    command = ["serve", *arguments, "--check"]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


def test_first_start_makes_a_key_and_a_token_in_files_of_their_owner(served: ServeCommand) -> None:
    token = served.home / "admin-token"
    assert str(token) in served.log
    assert token.read_text("utf-8").strip() not in served.log
    for path in (token, served.home / "key", served.home / "tokens.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    served.admin.create("lake", path=str(served.directory / "data"))
    first = served.admin
    served.restart()
    assert first("GET", "/sources/lake").status == 200
    assert len(json.loads(served.command("tokens", "list", "--json"))) == 1


def test_token_of_a_command_is_admitted_and_refused_while_the_server_runs(
    served: ServeCommand,
) -> None:
    served.admin.create("lake", path=str(served.directory / "data"))
    ann = Client(
        served.port, served.command("tokens", "add", "ann", "--grant", "lake:read").strip()
    )
    assert [item["id"] for item in ann("GET", "/sources").json["items"]] == ["lake"]
    assert ann("GET", "/tokens").status == 403
    served.command("tokens", "revoke", "ann")
    assert ann("GET", "/sources").status == 401


def test_sources_may_not_use_the_machine(served: ServeCommand) -> None:
    headers = {"If-None-Match": "*"}
    body = {"type": "local_file", "options": {"path": "/etc"}}
    refused = served.admin("PUT", "/sources/etc", body, headers=headers)
    assert (refused.status, refused.json["setting"]) == (403, "allowed_roots")
    local = {"host": "127.0.0.1", "database": "x", "user": "u", "password": "p"}
    tested = served.admin("POST", "/test", {"type": "postgresql", "options": local})
    assert tested.json["error"]["slug"] == "not-allowed"
    assert "127.0.0.0/8" in tested.json["error"]["message"]
    assert tested.json["error"]["setting"] == "denied_networks"
    assert "--allow-network" in tested.json["error"]["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends_when_it_is_told_to(served: ServeCommand, number: signal.Signals) -> None:
    assert served.admin("GET", "/sources").status == 200
    assert served.pid
    os.kill(served.pid, number)
    wait_until_blocking(lambda: not served.running)
    assert "Traceback" not in served.log
    assert "shutdown complete" in served.log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--tls-cert and --tls-key, or --trusted-proxy"),
        (["--host", "::"], "--tls-cert and --tls-key, or --trusted-proxy"),
        (["--host", "data.example"], "--tls-cert and --tls-key, or --trusted-proxy"),
        (["--host", "0.0.0.0", "--trusted-proxy", "10.0.0.1"], "--public-url"),
        (["--tls-cert", "/dev/null"], "given together"),
        (["--tls-cert", "/dev/null", "--tls-key", "/dev/null"], "certificate"),
        (["--public-url", "data.example"], "'public_url' must be a URL"),
        (["--allow-network", "here"], "'here' is not a network"),
    ],
)
def test_unsafe_and_wrong_settings_are_refused(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    checked = check(*arguments)
    for code, told in ((done.returncode, done.stderr), (checked.exit_code, checked.stderr)):
        assert code in (1, 2)
        assert message in told
        assert "Traceback" not in told


def test_check_makes_no_file_and_says_that_the_settings_are_valid() -> None:
    done = run(
        "--check",
        "--host",
        "0.0.0.0",
        "--trusted-proxy",
        "10.0.0.1",
        "--public-url",
        "https://d.example",
    )
    assert (done.returncode, done.stderr) == (0, "The settings are valid.\n")
    assert not list(Path(os.environ["XDG_DATA_HOME"]).rglob("*"))


def test_options_are_also_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASOURCES_SERVER_HOST", "0.0.0.0")
    done = run("--check")
    assert done.returncode == 2
    assert re.search("beyond loopback", done.stderr)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("port = 'x'", "'x' is not a valid integer"),
        ("port = [1]", "[server]: 'port' must be a single value"),
        ("prot = 1", "[server]: unknown 'prot'; accepted: "),
        ("host = '0.0.0.0'", "--tls-cert and --tls-key, or --trusted-proxy"),
        ("tls_cert = 'cert.pem'", "[server]: 'tls_cert' must be an absolute path"),
        ("allow_root = '/data'", "[server]: 'allow_root' must be a list"),
        ("allow_root = ['data']", "[server]: 'allow_root' must be an absolute path"),
        ("max_page = 0", "'max_page' must be a number of more than 0"),
        ("allowed_hosts = 'a'", "'allowed_hosts' must be a list"),
        ("check = true", "[server]: unknown 'check'"),
    ],
)
def test_wrong_table_of_the_configuration_is_refused(
    table: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[server]\n{table}\n", "utf-8")
    monkeypatch.setenv("DATASOURCES_CONFIG", str(config))
    done = check()
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_table_of_the_configuration_has_options_and_limits(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[server]\nmax_page = 1\nport = 1\n", "utf-8")
    with ServeCommand(config=config) as served:  # whose arguments give another port
        for name in ("a", "b"):
            served.admin.create(name, path=str(served.directory / "data"))
        assert len(served.admin("GET", "/sources").json["items"]) == 1
