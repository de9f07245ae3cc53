"""Sandboxes of sandlock: rules of Landlock and seccomp, for machines without namespaces.

The code sees its files at their own paths, in the namespaces of the host. What the rules leave open is
closed by `seccomp_program` and by `keeper.py`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasources import run_in_thread
from datasources_agents.sandbox import keeper, launch
from datasources_agents.sandbox.errors import SandboxUnavailableError
from datasources_agents.sandbox.jobs import Job, process_limits
from datasources_agents.sandbox.process import SandboxProcess
from datasources_agents.sandbox.seccomp import seccomp_program

_LAUNCHER, _SCRIPT, _LIBRARIES = "launch.py", "script.py", "lib"


class Sandlock:
    """Sandboxes of sandlock."""

    name = "sandlock"
    end_signal = signal.SIGTERM
    """Of the keeper, which then ends the others."""
    folders_in_memory: Sequence[str] = ()

    async def start(self, process: SandboxProcess, job: Job) -> None:
        spec = find_spec("sandlock")
        if spec is None or spec.origin is None:
            raise SandboxUnavailableError("sandlock is not installed: pip install 'sandlock<0.10'")
        packages = str(Path(spec.origin).parents[1])
        folder = process.folder = tempfile.mkdtemp(prefix="datasources-run-")
        await run_in_thread(_write_files, job, folder)
        await process.start(lambda status: _command(job, folder, packages, status), ())


def _write_files(job: Job, folder: str) -> None:
    """Write the files of a run, which are its user's: the keeper deletes them if the host cannot."""
    Path(folder, _LAUNCHER).write_bytes(Path(launch.__file__).read_bytes())
    Path(folder, _SCRIPT).write_bytes(job.code)
    for name, path in job.libraries.items():
        link = Path(folder, _LIBRARIES, name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    if job.user is not None:
        for above, _, names in os.walk(folder):
            for path in (above, *(os.path.join(above, name) for name in names)):
                os.chown(path, job.user, job.user, follow_symlinks=False)


def _command(job: Job, folder: str, packages: str, status: int) -> list[str]:
    limits = process_limits(job.limits)
    del limits["NPROC"]  # which would count every process of the user
    start_in = job.workspace or "/"
    launching = {
        "limits": limits,
        "user": None,
        "folder": start_in,
        "seccomp": seccomp_program(has_namespaces=False).hex(),
    }
    python = job.interpreter.executable
    command = [python, "-I", "-S", f"{folder}/{_LAUNCHER}", json.dumps(launching)]
    settings = {
        "packages": packages,
        "host": os.getpid(),
        "user": job.user,
        "folder": folder,
        "options": _options(job, folder),
        "command": [*command, python, f"{folder}/{_SCRIPT}", *job.arguments],
    }
    return [sys.executable, "-I", keeper.__file__, json.dumps(settings), str(status)]


def _options(job: Job, folder: str) -> dict[str, Any]:
    """Return the arguments of `sandlock.Sandbox`."""
    libraries = (os.path.realpath(path) for path in job.libraries.values())
    readable = [*job.interpreter.paths, *libraries, folder, "/dev/urandom", "/dev/zero"]
    writable = [path for path in (job.workspace, job.socket, "/dev/null") if path is not None]
    return {
        "fs_readable": readable,
        "fs_writable": writable,
        "cwd": job.workspace or "/",
        "clean_env": True,
        "env": job.variables(job.workspace or "/", job.socket or "", f"{folder}/{_LIBRARIES}"),
        "max_processes": job.limits.processes,
        "no_coredump": True,
    }
