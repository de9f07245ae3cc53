"""Host processes of the user that runs the tests, and of an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("driver.py")
ORDINARY = 1_887_000_001
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass
class Host:
    """Runs `driver.py` as one user."""

    user: int
    python: str
    directory: Path

    def run(self, code: str, **limits: Any) -> dict[str, Any]:
        """Return how code ends in a sandbox of the host."""
        return self.drive(code=code, limits=limits)

    def drive(self, **plan: Any) -> dict[str, Any]:
        environment = {"PATH": os.defpath, "TMPDIR": str(self.directory)}
        environment |= {
            "PYTHONPATH": python_path(),
            "PLANTED": "CANARY-environment-0123456789abcdef",
        }
        process = subprocess.run(
            [self.python, "-B", str(DRIVER), json.dumps(plan)],
            check=False,
            env=environment,
            user=self.user if self.user != os.geteuid() else None,
            group=self.user if self.user != os.geteuid() else None,
            extra_groups=[] if self.user != os.geteuid() else None,
            capture_output=True,
            timeout=120,
            cwd="/",
        )
        assert process.returncode == 0, process.stderr.decode()[-3000:]
        return json.loads(process.stdout)  # type: ignore[no-any-return]


def python_path() -> str:
    return ":".join(path for path in sys.path if path and path.startswith("/"))


def ordinary_python() -> str | None:
    """Return a Python of this version that every user may run, None if there is none."""
    for python in (sys.executable, SYSTEM_PYTHON):
        if shutil.which(python) is None:
            continue
        check = "import sys, datasources_agents, pydantic_core; print(*sys.version_info[:2])"
        process = subprocess.run(
            [python, "-B", "-c", check],
            check=False,
            env={"PYTHONPATH": python_path()},
            user=ORDINARY,
            group=ORDINARY,
            extra_groups=[],
            capture_output=True,
            cwd="/",
        )
        if process.stdout.split() == [str(part).encode() for part in sys.version_info[:2]]:
            return python
    return None
