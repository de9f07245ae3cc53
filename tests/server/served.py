"""`datasources serve` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.server.client import Client
from tests.servers import Server


class ServeCommand(Server):
    """The command with a home of its own, and a configuration file if one is given."""

    name = "serve"

    def __init__(
        self,
        *arguments: str,
        config: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._more = environment or {}
        self._arguments = arguments
        self._config = [] if config is None else ["--config", str(config)]

    @property
    def home(self) -> Path:
        return self.directory / "home/datasources"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text("utf-8")

    @property
    def admin(self) -> Client:
        return Client(self.port, (self.home / "admin-token").read_text("utf-8").strip())

    def command(self, *arguments: str) -> str:
        """Run another command on the same store and return what it prints."""
        command = [sys.executable, "-m", "datasources.cli", *arguments]
        environment = self._environment()
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True, env=environment
        ).stdout

    def _prepare(self) -> None:
        (self.directory / "data").mkdir()

    def _command(self) -> Sequence[str | Path]:
        command = [sys.executable, "-m", "datasources.cli", *self._config, "serve"]
        command += ["--port", str(self.port)]
        return [*command, "--allow-root", str(self.directory / "data"), *self._arguments]

    def _environment(self) -> dict[str, str]:
        return os.environ | {"XDG_DATA_HOME": str(self.directory / "home")} | self._more
