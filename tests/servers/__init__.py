"""Real services for tests and the demo, started by the project's own files on loopback."""

from tests.servers.azurite import AzuriteServer
from tests.servers.postgres import Database, PostgresServer
from tests.servers.process import Server, ServerError, free_port

__all__ = [
    "AzuriteServer",
    "Database",
    "PostgresServer",
    "Server",
    "ServerError",
    "free_port",
]
