"""Jobs fetch into workspaces while nobody waits; each worker of a server answers for all of them."""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from datasources import DataSourceRegistry, Record, StoreError
from datasources.stores import MemoryRecords
from datasources_server import workspaces
from datasources_server.job_records import JobRecords
from tests.conftest import new_database
from tests.server.client import HOST, Answer, Client
from tests.server.conftest import ApiServer
from tests.servers import Database, PostgresServer
from tests.waiting import wait_until_blocking

_numbers = itertools.count(1)

QUICK = "SELECT * FROM orders"
# Takes minutes, and is told from other queries by its comment.
SLOW = "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b /* slow */"


def running(database: Database) -> int:
    """Return how many slow queries run on the database's server."""
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'active' AND query LIKE '%/* slow */%' AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row
    return int(row[0])


def add_orders(database: Database) -> Database:
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 3) n")
    return database


@pytest.fixture
def shop(pg_database: Database) -> Database:
    """A database for workers that the test kills."""
    return add_orders(pg_database)


@pytest.fixture(scope="module")
def lasting_shop(postgres: PostgresServer) -> Iterator[Database]:
    """The database of `lasting`."""
    with new_database(postgres) as database:
        yield add_orders(database)


@contextmanager
def workers(
    shop: Database, store: str | None, die_at: int | None = None
) -> Iterator[tuple[ApiServer, ApiServer]]:
    """Two workers on one store, of which neither holds the other one for dead by itself."""
    with ApiServer(store=store, die_at=die_at, heartbeat_timeout=600.0, job_wait=1.0) as one:
        one.admin.create("shop", "postgresql", dsn=shop.dsn(), allow_privileged_role=True)
        with one.another_worker() as other:
            yield one, other


def make_heartbeats_old(server: ApiServer) -> None:
    """Let the heartbeats of all jobs be those of workers that died long ago."""
    store = DataSourceRegistry(store=server._environment()["STORE"]).store
    with closing(store):
        records = store.records()
        assert records is not None
        for lease in records.list("job-lease"):
            data = {**lease.data, "heartbeat": 0.0}
            records.put(replace(lease, data=data), expected=lease.version)


@pytest.fixture(scope="module")
def lasting(lasting_shop: Database) -> Iterator[tuple[ApiServer, ApiServer]]:
    """Two workers on a PostgreSQL store for the tests that let them live."""
    with workers(lasting_shop, lasting_shop.dsn()) as (one, other):
        yield one, other


@pytest.fixture
def two(
    lasting: tuple[ApiServer, ApiServer], lasting_shop: Database
) -> Iterator[tuple[ApiServer, ApiServer]]:
    """The workers of `lasting`, on which no query of another test runs."""
    wait_until_blocking(lambda: running(lasting_shop) == 0)
    yield lasting
    wait_until_blocking(lambda: running(lasting_shop) == 0)


@pytest.fixture
def mortal(shop: Database) -> Iterator[tuple[ApiServer, ApiServer]]:
    """Two workers on a PostgreSQL store for a test that ends one of them."""
    with workers(shop, shop.dsn()) as (one, other):
        yield one, other


@pytest.fixture
def either(request: pytest.FixtureRequest) -> Iterator[tuple[ApiServer, ApiServer]]:
    """Two workers on a store that is a file, or on one in a database, as the parameter says."""
    if request.param == "database":
        yield request.getfixturevalue("two")
    else:
        with workers(request.getfixturevalue("shop"), None) as (one, other):
            yield one, other


def as_user(server: ApiServer, kind: str = "ann") -> Client:
    """Return the client of a user whom no other test has."""
    return server.client(f"{kind}-{next(_numbers)}", ["shop", ["read", "query"]])


def on(server: ApiServer, client: Client) -> Client:
    """Return the client of the same user at another worker."""
    return Client(server.port, client.token)


def start(client: Client, *queries: str, workspace: str | None = None) -> tuple[str, str]:
    """Start a job; return its id and that of its workspace."""
    workspace = workspace or client("POST", "/workspaces", {"sources": ["shop"]}).json["id"]
    items = [{"source": "shop", "item": query} for query in queries]
    answer = client("POST", f"/workspaces/{workspace}/fetch", {"items": items, "wait": False})
    assert answer.status == 202, answer.body
    job = answer.json["id"]
    assert answer.headers["location"] == f"/v1/jobs/{job}"
    return job, str(workspace)


