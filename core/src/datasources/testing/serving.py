"""Run a server in a process of its own, for fixtures of tests."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_PAUSE = 0.05  # seconds between two questions whether the server is ready
_STOP = 10.0  # seconds that a server has to end before it is killed
_LINES = 30  # of the log that an error shows, the last ones


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    """The port of 127.0.0.1 that the command was given."""
    pid: int
    """The id of its process, which leads a process group of the same id."""
    log: Path
    """The file with its standard output and its standard error."""


@contextmanager
def serve(
    command: Sequence[str | os.PathLike[str]],
    *,
    ready: Callable[[int], object] | None = None,
    timeout: float = 30.0,
    port: int | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a server and wait until it is ready; stop it and its children when the block ends.

    However the block ends, the server gets SIGTERM, and SIGKILL after 10 s.

    Args:
        command: The program and its arguments; `{port}` in them stands for the port.
        ready: Called with the port, again and again, until it returns something true; an error
            that it raises means not yet. Without it, the server is ready once the port accepts
            connections.
        timeout: Seconds that the server has until it is ready.
        port: The port to use; without it, a free one is chosen.
        cwd: The server's working directory; without it, that of this process.
        env: The server's environment; without it, that of this process.

    Raises:
        RuntimeError: The program cannot be started, ended, or was not ready in time; the message
            has the end of its log.
    """
    port = free_port() if port is None else port
    arguments = [os.fspath(part).replace("{port}", str(port)) for part in command]
    with tempfile.TemporaryDirectory(prefix="datasources-serve-") as folder:
        log = Path(folder, "log")
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    arguments,
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # so that children can be stopped with it
                )
        except OSError as exc:
            raise RuntimeError(f"the server {arguments[0]!r} cannot be started: {exc}") from exc
        try:
            _wait(process, port, ready or _accepts, timeout, log)
            yield Server(port, process.pid, log)
        finally:
            _stop(process)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on.

    It lies below 32768, from where Linux chooses the ports of outgoing connections: one of those
    could be taken by a client before the server listens on it.
    """
    for _ in range(200):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise RuntimeError(f"no port of {HOST} is free")


def _wait(
    process: subprocess.Popen[bytes],
    port: int,
    ready: Callable[[int], object],
    timeout: float,
    log: Path,
) -> None:
    deadline = time.monotonic() + timeout
    reason = ""
    while process.poll() is None:
        try:
            if ready(port):
                return
        except Exception as exc:  # noqa: BLE001  (clients have errors of many types; the last is shown)
            reason = f" ({exc!r})"
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server was not ready within {timeout:g} s{reason}{_end(log)}")
        time.sleep(_PAUSE)
    raise RuntimeError(f"the server ended with status {process.returncode}{_end(log)}")


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _end(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LINES:]
    return "; its log:\n" + "\n".join(lines) if lines else "; its log is empty"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and the rest of its group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP)
    # The group outlives its leader while a child is left; nobody else can have its id until then.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
