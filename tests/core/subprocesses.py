"""Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def environment() -> dict[str, str]:
    """Return the variables for Python in a process of its own."""
    # A coverage tool that follows into subprocesses imports and opens files of its own.
    return {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTHON"))}


def run_python(code: str, *arguments: str, **variables: str) -> str:
    """Run a program text, warnings being errors, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