def ended(client: Client, job: str) -> dict[str, Any]:
    """Return a job when it has ended."""

    def has_ended() -> bool:
        return bool(client("GET", f"/jobs/{job}").json["state"] != "running")

    wait_until_blocking(has_ended)
    document: dict[str, Any] = client("GET", f"/jobs/{job}").json
    return document


def events(client: Client, job: str, last: int = 0) -> list[tuple[str, int | None, Any]]:
    """Return the events of a job up to its end: names, numbers and data."""
    headers = {"Authorization": f"Bearer {client.token}", "Last-Event-ID": str(last)}
    with closing(http.client.HTTPConnection(HOST, client.port, timeout=60)) as connection:
        connection.request("GET", f"/v1/jobs/{job}/events", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream"
        blocks = response.read().decode().split("\n\n")
    found = []
    for block in blocks:
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append((fields["event"], number, json.loads(fields["data"])))
    return found


def files(server: ApiServer, workspace: str) -> list[Path]:
    return [path for path in (server.workspaces / workspace).rglob("*") if path.is_file()]


@pytest.mark.parametrize("either", ["file", "database"], indirect=True)
def test_every_worker_answers_for_a_job(either: tuple[ApiServer, ApiServer]) -> None:
    one, other = either
    ann = as_user(one)
    there = on(other, ann)
    job, workspace = start(ann, QUICK)
    document = ended(there, job)
    assert (document["state"], document["problem"]) == ("finished", None)
    (receipt,) = document["receipts"]
    assert (receipt["rows"], receipt["source"]) == (3, "shop")
    fetched = there("GET", f"/workspaces/{workspace}/files/{receipt['path']}")
    assert fetched.body == b"id\n1\n2\n3\n"
    seen = events(there, job)
    assert [name for name, _, _ in seen if name != "progress"] == ["receipt", "end"]
    assert seen[-1] == ("end", None, document)
    # After the last number, only the end is left.
    numbers = [number for _, number, _ in seen if number is not None]
    assert events(ann, job, numbers[-1]) == seen[-1:]
    eve = one.client("eve", ["shop", ["read"]])
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        refused = eve(method, f"/jobs/{job}{path}")
        assert (refused.status, refused.slug) == (404, "job-not-found")
    assert ann("GET", f"/jobs/{'0' * 32}").slug == "job-not-found"


def test_jobs_of_the_caller_are_listed_page_by_page_the_newest_first(
    two: tuple[ApiServer, ApiServer],
) -> None:
    one, other = two
    ann = as_user(one)
    there = on(other, ann)
    first, workspace = start(ann, QUICK)
    started = [first]
    for _ in range(4):
        ended(ann, started[-1])
        started.append(start(ann, QUICK, workspace=workspace)[0])
    ended(ann, started[-1])
    listed, cursor = [], None
    while True:
        page = there("GET", "/jobs", limit=2, **({} if cursor is None else {"cursor": cursor})).json
        listed += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["items"]) == 2
    assert [job["id"] for job in listed] == started[::-1]
    assert listed[0] == ann("GET", f"/jobs/{started[-1]}").json
    eve = one.client("eve", ["shop", ["read"]])
    assert eve("GET", "/jobs").json == {"items": [], "next_cursor": None}
    first_page = ann("GET", "/jobs", limit=2).json
    assert eve("GET", "/jobs", cursor=first_page["next_cursor"]).slug == "cursor-invalid"


def test_administrators_see_and_cancel_the_jobs_of_everybody(
    two: tuple[ApiServer, ApiServer],
) -> None:
    one, other = two
    ann, bob = as_user(one), as_user(one, "bob")
    jobs = {client.token: start(client, SLOW)[0] for client in (ann, bob)}
    root = Client(other.port, "root")
    listed = root("GET", "/jobs").json["items"]
    running_jobs = [job for job in listed if job["state"] == "running"]
    assert {job["owner"]: job["id"] for job in running_jobs} == jobs
    assert [job["id"] for job in ann("GET", "/jobs").json["items"]] == [jobs[ann.token]]
    assert root("GET", f"/jobs/{jobs[bob.token]}").json["owner"] == bob.token
    for name, job in jobs.items():
        assert root("DELETE", f"/jobs/{job}").status == 202
        assert events(root, job)[-1][2]["state"] == "cancelled"
        assert ended(Client(one.port, name), job)["state"] == "cancelled"


