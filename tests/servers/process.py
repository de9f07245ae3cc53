"""A server process that is always found again: start, stop, kill, leftovers.

Every server has a directory of its own under one state directory per user. Its owner holds a lock
on the directory, which the system drops however the owner ends; a directory whose lock is free is
a leftover, and whoever starts a server next stops its process, found by the recorded id and the
working directory, and removes it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

import psutil

from tests.waiting import wait_until_blocking

HOST = "127.0.0.1"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0


class ServerError(RuntimeError):
    """The server cannot be had or started here; the message says why."""


def free_port() -> int:
    """Return a port that nobody listens on.

    It lies below the range from which systems choose the ports of outgoing connections (32768 on
    Linux, 49152 elsewhere): a port of that range could be taken by a client while its server is
    being restarted, even by one that is trying to reach that server. Processes of pytest-xdist have
    ports of their own, which none of the others takes before a server listens or while it is down.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(200):
        port = random.randrange(15_000 + worker % 8, 32_000, 8)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise ServerError("no free port on the loopback address")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, across processes."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Server(ABC):
    """One server on a loopback port that stays the same from `start` to `stop`.

    Methods block; call them from `asyncio.to_thread` where an event loop runs. On Linux a server
    started from the main thread also ends with its owner, even one that is killed.
    """

    name: ClassVar[str]
    host = HOST
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        self._port: int | None = None
        self._directory: Path | None = None
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    @property
    def port(self) -> int:
        if self._port is None:
            raise ServerError(f"{self.name} was not started")
        return self._port

    @property
    def directory(self) -> Path:
        """Where the server keeps its files; removed by `stop`."""
        if self._directory is None:
            raise ServerError(f"{self.name} was not started")
        return self._directory

    @property
    def pid(self) -> int | None:
        """The server's process id, `None` while it is down."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers; after `kill`, on the same port and data."""
        if self.running:
            return self
        first = self._directory is None
        try:
            if first:
                self._directory, self._lock = _new_directory(self.name, reap=self._reap)
                self._port = free_port()
                self._owner = os.getpid()
                atexit.register(self._stop_at_exit)
                self._prepare()
            self._launch()
        except BaseException as exc:
            message = f"{self.name} did not start: {exc}{self._log_tail()}"
            if first:
                self.stop()
            else:
                self.kill()
            if isinstance(exc, (OSError, subprocess.SubprocessError, ServerError)):
                raise ServerError(message) from exc
            raise
        return self

    def stop(self) -> None:
        """End the server in its own good way and remove its data; harmless when repeated."""
        self._end(self.stop_signal)
        atexit.unregister(self._stop_at_exit)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        self._directory = self._lock = self._port = None

    def kill(self) -> None:
        """SIGKILL the server and its children; `start` or `restart` brings it back."""
        if self._process is not None:
            if self.running:
                kill_tree(psutil.Process(self._process.pid))
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """End the server if it runs and start it again on the same port and data."""
        self._end(self.stop_signal)
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a forked child
            self.stop()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        self.kill()

    def _launch(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._wrapped(self._command(), self.directory / "pid"),
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt at the terminal is not for the server
            )
        wait_until_blocking(lambda: not self.running or self._ready(), timeout=START_TIMEOUT)
        if self._process.poll() is not None:
            raise ServerError(f"it ended with status {self._process.returncode}")

    def _wrapped(self, command: Sequence[str | Path], pid_file: Path) -> list[str]:
        # The death signal is sent when the starting *thread* ends, so only the main one may ask.
        main = threading.current_thread() is threading.main_thread()
        return [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).with_name("_exec.py")),
            str(pid_file),
            str(self._uid()),
            str(os.getpid() if main else 0),
            str(int(self.death_signal)),
            *map(str, command),
        ]

    def _log_tail(self) -> str:
        with suppress(OSError, ServerError):
            lines = (self.directory / "log").read_text(errors="replace").splitlines()
            if lines:
                return "\n" + "\n".join(lines[-15:])
        return ""

    def _uid(self) -> int:
        """The user the server runs as; -1 is the present one."""
        return -1

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the first start needs."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """Return the program, by its full path, and its arguments."""

    def _ready(self) -> bool:
        return accepts(self.port)

    @staticmethod
    def _reap(directory: Path) -> bool:
        """Kill the process that a dead owner left in `directory`; say whether there was one."""
        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((directory / "pid").read_text()))
            # A process id may be in use again by something else; a working directory is not.
            if Path(process.cwd()).is_relative_to(directory):
                kill_tree(process)
                return True
        return False


def accepts(port: int) -> bool:
    """Say whether something listens on `port`."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def kill_tree(process: psutil.Process) -> None:
    """SIGKILL a process and its descendants and wait until all are gone."""
    with suppress(psutil.NoSuchProcess):
        process.suspend()  # no new child between looking and killing
        family = [*process.children(recursive=True), process]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        wait_until_blocking(lambda: not any(map(alive, family)), timeout=START_TIMEOUT)


def alive(process: psutil.Process) -> bool:
    """Say whether a process still runs; one that only waits to be collected does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def state_directory() -> Path:
    """Return the directory under which this user's servers keep theirs, made if missing."""
    base = Path(tempfile.gettempdir())
    if os.getuid() == 0 and not open_to_all(base):
        base = Path("/tmp")  # the server's own user must get there
    state = base / f"datasources-servers-{os.getuid()}"
    state.mkdir(mode=0o711, exist_ok=True)
    status = state.lstat()
    if status.st_uid != os.getuid() or state.is_symlink():
        raise ServerError(f"{state} belongs to somebody else; set TMPDIR to another directory")
    state.chmod(0o711)
    return state.resolve()


def open_to_all(directory: Path) -> bool:
    """Say whether every user can reach what lies in `directory`."""
    return all(path.stat().st_mode & 0o001 for path in (directory, *directory.resolve().parents))


def _new_directory(name: str, *, reap: Callable[[Path], object]) -> tuple[Path, int]:
    """Remove leftovers of this kind of server; return a new directory and the lock held on it."""
    state = state_directory()
    with locked(state / ".lock"):
        for old in state.glob(f"{name}-*"):
            lock = _try_lock(old)
            if lock is not None:
                reap(old)
                shutil.rmtree(old, ignore_errors=True)
                os.close(lock)
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=state))
        directory.chmod(0o711)
        lock = _try_lock(directory)
    assert lock is not None
    return directory, lock


def _try_lock(directory: Path) -> int | None:
    """Return a descriptor that holds the lock of `directory`, or `None` while its owner lives."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:  # its owner removed it this moment
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
