"""A query ends on the server when the process that has sent it was killed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.postgresql.conftest import Admin, Source, active
from tests.waiting import wait_until

SLOW = "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b /* dead */"
SCRIPT = """
import asyncio, json, sys
from datasources import DataSourceConfig, Workspace
from datasources_postgresql import PostgreSQLConnector

async def main(options, folder, query):
    connector = PostgreSQLConnector(DataSourceConfig("s", "postgresql", "s", options))
    await connector.connect()
    await connector.fetch_data(query, Workspace(folder))

options, folder, query = sys.argv[1:]
asyncio.run(main(json.loads(options), folder, query))
"""


async def test_query_of_a_killed_client_ends(admin: Admin, source: Source, tmp_path: Path) -> None:
    connector = await source()

    options = json.dumps(connector.config.config)
    command = [sys.executable, "-c", SCRIPT, options, str(tmp_path), SLOW]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await wait_until(lambda: active(admin, "/* dead */") == 1)
    finally:
        process.kill()
        await process.wait()
    await wait_until(lambda: active(admin, "/* dead */") == 0)
