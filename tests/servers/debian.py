"""PostgreSQL 15 as Debian delivers it: with JIT, translations of its messages, and extensions.

Only the programs of the packages are used. Data directories, configuration, ports and processes
are those of `tests.servers.postgres`; a cluster that the machine has of its own is not touched.

`python -m tests.servers.debian` installs the packages that are missing, as root;
`python -m tests.servers.debian browser` installs Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerError
from tests.waiting import wait_until_blocking

INSTALL = Path("/usr/lib/postgresql/15")
GERMAN = "de_DE.UTF-8"
TRANSLATION = Path("/usr/share/locale/de/LC_MESSAGES/postgres-15.mo")
LOCALE_SOURCE = Path("/usr/share/i18n/locales/de_DE")
PGBOUNCER = Path("/usr/sbin/pgbouncer")
NGINX = Path("/usr/sbin/nginx")
SYSTEMD_ANALYZE = Path("/usr/bin/systemd-analyze")
JAVA = Path("/usr/bin/java")
CHROMIUM = Path("/usr/bin/chromium")
POSTGIS = INSTALL / "lib" / "postgis-3.so"

NEEDED: Mapping[Path, str] = {
    INSTALL / "bin" / "postgres": "postgresql-15",
    INSTALL / "lib" / "llvmjit.so": "postgresql-15",
    TRANSLATION: "postgresql-15",
    INSTALL / "bin" / "psql": "postgresql-client-15",
    POSTGIS: "postgresql-15-postgis-3",
    PGBOUNCER: "pgbouncer",
    NGINX: "nginx-light",
    SYSTEMD_ANALYZE: "systemd",
    JAVA: "openjdk-17-jre-headless",
    LOCALE_SOURCE: "locales",
}
"""The files that the servers need, and the package of each."""
BROWSER: Mapping[Path, str] = {
    CHROMIUM: "chromium",
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"): "fonts-dejavu-core",
}
"""The same for the browser in which the console is tested."""

_INSTALL_STEP = "as root on Debian 12, `python -m tests.servers.debian [browser]` installs it"
# Images of containers are set up to leave these files out of packages.
_INCLUDED = [str(TRANSLATION), "/usr/share/i18n/*"]
# Written while packages are installed, unless the machine has such a file.
_NOTHING_STARTS = {
    # Forbids the start of services: https://manpages.debian.org/bookworm/sysvinit-utils/invoke-rc.d
    Path("/usr/sbin/policy-rc.d"): "#!/bin/sh\nexit 101\n",
    Path("/etc/postgresql-common/createcluster.d/none.conf"): "create_main_cluster = false\n",
}


def require(*files: Path) -> None:
    """Raise if one of the files of `NEEDED` or `BROWSER` is not there.

    Raises:
        ServerError: A file is missing; the message names its package and the way to install it.
    """
    for file in files:
        if not file.exists():
            package = {**NEEDED, **BROWSER}[file]
            raise ServerError(f"{file} of the package {package} is missing: {_INSTALL_STEP}")


def install_missing(needed: Mapping[Path, str] = NEEDED) -> None:
    """Install the missing packages if this is root on a system with apt; say what stays missing."""
    packages = sorted({package for file, package in needed.items() if not file.exists()})
    if not packages:
        return
    names = ", ".join(packages)
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        print(f"not installed, for it takes root and apt-get: {names}")
        return
    options = [f"--option=Dpkg::Options::=--path-include={pattern}" for pattern in _INCLUDED]
    options += ["--option=DPkg::Lock::Timeout=120", "--yes", "--quiet"]
    # `--reinstall`: a package may be there without the files that were left out.
    install = ["apt-get", "install", "--reinstall", "--no-install-recommends", *options, *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        with _nothing_starts():
            for command in (["apt-get", "update", "--quiet"], install):
                subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        print(f"not installed, for apt-get failed: {names}")


@contextmanager
def _nothing_starts() -> Iterator[None]:
    """Keep packages from starting services and from creating a cluster while the block runs."""
    written = [path for path in _NOTHING_STARTS if not path.exists()]
    try:
        for path in written:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_NOTHING_STARTS[path])
            path.chmod(0o755)
        yield
    finally:
        for path in written:
            path.unlink(missing_ok=True)


class DebianPostgresServer(PostgresServer):
    """Debian's PostgreSQL 15, which writes enough to its log of changes to have standbys.

    Args:
        locale: The locale of the cluster and of the server's messages: `C.UTF-8`, as on a machine
            without a language, or `GERMAN`, which is made in the server's directory.
        settings: More settings of the server.
    """

    name = "postgres-debian"
    settings: ClassVar[Mapping[str, str]] = {"wal_level": "replica", "max_wal_senders": "10"}

    def __init__(self, locale: str = "C.UTF-8", settings: Mapping[str, str] | None = None) -> None:
        super().__init__({**self.settings, **(settings or {})})
        self.initdb_locale = [f"--locale={locale}"]
        self._locale = locale

    def _prepare(self) -> None:
        if self._locale == GERMAN:
            require(TRANSLATION, LOCALE_SOURCE)
            self._locales.mkdir(mode=0o755)
            source, encoding = GERMAN.split(".")
            subprocess.run(
                ["localedef", "-i", source, "-f", encoding, self._locales / GERMAN], check=True
            )
        super()._prepare()

    def _find_install(self) -> Path:
        require(INSTALL / "bin" / "postgres", INSTALL / "lib" / "llvmjit.so")
        return INSTALL

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        environment.pop("LANGUAGE", None)  # would choose the translation in place of lc_messages
        if self._locale == GERMAN:
            environment["LOCPATH"] = str(self._locales)
        # Messages to clients that have not logged in are written in this locale's encoding.
        return {**environment, "LC_ALL": self._locale}

    @property
    def _locales(self) -> Path:
        return self.directory / "locales"


class StandbyServer(DebianPostgresServer):
    """A hot standby: a copy of a running server that follows it and answers reads.

    What a read keeps the standby from applying waits half a second, then the read is cancelled.
    """

    name = "postgres-standby"
    settings: ClassVar[Mapping[str, str]] = {
        **DebianPostgresServer.settings,
        "max_standby_streaming_delay": "500ms",
    }

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__()
        self.password = primary.password
        self._primary = primary

    def _prepare(self) -> None:
        self._install = self._find_install()
        self._data.mkdir(mode=0o700)
        self._give(self._data)
        self._run(
            INSTALL / "bin" / "pg_basebackup",
            f"--pgdata={self._data}",
            f"--dbname={self._primary.dsn()}",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--write-recovery-conf",
            "--no-sync",
        )

    def catch_up(self) -> None:
        """Wait until the standby has applied what the primary has written by now."""
        import psycopg  # the servers of the demo need no driver

        with psycopg.connect(self._primary.dsn()) as primary:
            (position,) = primary.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ()
        with psycopg.connect(self.dsn(), autocommit=True) as standby:
            query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait_until_blocking(lambda: (standby.execute(query, [position]).fetchone() or ())[0])


if __name__ == "__main__":
    install_missing(BROWSER if sys.argv[1:] == ["browser"] else NEEDED)
