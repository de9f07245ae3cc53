"""Nothing that a host holds can be had from inside a sandbox."""

from __future__ import annotations

from pathlib import Path

from tests.sandbox.hosts import Host

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


def test_code_finds_every_secret_without_the_sandbox_and_none_in_it(host: Host) -> None:
    found = host.drive(hunt=True, code=HUNT)
    assert set(found["outside"]) >= PLANTED
    assert found["inside"] == [[], []]
