"""PgBouncer from Debian's package, in front of a PostgreSQL server."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.servers.debian import PGBOUNCER, require
from tests.servers.postgres import Database, PostgresServer
from tests.servers.process import HOST, Server


class PgBouncerServer(Server):
    """A pooler that shares a few sessions of one server among many clients.

    Args:
        server: The running server behind.
        passwords: By role, the roles that may log in beside the superuser.
        pool_mode: `transaction` or `statement`.
        pool_size: Sessions on the server, for each pair of role and database.
    """

    name = "pgbouncer"

    def __init__(
        self,
        server: PostgresServer,
        passwords: Mapping[str, str],
        *,
        pool_mode: str = "transaction",
        pool_size: int = 2,
    ) -> None:
        super().__init__()
        self._server = server
        self._passwords = {server.user: server.password, **passwords}
        self._settings = {
            "pool_mode": pool_mode,
            "default_pool_size": str(pool_size),
            "max_client_conn": "200",
            "listen_addr": HOST,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
        }

    def dsn(self, database: str | None = None) -> str:
        """Return the superuser's connection URL for `database`, by default `postgres`."""
        return self.at(database or self._server.database).dsn()

    def at(self, database: str) -> Database:
        """Return the superuser's way into `database` through the pooler."""
        return replace(self._server.at(database), port=self.port)

    def _uid(self) -> int:
        # PgBouncer refuses root, as PostgreSQL does.
        return pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else -1

    def _prepare(self) -> None:
        require(PGBOUNCER)
        users = self.directory / "users.txt"
        settings = {**self._settings, "listen_port": str(self.port), "auth_file": str(users)}
        lines = [
            "[databases]",
            f"* = host={self._server.host} port={self._server.port}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        self._write(self._configuration, lines)
        self._write(users, [f'"{role}" "{word}"' for role, word in self._passwords.items()])

    def _command(self) -> Sequence[str | Path]:
        return [PGBOUNCER, self._configuration]

    @property
    def _configuration(self) -> Path:
        return self.directory / "pgbouncer.ini"

    def _write(self, path: Path, lines: Sequence[str]) -> None:
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        if self._uid() >= 0:
            os.chown(path, self._uid(), -1)