@pytest.mark.parametrize("either", ["file", "database"], indirect=True)
def test_job_tells_its_items_from_the_start_and_its_record_does_not_show_them(
    either: tuple[ApiServer, ApiServer],
) -> None:
    one, other = either
    ann = as_user(one)
    long = f"SELECT '{'x' * 600}' AS text"
    job, _ = start(ann, SLOW, long, *[QUICK] * 9)
    document = on(other, ann)("GET", f"/jobs/{job}").json
    assert (document["state"], document["receipts"]) == ("running", [])
    assert document["item_count"] == 11
    assert len(document["items"]) == 10
    assert document["items"][0] == {"source": "shop", "item": SLOW, "format": None}
    assert document["items"][1]["item"] == f"{long[:500]}…"
    store = DataSourceRegistry(store=one._environment()["STORE"]).store
    records = store.records()
    assert records is not None
    record = records.get("job", job)
    store.close()
    assert record is not None
    assert "SELECT" not in json.dumps(record.data)
    ann("DELETE", f"/jobs/{job}")
    assert ended(ann, job)["state"] == "cancelled"


def test_job_that_another_worker_cancels_ends_and_its_query_too(
    two: tuple[ApiServer, ApiServer], lasting_shop: Database
) -> None:
    one, other = two
    ann = as_user(one)
    there = on(other, ann)
    job, workspace = start(ann, QUICK, SLOW)
    wait_until_blocking(lambda: running(lasting_shop) == 1)
    assert there("DELETE", f"/jobs/{job}").status == 202
    document = ended(there, job)
    assert (document["state"], document["receipts"]) == ("cancelled", [])
    assert document["problem"]["type"].endswith(":job-cancelled")
    wait_until_blocking(lambda: running(lasting_shop) == 0)
    assert files(one, workspace) == []
    assert there("DELETE", f"/jobs/{job}").status == 200  # it stays as it is


@pytest.mark.parametrize("point", ["begun", "in a query", "with a file"])
def test_job_of_a_killed_worker_is_lost_and_leaves_nothing(
    mortal: tuple[ApiServer, ApiServer], shop: Database, point: str
) -> None:
    one, other = mortal
    ann = as_user(one)
    there = on(other, ann)
    job, workspace = start(ann, *([QUICK] if point == "with a file" else []), SLOW)
    if point != "begun":
        wait_until_blocking(lambda: running(shop) == 1)
    one.kill()
    make_heartbeats_old(one)
    document = ended(there, job)
    assert (document["state"], document["receipts"]) == ("lost", [])
    assert document["problem"]["type"].endswith(":job-lost")
    assert events(there, job)[-1][0] == "end"
    wait_until_blocking(lambda: files(one, workspace) == [])
    wait_until_blocking(lambda: running(shop) == 0)
    again, _ = start(there, QUICK, workspace=workspace)  # the workspace is usable again
    assert ended(there, again)["state"] == "finished"


def test_a_principal_has_two_jobs_at_once_in_all_workers(
    two: tuple[ApiServer, ApiServer], lasting_shop: Database
) -> None:
    one, other = two
    ann = as_user(one)
    there = on(other, ann)
    jobs = [start(ann, SLOW)[0], start(there, SLOW)[0]]
    workspace = ann("POST", "/workspaces", {"sources": ["shop"]}).json["id"]
    body = {"items": [{"source": "shop", "item": QUICK}], "wait": False}
    for client in (ann, there):
        refused: Answer = client("POST", f"/workspaces/{workspace}/fetch", body)
        assert (refused.status, refused.slug) == (429, "too-many-jobs")
    for job in jobs:
        there("DELETE", f"/jobs/{job}")
        assert ended(ann, job)["state"] == "cancelled"
    wait_until_blocking(lambda: leases(lasting_shop) == 0)  # given up after the end is told
    assert ended(ann, start(ann, QUICK, workspace=workspace)[0])["state"] == "finished"


