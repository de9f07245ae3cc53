"""Plans of splits live as long as their response, and their tokens read their splits only."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pyarrow as pa
import pytest

from datasources import (
    DataSourceConfig,
    DataSourceRegistry,
    PoolClosedError,
    Principal,
    Record,
    SQLiteStore,
)
from datasources_server import ServerSettings, create_app, splits
from datasources_server.calls import Api, Call
from tests.server.client import HOST, Answer, Client
from tests.server.conftest import ApiServer
from tests.servers import Database
from tests.waiting import wait_until_blocking

SIX = {"target_bytes": 1, "max_splits": 6}
ROWS = Counter({(number, "x" * 300): 1 for number in range(1, 3001)})


class NoPlanError(AssertionError):
    """The server has refused to plan."""


class OpenPlan:
    """A plan whose response is open."""

    def __init__(self, port: int, token: str, source_id: str, body: dict[str, Any]) -> None:
        self.connection = http.client.HTTPConnection(HOST, port, timeout=30)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        path = f"/v1/sources/{source_id}/plan"
        self.connection.request("POST", path, json.dumps(body), headers)
        self.response = self.connection.getresponse()
        if self.response.status != 200:
            with closing(self.connection):
                raise NoPlanError(self.response.read())
        self.described = self.line()
        self.splits: list[dict[str, Any]] = self.described["splits"]
        self.narrow = Client(port, self.described["token"])

    def line(self) -> Any:
        return json.loads(self.response.readline())

    def read(self, split: dict[str, Any], client: Client | None = None, **fields: Any) -> Answer:
        path = f"/sources/{split['source_id']}/splits"
        return (client or self.narrow)("POST", path, {"split": split} | fields)


@contextmanager
def planned(client: Client, source_id: str, item: str, **fields: Any) -> Iterator[OpenPlan]:
    """Have a plan for a block, at whose end its connection is closed."""
    assert client.token
    plan = OpenPlan(client.port, client.token, source_id, {"item": item} | fields)
    try:
        yield plan
    finally:
        plan.connection.close()
        plan.response.close()


def rows_of(answer: Answer) -> Counter[tuple[Any, ...]]:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.body).read_all()
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.fixture
def shop(server: ApiServer, new_id: str, pg_database: Database) -> str:
    """The id of a PostgreSQL source with a table of six splits."""
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i, repeat('x', 300) AS text FROM generate_series(1, 3000) i"
        )
    source_id = f"{new_id}-shop"
    server.admin.create(source_id, "postgresql", dsn=pg_database.dsn(), allow_privileged_role=True)
    return source_id


@pytest.fixture
def reader(server: ApiServer, shop: str) -> Client:
    return server.client(f"reader-{shop}", [shop, ["read"]])


def plans_open(database: Database) -> int:
    """Return how many transactions of plans wait for their splits to be read."""
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'idle in transaction'"
        ).fetchone()
    assert row
    return int(row[0])


def records_of(server: ApiServer, owner: str | None) -> list[Record]:
    with closing(SQLiteStore(server.directory / "sources.db")) as store:
        return store.records().list("plan", owner=owner)


def test_splits_are_the_table_as_it_was_planned(
    reader: Client, shop: str, pg_database: Database
) -> None:
    with planned(reader, shop, "t", **SIX) as plan:
        with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
            connection.execute("INSERT INTO t SELECT * FROM t; DELETE FROM t WHERE i % 2 = 0")
        assert len(plan.splits) == 6
        assert sum(map(rows_of, map(plan.read, plan.splits)), Counter()) == ROWS
        # The ordinary token of the principal reads them, too.
        assert rows_of(plan.read(plan.splits[0], reader)) == rows_of(plan.read(plan.splits[0]))
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(plan.described["schema"])))
    assert schema == pa.schema({"i": pa.int32(), "text": pa.string()})
    assert plan.described["consistent"] is True
    assert plan.described["concurrency"] == 9


def test_every_worker_reads_the_splits_until_the_source_is_configured_anew(
    server: ApiServer, reader: Client, shop: str
) -> None:
    with server.another_worker() as other, planned(reader, shop, "t", **SIX) as plan:
        narrow = Client(other.port, plan.narrow.token)
        read = [rows_of(plan.read(split, narrow)) for split in plan.splits]
        assert sum(read, Counter()) == ROWS
        change = {"options": {"statement_timeout": 77}}
        other_admin = Client(other.port, "root")
        changed = other_admin("PATCH", f"/sources/{shop}", change, headers={"If-Match": "*"})
        assert changed.status == 200
        for client in (narrow, plan.narrow):
            refused = plan.read(plan.splits[0], client)
            assert (refused.status, refused.slug) == (409, "conflict")


def test_splits_are_read_one_after_the_other_with_one_connection(pg_database: Database) -> None:
    with (
        ApiServer(connections={"max_size": 1, "acquire_timeout": 1}) as server,
        psycopg.connect(pg_database.dsn(), autocommit=True) as connection,
    ):
        connection.execute(
            "CREATE TABLE t AS SELECT i, repeat('x', 300) AS text FROM generate_series(1, 3000) i"
        )
        server.admin.create("shop", "postgresql", dsn=pg_database.dsn(), allow_privileged_role=True)
        reader = server.client("reader", ["shop", ["read"]])
        with planned(reader, "shop", "t", **SIX) as plan, ThreadPoolExecutor(6) as threads:
            assert plan.described["concurrency"] == 1
            assert sum(map(rows_of, threads.map(plan.read, plan.splits)), Counter()) == ROWS


def test_columns_are_those_asked_for(reader: Client, shop: str) -> None:
    with planned(reader, shop, "t") as plan:
        assert rows_of(plan.read(plan.splits[0], columns=["i"])).total() == 3000
        refused = plan.read(plan.splits[0], columns=["x"])
    assert (refused.status, refused.slug) == (422, "option-invalid")


def test_split_without_rows_has_no_byte(reader: Client, shop: str, pg_database: Database) -> None:
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE empty (i int)")
    with planned(reader, shop, "empty") as plan:
        answer = plan.read(plan.splits[0])
    assert (answer.status, answer.body) == (200, b"")


def test_client_that_leaves_ends_its_plan(
    server: ApiServer, reader: Client, shop: str, pg_database: Database
) -> None:
    with planned(reader, shop, "t", **SIX) as plan:
        assert plans_open(pg_database) == 1
        assert plan.read(plan.splits[0]).status == 200
    wait_until_blocking(lambda: plans_open(pg_database) == 0)
    assert records_of(server, reader.token) == []
    ended = plan.read(plan.splits[0])
    assert (ended.status, ended.slug) == (401, "plan-ended")
    late = plan.read(plan.splits[0], reader)
    assert (late.status, late.slug) == (502, "fetch-failed")


def test_token_of_a_plan_of_files_ends_with_it(server: ApiServer, lake: str) -> None:
    owner = server.client(f"planner-{lake}", [lake, ["read"]])
    with planned(owner, lake, "public/*.csv") as plan:
        assert rows_of(plan.read(plan.splits[0])).total() == 3
        (record,) = records_of(server, owner.token)
    wait_until_blocking(lambda: not records_of(server, owner.token))
    assert plan.read(plan.splits[0]).slug == "plan-ended"
    assert str(plan.narrow.token) not in repr(record)
    assert "orders.csv" not in repr(record)


def test_plan_ends_at_its_age_and_says_so(reader: Client, shop: str, pg_database: Database) -> None:
    with planned(reader, shop, "t"):
        pass  # the first plan takes longer, as the server imports pyarrow
    with ExitStack() as stack:
        try:
            plan = stack.enter_context(planned(reader, shop, "t", **SIX, max_age=2))
        except NoPlanError:  # it has ended while it was made
            plan = stack.enter_context(planned(reader, shop, "t", **SIX, max_age=20))
        problem = next(line for line in iter(plan.line, None) if line)  # not a heartbeat
        assert problem["type"] == "urn:datasources:error:limit-exceeded"
        assert problem["status"] == 413
        assert plan.response.read() == b""
        wait_until_blocking(lambda: plans_open(pg_database) == 0)
        assert plan.read(plan.splits[0]).slug == "plan-ended"
    too_long = reader("POST", f"/sources/{shop}/plan", {"item": "t", "max_age": 3601})
    assert (too_long.status, too_long.slug) == (422, "request-invalid")


def test_plan_that_cannot_be_made_is_a_problem(reader: Client, admin: Client, shop: str) -> None:
    for body, status, slug in (
        ({"item": "nothing"}, 404, "item-not-found"),
        ({"item": "SELECT 1"}, 403, "not-allowed"),
        ({"item": "t", "max_splits": 0}, 422, "request-invalid"),
        ({"item": "t", "target_bytes": "1"}, 422, "request-invalid"),
        ({"item": "t", "max_age": 0}, 422, "request-invalid"),
    ):
        refused = reader("POST", f"/sources/{shop}/plan", body)
        assert (refused.status, refused.slug) == (status, slug)
    key = {"item": "SELECT * FROM t", "key": "\ud800"}
    refused = admin("POST", f"/sources/{shop}/plan", key)
    assert (refused.status, refused.slug) == (422, "option-invalid")


def test_token_of_a_plan_opens_its_splits_and_nothing_else(
    server: ApiServer, shop: str, lake: str
) -> None:
    both = server.client(f"both-{shop}", [shop, ["read"]], [lake, ["read"]])
    with (
        planned(both, shop, "t", **SIX) as plan,
        planned(both, shop, "t", **SIX) as later,
        planned(both, lake, "public/orders.csv") as files,
        planned(both, lake, "private/salaries.csv") as others,
    ):
        item = {"item": "t"}
        for method, path, body in (
            ("GET", "/me", None),
            ("GET", "/sources", None),
            ("GET", f"/sources/{shop}/items", None),
            ("POST", f"/sources/{shop}/describe", item),
            ("POST", f"/sources/{shop}/preview", item),
            ("POST", f"/sources/{shop}/content", item),
            ("POST", f"/sources/{shop}/plan", item),
            ("POST", "/links", {"source": shop} | item),
        ):
            refused = plan.narrow(method, path, body)
            assert (refused.status, refused.slug) == (401, "not-authenticated"), path
        assert files.read(others.splits[0]).slug == "not-allowed"
        assert plan.read(later.splits[0]).slug == "not-allowed"
        assert plan.read(files.splits[0]).slug == "not-authenticated"
        moved = {"split": files.splits[0]}
        refused = plan.narrow("POST", f"/sources/{shop}/splits", moved)
        assert (refused.status, refused.slug) == (422, "request-invalid")
        assert rows_of(files.read(files.splits[0])).total() == 3


@pytest.mark.parametrize(
    "change",
    [{"identifier": "u"}, {"part": {}}, {"index": 1}, {"snapshot": None}, {"estimated_rows": 1}],
)
def test_split_that_was_changed_is_refused(
    reader: Client, shop: str, change: dict[str, Any]
) -> None:
    with planned(reader, shop, "t", **SIX) as plan:
        for client in (plan.narrow, reader):
            refused = plan.read(plan.splits[0] | change, client)
            assert (refused.status, refused.slug) == (409, "conflict")


def test_principal_without_the_grant_any_more_reads_no_split(
    server: ApiServer, admin: Client, reader: Client, shop: str
) -> None:
    with planned(reader, shop, "t", **SIX) as plan:
        server.principals[str(reader.token)]["grants"] = [[shop, ["read"], ["public.other"]]]
        server.write_principals()
        refused = plan.read(plan.splits[0])
        assert (refused.status, refused.slug) == (403, "not-allowed")
        server.principals[str(reader.token)]["grants"] = []
        server.write_principals()
        assert plan.read(plan.splits[0]).slug == "source-not-found"
    query: dict[str, Any] = {"user": reader.token, "operation": "fetch"}
    wait_until_blocking(lambda: len(admin("GET", "/audit", **query).json["items"]) == 2)
    refused_items = admin("GET", "/audit", **query).json["items"]
    assert [entry["identifier"] for entry in refused_items] == ["t", "t"]


def test_token_that_is_revoked_ends_its_plans_and_their_tokens(
    server: ApiServer, reader: Client, shop: str, pg_database: Database
) -> None:
    with planned(reader, shop, "t", **SIX) as plan:
        del server.principals[str(reader.token)]
        server.write_principals()
        assert plan.read(plan.splits[0]).slug == "plan-ended"
        with pytest.raises(http.client.IncompleteRead):
            plan.response.read()
    wait_until_blocking(lambda: plans_open(pg_database) == 0)


def test_principal_has_four_plans_at_once(reader: Client, admin: Client, shop: str) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(planned(reader, shop, "t"))
        refused = reader("POST", f"/sources/{shop}/plan", {"item": "t"})
        assert (refused.status, refused.slug) == (429, "too-many-plans")
        stack.enter_context(planned(admin, shop, "t"))


@pytest.mark.parametrize(
    "limits", [{"max_rows": 100}, {"max_bytes": 1000}, {"timeout": 0.0001}], ids=str
)
def test_split_is_read_within_the_limits_of_a_fetch(
    admin: Client, reader: Client, shop: str, limits: dict[str, Any]
) -> None:
    changes = {"limits": limits}
    admin("PATCH", f"/sources/{shop}", changes, headers={"If-Match": "*"})
    with planned(reader, shop, "t", **SIX) as plan:
        refused = plan.read(plan.splits[0])
    assert (refused.status, refused.slug) == (413, "limit-exceeded")


def ended_reads(admin: Client) -> float:
    """Return how many responses with rows of splits have ended."""
    figures = admin("GET", "/metrics", prefix="").body.decode()
    return sum(
        float(line.rpartition(" ")[2])
        for line in figures.splitlines()
        if "/splits" in line and "_bucket" not in line and "_sum" not in line
    )


def test_end_of_a_plan_ends_its_readers(server: ApiServer, admin: Client, lake: str) -> None:
    changes = {"limits": {"max_rows": None}}
    admin("PATCH", f"/sources/{lake}", changes, headers={"If-Match": "*"})
    # More than the buffers of the sockets hold.
    (server.data / lake / "large.csv").write_text("text\n" + f"{'x' * 999}\n" * 40_000)
    with planned(admin, lake, "large.csv") as plan:
        (split,) = plan.splits
        connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
        connection.request(
            "POST",
            f"/v1/sources/{lake}/splits",
            json.dumps({"split": split}),
            {"Authorization": f"Bearer {plan.narrow.token}", "Content-Type": "application/json"},
        )
        response = connection.getresponse()
        assert response.status == 200
        ended = ended_reads(admin)
    wait_until_blocking(lambda: ended_reads(admin) > ended)
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_plans_and_readers_are_in_the_audit_trail(admin: Client, reader: Client, shop: str) -> None:
    with planned(reader, shop, "t", **SIX) as plan:
        assert plan.read(plan.splits[0]).status == 200

    def entries(operation: str) -> Any:
        query: dict[str, Any] = {"user": reader.token, "source": shop, "operation": operation}
        return admin("GET", "/audit", **query).json["items"]

    wait_until_blocking(lambda: entries("plan") and entries("read_split"))


async def test_lines_go_on_while_the_plan_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_HEARTBEAT_SECONDS", 0)
    api = Api(DataSourceRegistry(), lambda _: None, ServerSettings())
    root = Principal("root", roles={"admin"})
    call = Call(api, root, api.registry.access(root), "id")
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        await failing

    holding = asyncio.create_task(hold())
    lines = splits._lines(call, b"plan\n", holding)
    assert [await anext(lines) for _ in range(3)] == [b"plan\n", b"{}\n", b"{}\n"]
    failing.set_exception(PoolClosedError("the source was closed"))
    await asyncio.gather(holding, return_exceptions=True)
    (last,) = [json.loads(line) async for line in lines]
    assert last["detail"] == "the source was closed"


def test_read_that_fails_ends_without_its_last_chunk(
    server: ApiServer, admin: Client, lake: str
) -> None:
    changes = {"limits": {"max_rows": None, "max_bytes": 6_000_000}}
    admin("PATCH", f"/sources/{lake}", changes, headers={"If-Match": "*"})
    (server.data / lake / "large.csv").write_text("text\n" + f"{'x' * 999}\n" * 9000)
    with planned(admin, lake, "large.csv") as plan:
        assert len(plan.splits) == 1
        with pytest.raises(http.client.IncompleteRead) as broken:
            plan.read(plan.splits[0])
    assert 0 < len(broken.value.partial) < 6_000_000


async def test_host_that_cannot_name_principals_has_no_plans(tmp_path: Path) -> None:
    root = Principal("root", roles={"admin"})
    async with DataSourceRegistry() as registry:
        config = DataSourceConfig("lake", "local_file", "Lake", {"path": str(tmp_path)})
        await registry.register_data_source(config)
        transport = httpx2.ASGITransport(create_app(registry, authenticate=lambda _: root))
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost/v1"
        ) as client:
            refused = await client.post("/sources/lake/plan", json={"item": "a.csv"})
    assert refused.status_code == 501
    assert "find_principal" in refused.json()["detail"]
