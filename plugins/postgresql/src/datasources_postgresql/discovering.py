"""List the databases of a server, and the schemas of a database, before a source exists."""

from __future__ import annotations

from collections.abc import Callable

from datasources import PoolConfig
from datasources_postgresql.connections import LeasingPool
from datasources_postgresql.errors import mapped
from datasources_postgresql.libpq import execute_query
from datasources_postgresql.options import PostgreSQLOptions

_MOST = 1000  # names of each kind; more are no choice for a person
_DATABASES = b"""
SELECT datname FROM pg_catalog.pg_database
WHERE datallowconn AND NOT datistemplate AND pg_catalog.has_database_privilege(oid, 'CONNECT')
ORDER BY 1 LIMIT %s
"""
_SCHEMAS = b"""
SELECT nspname FROM pg_catalog.pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND pg_catalog.has_schema_privilege(oid, 'USAGE')
ORDER BY 1 LIMIT %s
"""


async def discover(
    options: PostgreSQLOptions, check_address: Callable[[str], None], *, schemas: bool
) -> dict[str, list[str]]:
    """Return the names of databases, and of schemas if the database is the one that was meant.

    Raises:
        ConnectError, AuthenticationError, PolicyError: As for connecting a source.
    """

    async def secret(name: str) -> str:
        text: str = getattr(options, name).get_secret_value()
        return text

    connection = await LeasingPool(options, PoolConfig(max_size=1), check_address, secret).connect()
    queries = {"database": _DATABASES} | ({"schemas": _SCHEMAS} if schemas else {})
    try:
        with mapped(options):
            return {
                name: [row[0] for row in await execute_query(connection, query, [_MOST])]
                for name, query in queries.items()
            }
    finally:
        await connection.close()
