"""Splits are planned and read through the client, also by another process with the plan's token."""

from __future__ import annotations

import base64
import io
from collections import Counter

import psycopg
import pyarrow as pa
import pytest

from datasources_client import (
    Client,
    ConflictError,
    DataSourceError,
    ItemNotFoundError,
    OptionError,
    Plan,
    ResponseError,
)
from tests.client.scripted import Answer, ScriptedServer
from tests.server.conftest import ApiServer
from tests.servers import Database
from tests.waiting import wait_until_blocking

SPLIT = {"source_id": "shop"}


@pytest.fixture
def shop(client: Client, new_id: str, pg_database: Database) -> str:
    """The id of a PostgreSQL source with a table of three splits and one without rows."""
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i, repeat('x', 300) AS text FROM generate_series(1, 3000) i;"
            "CREATE TABLE empty (i int)"
        )
    options = {"dsn": pg_database.dsn(), "allow_privileged_role": True}
    client.create_source(f"{new_id}-shop", "postgresql", options)
    return f"{new_id}-shop"


def numbers(client: Client, plan: Plan) -> Counter[int]:
    """Return the values of the column `i` in all splits, each as often as it is there."""
    return Counter(
        number
        for split in plan.splits
        for batch in client.read_split(split, ["i"])
        for number in batch["i"].to_pylist()
    )


def refusal(client: Client, plan: Plan) -> str | None:
    """Return the slug of the error of reading a split; None if it can be read."""
    try:
        list(client.read_split(plan.splits[0]))
    except DataSourceError as exc:
        return exc.slug
    return None


def test_splits_are_read_until_the_block_ends(server: ApiServer, client: Client, shop: str) -> None:
    url = f"http://127.0.0.1:{server.port}"
    with client.plan(shop, "t", target_bytes=1, max_splits=3) as plan:
        assert len(plan.splits) == 3
        assert plan.consistent
        with Client(url, token=plan.token) as narrow:
            assert numbers(narrow, plan) == Counter(range(1, 3001))
            with pytest.raises(DataSourceError, match="valid token"):
                narrow.preview(shop, "t")
        assert numbers(client, plan) == Counter(range(1, 3001))
        assert plan.token not in repr(plan)
    # The server notices that the connection was closed.
    with Client(url, token=plan.token) as narrow:
        wait_until_blocking(lambda: refusal(narrow, plan) == "plan-ended")
    wait_until_blocking(lambda: refusal(client, plan) == "fetch-failed")


def test_split_is_read_as_bytes_of_arrow(client: Client, shop: str) -> None:
    with client.plan(shop, "t") as plan, client.open_split(plan.splits[0]) as content:
        table = pa.ipc.open_stream(b"".join(content)).read_all()
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(plan.schema)))
    assert table.schema == schema
    assert table.num_rows == 3000


def test_query_is_divided_by_its_key(client: Client, shop: str) -> None:
    query = "SELECT * FROM t WHERE i <= 10"
    with client.plan(shop, query, target_bytes=1, max_splits=3, key="i") as plan:
        assert len(plan.splits) == 3
        assert numbers(client, plan) == Counter(range(1, 11))


def test_split_without_rows_has_no_batch(client: Client, shop: str) -> None:
    with client.plan(shop, "empty") as plan:
        assert list(client.read_split(plan.splits[0])) == []


def test_errors_of_plans_and_splits(client: Client, shop: str) -> None:
    with pytest.raises(ItemNotFoundError), client.plan(shop, "nothing"):
        pass
    with client.plan(shop, "t") as plan, pytest.raises(ConflictError):
        next(client.read_split({**plan.splits[0], "index": 1}))
    with pytest.raises(OptionError, match="a split is one of"):
        client.open_split({})


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> Answer:
    """Return a response in chunks, after which the connection is closed."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    sizes = (b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return Answer(head + b"".join(sizes) + end, close=True)


def rows() -> bytes:
    batch = pa.record_batch({"i": [1, 2]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


@pytest.mark.parametrize("cut", [0, 8, 100])
def test_rows_that_are_cut_off_are_an_error(cut: int) -> None:
    """Also where only the last chunk is missing."""
    content = rows()
    broken = chunked(content[: len(content) - cut], end=b"")
    with (
        ScriptedServer(broken) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError, match="ended before it was complete"),
    ):
        list(client.read_split(SPLIT))


def test_rows_in_pieces_of_any_size_are_whole() -> None:
    content = rows()
    pieces = [content[first : first + 7] for first in range(0, len(content), 7)]
    with ScriptedServer(chunked(*pieces)) as server, Client(server.url) as client:
        (batch,) = client.read_split(SPLIT)
    assert batch["i"].to_pylist() == [1, 2]


@pytest.mark.parametrize("line", [b"", b"{}\n", b"[]\n", b'{"splits": 1}\n', b"{"])
def test_malformed_plan_is_an_error(line: bytes) -> None:
    with (
        ScriptedServer(chunked(*filter(None, [line]))) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError),
        client.plan("shop", "t"),
    ):
        pass
