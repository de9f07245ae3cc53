"""Nothing that a host holds can be had from inside a sandbox."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from datasources_agents.sandbox import scrubbed_environment
from tests.sandbox.hosts import EVERY_HOST, Host

HUNT = Path(__file__).with_name("hunt.py").read_text("utf-8")
PLANTED = {
    "abstract",
    "configuration",
    "descriptor",
    "environment",
    "keyfile",
    "memory",
    "network",
    "procenviron",
    "store",
}


@pytest.mark.parametrize("host", EVERY_HOST, indirect=True)
def test_code_finds_every_secret_without_the_sandbox_and_none_in_it(host: Host) -> None:
    found = host.drive(hunt=True, code=HUNT)
    assert set(found["outside"]) >= PLANTED
    assert found["inside"] == [[], []]


SHOWS_ENVIRONMENT = "import os; print(sorted(os.environ))"


def test_environment_of_a_host_reaches_its_code_unless_it_is_scrubbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The leak that hosts have that run code themselves."""
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", "CANARY-key-0123456789abcdef")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "CANARY-azure-0123456789abcdef")
    secret_names = {"DATASOURCE_ENCRYPTION_KEY", "AZURE_CLIENT_SECRET"}
    assert secret_names <= names_in(None)
    assert names_in(scrubbed_environment()) & secret_names == set()
    assert "STYLE" in names_in(scrubbed_environment({"STYLE": "dark"}))


def names_in(environment: dict[str, str] | None) -> set[str]:
    """Return the variables of code that is started with an environment, None for that of this process."""
    process = subprocess.run(
        [sys.executable, "-c", SHOWS_ENVIRONMENT],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return set(ast.literal_eval(process.stdout.decode()))
