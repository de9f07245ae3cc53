"""Schemathesis, which makes requests from the OpenAPI document, finds nothing in the server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import _served
from tests.server.client import Client
from tests.server.served import ServeCommand

EXAMPLES = os.environ.get("JUDGE_EXAMPLES", "30")  # for each operation
# A request may be of the form that the document describes and still be refused: a type that no
# plugin offers, options that its connector does not take, a source that has changed.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "412", "422", "428", "429", "501", "502"]

# These say that a connector lacks an ability, that its source failed, or that it is too slow.
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501", "502", "504"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCommand]:
    config = tmp_path_factory.mktemp("judged") / "config.toml"
    config.write_text("[server]\nplan_seconds = 1\n")  # a plan's response lasts as long
    yield from _served(ServeCommand(config=config))


def test_schemathesis_finds_nothing(served: ServeCommand, tmp_path: Path) -> None:
    data = served.directory / "data"
    (data / "t.csv").write_text("name,n\nann,1\n")
    # Under a name that the hooks keep from being revoked.
    token = served.command("tokens", "add", f"judge-{uuid4()}", "--admin").strip()
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command: list[str | Path] = [
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"http://127.0.0.1:{served.port}/openapi.json",
        f"--header=Authorization: Bearer {token}",
        f"--max-examples={EXAMPLES}",
        "--phases=examples,coverage,fuzzing,stateful",
        "--checks=all",
        "--no-color",
    ]
    environment = os.environ | {
        "JUDGED_DATA": str(data),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SCHEMATHESIS_HOOKS": "tests.judges.schemathesis_hooks",
    }
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert "API Links" in done.stdout
    assert "Traceback" not in served.log
    assert Client(served.port, token)("GET", "/sources").status == 200