def test_job_ends_when_its_owner_may_not_go_on(
    two: tuple[ApiServer, ApiServer], lasting_shop: Database
) -> None:
    one, _ = two
    ann = as_user(one)
    job, _ = start(ann, SLOW)
    wait_until_blocking(lambda: running(lasting_shop) == 1)
    one.client(str(ann.token), ["shop", ["read"]])  # without the right `query`
    assert ended(ann, job)["state"] == "cancelled"
    wait_until_blocking(lambda: running(lasting_shop) == 0)


def test_server_that_ends_cancels_its_jobs(
    mortal: tuple[ApiServer, ApiServer], shop: Database
) -> None:
    one, other = mortal
    ann = as_user(one)
    job, _ = start(ann, SLOW)
    wait_until_blocking(lambda: running(shop) == 1)
    one._end(one.stop_signal)
    document = ended(on(other, ann), job)
    assert (document["state"], document["problem"]["detail"]) == (
        "cancelled",
        "the server was stopped",
    )
    wait_until_blocking(lambda: running(shop) == 0)


def test_client_that_waits_gets_the_job_if_it_takes_long(
    two: tuple[ApiServer, ApiServer],
) -> None:
    one, _ = two
    ann = as_user(one)
    workspace = ann("POST", "/workspaces", {"sources": ["shop"]}).json["id"]
    body = {"items": [{"source": "shop", "item": SLOW}]}
    answer = ann("POST", f"/workspaces/{workspace}/fetch", body)
    assert (answer.status, answer.json["state"]) == (202, "running")
    assert ann("DELETE", f"/workspaces/{workspace}").status == 204
    assert ended(ann, answer.json["id"])["state"] == "cancelled"
    wait_until_blocking(lambda: not (one.workspaces / workspace).exists())


def assert_job_is_neither_lost_nor_stuck(shop: Database, die_at: int) -> None:
    """Kill a worker at a point of a job's life; the other one ends the job, and goes on."""
    with workers(shop, shop.dsn(), die_at) as (one, other):
        ann = as_user(one)
        there = on(other, ann)
        workspace = there("POST", "/workspaces", {"sources": ["shop"]}).json["id"]
        begun, _ = start(there, "SELECT 0 AS before", workspace=workspace)
        assert ended(there, begun)["state"] == "finished"
        before = contents(one, workspace)
        items = [{"source": "shop", "item": query} for query in ("SELECT 0 AS before", QUICK)]
        body = {"items": items, "wait": False}
        job = None
        with suppress(OSError, http.client.HTTPException):  # killed before it has answered
            job = ann("POST", f"/workspaces/{workspace}/fetch", body).json["id"]
        wait_until_blocking(lambda: not one.running, timeout=90)
        make_heartbeats_old(one)
        if job is not None:
            assert ended(there, job)["state"] in ("finished", "lost")
        wait_until_blocking(lambda: leases(shop) == 0)
        after = contents(one, workspace)
        if job is None or ended(there, job)["state"] == "lost":
            assert after == before
        else:
            assert len(after) == 2
        again, _ = start(there, QUICK, workspace=workspace)
        assert ended(there, again)["state"] == "finished"
        # The folder of a job is deleted after its end is told.
        wait_until_blocking(lambda: folders(one) == [workspace])


def folders(server: ApiServer) -> list[str]:
    return [path.name for path in server.workspaces.iterdir() if path.name[0] != "."]


def contents(server: ApiServer, workspace: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files(server, workspace)}


def leases(store: Database) -> int:
    """Return how many jobs hold a place of their principals."""
    with psycopg.connect(store.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM datasources.records WHERE kind = 'job-lease'"
            " AND (expires_at IS NULL OR expires_at > extract(epoch FROM now()))"
        ).fetchone()
    assert row
    return int(row[0])


@pytest.mark.parametrize("die_at", [2, 6, 9, 11])
def test_worker_killed_at_a_point_of_a_job_leaves_it_neither_lost_nor_stuck(
    shop: Database, die_at: int
) -> None:
    assert_job_is_neither_lost_nor_stuck(shop, die_at)


@pytest.mark.soak
@pytest.mark.parametrize("die_at", range(1, 21))
def test_worker_killed_at_each_point_of_a_job_leaves_it_neither_lost_nor_stuck(
    shop: Database, die_at: int
) -> None:
    assert_job_is_neither_lost_nor_stuck(shop, die_at)


