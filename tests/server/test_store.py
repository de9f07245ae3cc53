"""The server on a PostgreSQL store: it survives its store, and answers clearly meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.conftest import ApiServer
from tests.servers import Database, PostgresServer
from tests.waiting import wait_until_blocking


@pytest.fixture
def served(pg_database: Database) -> Iterator[ApiServer]:
    with ApiServer(store=pg_database.dsn()) as server:
        yield server


def test_sources_are_in_the_store_after_a_restart(served: ApiServer) -> None:
    created = served.admin.create("lake", path=str(served.data))
    served.restart()
    assert served.admin("GET", "/sources/lake").json == created.json


def test_store_that_goes_away_is_a_503_and_no_restart_is_needed(
    served: ApiServer, postgres: PostgresServer
) -> None:
    served.admin.create("lake", path=str(served.data))
    postgres.kill()
    body = {"type": "local_file", "options": {"path": str(served.data)}}
    headers = {"If-None-Match": "*"}
    refused = served.admin("PUT", "/sources/more", body, headers=headers)
    assert (refused.status, refused.slug) == (503, "store-failed")
    assert refused.headers["retry-after"] == "1"
    postgres.start()

    def stored() -> bool:
        return served.admin("PUT", "/sources/more", body, headers=headers).status == 201

    wait_until_blocking(stored)


def test_two_servers_on_one_store_see_each_others_sources(
    served: ApiServer, pg_database: Database
) -> None:
    with ApiServer(store=pg_database.dsn()) as other:
        other.key = served.key
        other.restart()
        created = served.admin.create("lake", "postgresql", dsn=pg_database.dsn())
        wait_until_blocking(lambda: other.admin("GET", "/sources/lake").status == 200)
        seen = other.admin("GET", "/sources/lake")
        assert seen.json["secrets"] == created.json["secrets"]
        condition = {"If-Match": seen.headers["etag"]}
        assert other.admin("PATCH", "/sources/lake", {"name": "B"}, headers=condition).status == 200
        late = served.admin("PATCH", "/sources/lake", {"name": "A"}, headers=condition)
        assert (late.status, late.slug) == (412, "conflict")
