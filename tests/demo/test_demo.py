"""The demo does the main job and ends with a server on its sources."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.waiting import wait_until_blocking

ROOT = Path(__file__).parents[2]


# `nox -s demo` types all the commands in any case; the server needs what those of REGISTER add.
@pytest.mark.parametrize(
    "commands", ["REGISTER + FAIL", pytest.param("COMMANDS", marks=pytest.mark.soak)]
)
def test_demo_serves_its_sources_until_ctrl_c(tmp_path: Path, commands: str) -> None:
    program = f"from demo import run; run.COMMANDS = run.{commands.replace('+ ', '+ run.')}"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{program}; run.main()", "--serve"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # as Ctrl+C reaches the demo alone here
        )
    try:
        wait_until_blocking(
            lambda: b"Ctrl+C ends it" in log.read_bytes() or process.poll() is not None, timeout=600
        )
        text = log.read_text("utf-8")
        opened = re.search(r"(http://127\.0\.0\.1:\d+/)#token=(\S+)", text)
        assert opened, text
        url, token = opened.groups()
        request = Request(f"{url}v1/sources", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request, timeout=60) as response:
            sources = json.load(response)["items"]
        assert [source["id"] for source in sources] == ["desk", "lake", "shop", "visits"]
        with urlopen(url, timeout=60) as response:
            assert b"datasources" in response.read()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 0, log.read_text("utf-8")
        assert "# Stopping the servers." in log.read_text("utf-8")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # it ends the servers that it has started
            process.wait(120)