def test_job_goes_on_or_ends_when_the_database_of_its_store_is_restarted() -> None:
    """The connector repeats a read whose connection broke, so that the query may run once more."""
    with PostgresServer() as postgres:  # the one of all tests has the store of `lasting`
        shop = add_orders(postgres.at("postgres"))
        with workers(shop, shop.dsn()) as (one, other):
            ann = as_user(one)
            there = on(other, ann)
            job, workspace = start(ann, QUICK, SLOW)
            wait_until_blocking(lambda: running(shop) == 1)
            postgres.kill()
            postgres.start()

            def goes_on_or_has_ended() -> bool:
                answer = there("GET", f"/jobs/{job}")
                return answer.status == 200 and (
                    answer.json["state"] != "running" or running(shop) == 1
                )

            wait_until_blocking(goes_on_or_has_ended, timeout=60)
            there("DELETE", f"/jobs/{job}")
            assert ended(there, job)["state"] in ("cancelled", "failed", "lost")
            wait_until_blocking(lambda: running(shop) == 0)
            wait_until_blocking(lambda: files(one, workspace) == [])
            again, _ = start(there, QUICK, workspace=workspace)
            assert ended(there, again)["state"] == "finished"


def test_job_is_cancelled_through_the_other_worker_while_nobody_listens(
    two: tuple[ApiServer, ApiServer], lasting_shop: Database
) -> None:
    one, other = two
    ann = as_user(one)
    there = on(other, ann)
    workspace = there("POST", "/workspaces", {"sources": ["shop"]}).json["id"]
    job, _ = start(ann, SLOW, workspace=workspace)
    wait_until_blocking(lambda: running(lasting_shop) == 1)
    assert there("GET", f"/workspaces/{workspace}").status == 200
    assert there("GET", f"/jobs/{job}").json["state"] == "running"
    assert there("DELETE", f"/workspaces/{workspace}").status == 204
    wait_until_blocking(lambda: running(lasting_shop) == 0)
    assert ended(there, job)["state"] == "cancelled"
    wait_until_blocking(lambda: not (one.workspaces / workspace).exists())


def test_place_of_a_job_is_given_up_while_its_heartbeat_is_written() -> None:
    class RecordsWithHeartbeat(MemoryRecords):
        """Writes the heartbeat just before the place is given up."""

        def put(self, record: Record, *, expected: int | None = None) -> Record:
            if record.expires_at == 0.0 and not renewed:
                renewed.append(jobs.renew(lease))
            return super().put(record, expected=expected)

    renewed: list[Record | None] = []
    workspace = Record("workspace", "w", "ann", {})
    jobs = JobRecords(RecordsWithHeartbeat(), "worker", places=1, timeout=20.0)
    _, lease = jobs.add("one", workspace, "")
    jobs.release(lease)
    assert renewed
    assert jobs.add("two", workspace, "")  # in the only place


class FailingRecords(MemoryRecords):
    """Fails once to store a record of a kind; the record may be stored all the same."""

    def __init__(self, kind: str, *, stores: bool) -> None:
        super().__init__()
        self._kind: str | None = kind
        self._stores = stores

    def put(self, record: Record, *, expected: int | None = None) -> Record:
        if record.kind != self._kind:
            return super().put(record, expected=expected)
        self._kind = None
        if self._stores:
            super().put(record, expected=expected)
        raise StoreError("the store does not answer")


@pytest.mark.parametrize("stores", [False, True])
def test_a_job_or_workspace_that_cannot_be_stored_takes_no_place(stores: bool) -> None:
    workspace = Record("workspace", "w", "ann", {})
    records = FailingRecords("job", stores=stores)
    jobs = JobRecords(records, "worker", places=1, timeout=20.0)
    with pytest.raises(StoreError):
        jobs.add("one", workspace, "")
    assert records.get("job", "one") is None
    jobs.add("two", workspace, "")
    records = FailingRecords("workspace", stores=stores)
    with pytest.raises(StoreError):
        workspaces._put(records, workspace, 1)
    assert records.get("workspace", "w") is None
    workspaces._put(records, workspace, 1)
