"""What `datasources serve` says on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers import free_port


def read_until(terminal: int, pattern: str, output: str = "") -> str:
    """Return what a terminal shows up to a pattern."""
    while not re.search(pattern, output):
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, output
        output += os.read(terminal, 4096).decode()
    return output


def test_first_start_on_a_terminal_tells_the_address_of_the_console_with_its_token(
    tmp_path: Path,
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "datasources.cli", "serve", "--port", str(port)]
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path)}
    for with_token in (True, False):
        terminal, child = pty.openpty()
        process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment
        )
        os.close(child)
        try:
            output = read_until(terminal, "startup complete")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            os.close(terminal)
        token = (tmp_path / "datasources/admin-token").read_text("utf-8").strip()
        address = f"http://127.0.0.1:{port}/"
        assert f"Console: {address}#token={token}" in output if with_token else address in output
        assert (token in output) == with_token
