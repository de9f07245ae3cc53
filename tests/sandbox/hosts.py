"""Host processes of the user that runs the tests, and of an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("driver.py")
ORDINARY = 1_887_000_001
SYSTEM_PYTHON = "/usr/bin/python3"
WITH_BUBBLEWRAP = ["bubblewrap-own-user", "bubblewrap-ordinary-user"]
WITH_SANDLOCK = ["sandlock-own-user", "sandlock-ordinary-user"]
EVERY_HOST = [*WITH_BUBBLEWRAP, *WITH_SANDLOCK]


class Host:
    """Runs `driver.py` as one user, until its block ends."""

    def __init__(
        self, user: int, python: str, directory: Path, sandbox: str, code_python: str
    ) -> None:
        self.directory = directory
        environment = {"PATH": os.defpath, "TMPDIR": str(directory), "PYTHONPATH": python_path()}
        environment |= {"SANDBOX": sandbox, "CODE_PYTHON": code_python}
        self._process = subprocess.Popen(
            [python, "-B", str(DRIVER)],
            env=environment | {"PLANTED": "CANARY-environment-0123456789abcdef"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            **({} if user == os.geteuid() else as_user(user)),
        )

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def run(self, code: str, **limits: Any) -> dict[str, Any]:
        """Return how code ends in a sandbox of the host, which leaves nothing."""
        return self.drive(code=code, limits=limits)

    def begin(self, **plan: Any) -> int:
        """Start what a plan says; return the id of the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        return self._process.pid

    def drive(self, **plan: Any) -> dict[str, Any]:
        self.begin(**plan)
        assert self._process.stdout is not None
        result = json.loads(self._process.stdout.readline())
        assert result.pop("left", []) == []
        return result


def as_user(user: int) -> dict[str, Any]:
    return {"user": user, "group": user, "extra_groups": []}


def python_path() -> str:
    return ":".join(path for path in sys.path if path and path.startswith("/"))


def ordinary_python() -> str | None:
    """Return a Python of this version that every user may run, None if there is none."""
    for python in (sys.executable, SYSTEM_PYTHON):
        check = "import sys, datasources_agents, pydantic_core; print(*sys.version_info[:2])"
        with suppress(OSError):
            process = subprocess.run(
                [python, "-B", "-c", check],
                check=False,
                env={"PYTHONPATH": python_path()},
                capture_output=True,
                cwd="/",
                **as_user(ORDINARY),
            )
            if process.stdout.split() == [str(part).encode() for part in sys.version_info[:2]]:
                return python
    return None
