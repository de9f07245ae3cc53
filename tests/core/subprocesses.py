"""Python in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Start processes that SIGINT ends, even where this one ignores it, as a background job does.

    Processes inherit that a signal is ignored, and Python then leaves it so.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


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
