"""Items are listed, described, previewed and downloaded, within the limits."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.server.client import HOST, Client
from tests.server.conftest import ApiServer
from tests.servers import Database
from tests.waiting import wait_until_blocking

# Counts for hours.
SLOW = "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b"
ORDERS = b"id,total\n1,9.5\n2,20\n3,7\n"


@pytest.fixture
def shop(server: ApiServer, new_id: str, pg_database: Database) -> str:
    """The id of a PostgreSQL source with a table of three rows."""
    source_id = f"{new_id}-shop"
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int, total float8, note bytea)")
        connection.execute(
            "INSERT INTO orders SELECT n, n / 2.0, '\\xff' FROM generate_series(1, 3) n"
        )
    server.admin.create(source_id, "postgresql", dsn=pg_database.dsn(), allow_privileged_role=True)
    return source_id


def running(database: Database) -> int:
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1, 100000)%'"
            " AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row
    return int(row[0])


def test_items_are_listed_in_pages(admin: Client, lake: str) -> None:
    first = admin("GET", f"/sources/{lake}/items", limit=1).json
    second = admin("GET", f"/sources/{lake}/items", limit=1, cursor=first["next_cursor"]).json
    paths = [item["path"] for page in (first, second) for item in page["items"]]
    assert paths == ["private/salaries.csv", "public/orders.csv"]
    assert admin("GET", f"/sources/{lake}/items", path="public/").json["items"][0]["size"] == 24
    assert admin("GET", f"/sources/{lake}/items", limit=201).slug == "request-invalid"
    forged = admin("GET", f"/sources/{lake}/items", cursor="x")
    assert (forged.status, forged.slug) == (422, "cursor-invalid")


def test_items_are_listed_by_pattern_in_pages(admin: Client, lake: str) -> None:
    first = admin("GET", f"/sources/{lake}/items", pattern="**.csv", limit=1).json
    second = admin(
        "GET", f"/sources/{lake}/items", pattern="**.csv", limit=1, cursor=first["next_cursor"]
    ).json
    assert [item["path"] for item in second["items"]] == ["public/orders.csv"]
    assert second["next_cursor"] is None


def test_table_is_described_previewed_and_measured(admin: Client, shop: str) -> None:
    item = {"item": "public.orders"}
    described = admin("POST", f"/sources/{shop}/describe", item).json["metadata"]
    assert [column["name"] for column in described["columns"]] == ["id", "total", "note"]
    preview = admin("POST", f"/sources/{shop}/preview", item | {"rows": 2}).json
    assert preview["rows"] == [[1, 0.5, "\\xff"], [2, 1.0, "\\xff"]]
    assert preview["truncated"] is True
    columns = admin("POST", f"/sources/{shop}/statistics", item).json["columns"]
    assert (columns["id"]["count"], columns["id"]["max"]) == (3, 3)


def test_stored_query_is_managed_by_administrators_and_run_by_readers(
    server: ApiServer, shop: str
) -> None:
    admin, reader = server.admin, server.client(f"reader-{shop}", [shop, ["read"]])
    query = {
        "text": "SELECT id, total FROM orders WHERE id <= :most ORDER BY id",
        "parameters": {"most": {"type": "integer"}},
    }
    version = admin("GET", f"/sources/{shop}").headers["etag"]
    stored = admin(
        "PATCH", f"/sources/{shop}", {"queries": {"first": query}}, headers={"If-Match": version}
    )
    assert stored.json["queries"]["first"]["text"] == query["text"]
    assert "queries" not in reader("GET", f"/sources/{shop}").json
    item = {"item": "query:first"}
    values = item | {"parameters": {"most": 2}}
    columns = reader("POST", f"/sources/{shop}/describe", item).json["metadata"]["columns"]
    assert [column["type"] for column in columns] == ["integer", "double precision"]
    assert reader("POST", f"/sources/{shop}/preview", values).json["rows"] == [[1, 0.5], [2, 1.0]]
    figures = reader("POST", f"/sources/{shop}/statistics", values).json["columns"]
    assert figures["id"]["max"] == 2
    content = b"id,total\n1,0.5\n2,1\n"
    link = reader("POST", "/links", {"source": shop, **values}).json["url"]
    assert Client(server.port, None)("GET", urlsplit(link).path, prefix="").body == content
    assert reader("POST", f"/sources/{shop}/content", values).body == content
    assert reader("POST", f"/sources/{shop}/content", values, stream="true").body == content
    workspace = reader("POST", "/workspaces", {"sources": [shop]}).json["id"]
    items = {"items": [{"source": shop, **values}]}
    (receipt,) = reader("POST", f"/workspaces/{workspace}/fetch", items).json["receipts"]
    assert reader("GET", f"/workspaces/{workspace}/files/{receipt['path']}").body == content
    for route in ("preview", "statistics", "content"):
        refused = reader("POST", f"/sources/{shop}/{route}", item | {"parameters": {"most": "x"}})
        assert (refused.status, refused.slug) == (422, "option-invalid")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("select ':day', :dya", "has :dya without a declaration; its parameters: day"),
        ("select ':day'", "does not use its parameters day; write :day, or remove them"),
    ],
)
def test_stored_query_with_other_parameters_than_it_declares_is_refused_at_its_text(
    admin: Client, shop: str, text: str, reason: str
) -> None:
    query = {"text": text, "parameters": {"day": {"type": "date"}}}
    answer = admin(
        "PATCH", f"/sources/{shop}", {"queries": {"daily": query}}, headers={"If-Match": "*"}
    )
    assert (answer.status, answer.slug) == (422, "option-invalid")
    assert answer.json["errors"] == [{"pointer": "#/queries/daily/text", "detail": reason}]
    assert admin("GET", f"/sources/{shop}").json["queries"] == {}


def test_query_needs_the_right(server: ApiServer, shop: str) -> None:
    query = {"item": "select 1 as one"}
    reader = server.client(f"reader-{shop}", [shop, ["read"]])
    asker = server.client(f"asker-{shop}", [shop, ["read", "query"]])
    refused = reader("POST", f"/sources/{shop}/preview", query)
    assert (refused.status, refused.slug) == (403, "not-allowed")
    assert asker("POST", f"/sources/{shop}/preview", query).json["rows"] == [[1]]


def test_preview_is_cut_at_its_bytes(admin: Client, shop: str) -> None:
    query = {"item": "select repeat('x', 100000) as wide from generate_series(1, 10)", "rows": 10}
    preview = admin("POST", f"/sources/{shop}/preview", query).json
    assert len(preview["rows"]) == 2
    assert preview["truncated"] is True
    assert "262144 bytes" in preview["notes"][-1]
    assert admin("POST", f"/sources/{shop}/preview", query | {"rows": 101}).status == 422


def test_content_comes_with_length_tag_and_receipt(admin: Client, lake: str) -> None:
    answer = admin("POST", f"/sources/{lake}/content", {"item": "public/orders.csv"})
    digest = hashlib.sha256(ORDERS).hexdigest()
    assert answer.body == ORDERS
    assert answer.headers["content-length"] == "24"
    assert answer.headers["etag"] == f'"{digest}"'
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''orders.csv"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    receipt = json.loads(answer.headers["datasources-receipt"])
    assert (receipt["size"], receipt["sha256"], receipt["truncated"]) == (24, digest, False)


@pytest.mark.parametrize(
    ("sent", "status", "content", "content_range"),
    [
        ("bytes=0-7", 206, ORDERS[:8], "bytes 0-7/24"),
        ("bytes=20-", 206, ORDERS[20:], "bytes 20-23/24"),
        ("bytes=-4", 206, ORDERS[-4:], "bytes 20-23/24"),
        ("bytes=0-999", 206, ORDERS, "bytes 0-23/24"),
        ("bytes=5-2", 200, ORDERS, None),
        ("bytes=0-1,3-4", 200, ORDERS, None),
        ("lines=0-1", 200, ORDERS, None),
    ],
)
def test_range_of_content(
    admin: Client, lake: str, sent: str, status: int, content: bytes, content_range: str | None
) -> None:
    body = {"item": "public/orders.csv"}
    answer = admin("POST", f"/sources/{lake}/content", body, headers={"Range": sent})
    assert (answer.status, answer.body) == (status, content)
    assert answer.headers["content-range"] == content_range


def test_range_after_the_end_is_416_and_of_another_content_is_ignored(
    admin: Client, lake: str
) -> None:
    path, body = f"/sources/{lake}/content", {"item": "public/orders.csv"}
    refused = admin("POST", path, body, headers={"Range": "bytes=24-"})
    assert (refused.status, refused.slug) == (416, "range-not-satisfiable")
    assert refused.headers["content-range"] == "bytes */24"
    headers = {"Range": "bytes=0-1", "If-Range": '"another"'}
    assert admin("POST", path, body, headers=headers).status == 200


def test_content_over_the_limit_is_413_without_a_byte_of_data(
    server: ApiServer, admin: Client, lake: str
) -> None:
    changes = {"limits": {"max_bytes": 10}}
    admin("PATCH", f"/sources/{lake}", changes, headers={"If-Match": "*"})
    answer = admin("POST", f"/sources/{lake}/content", {"item": "public/orders.csv"})
    assert (answer.status, answer.slug) == (413, "limit-exceeded")


def test_stream_brings_the_same_bytes(admin: Client, lake: str, shop: str) -> None:
    body = {"item": "public/orders.csv"}
    streamed = admin("POST", f"/sources/{lake}/content", body, stream=True)
    assert (streamed.status, streamed.body) == (200, ORDERS)
    table = {"item": "public.orders", "format": "csv"}
    fetched = admin("POST", f"/sources/{shop}/content", table)
    assert admin("POST", f"/sources/{shop}/content", table, stream=True).body == fetched.body


def test_stream_that_fails_ends_without_its_last_chunk(
    server: ApiServer, admin: Client, lake: str
) -> None:
    changes = {"limits": {"max_bytes": None}}
    admin("PATCH", f"/sources/{lake}", changes, headers={"If-Match": "*"})
    large = server.data / lake / "large.bin"
    with large.open("wb") as file:
        file.truncate(64 << 20)  # more than the sockets' buffers hold
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    headers = {"Authorization": "Bearer root", "Content-Type": "application/json"}
    path = f"/v1/sources/{lake}/content?stream=true"
    connection.request("POST", path, json.dumps({"item": "large.bin"}), headers)
    response = connection.getresponse()
    assert response.status == 200
    os.truncate(large, 1 << 20)
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_unknown_format_is_422_that_names_the_possible_ones(
    admin: Client, shop: str, lake: str
) -> None:
    for source, item, possible in (
        (shop, "public.orders", "csv, parquet"),
        (lake, "public/orders.csv", "none, items come as they are stored"),
    ):
        body = {"item": item, "format": "xlsx"}
        for stream in (False, True):
            answer = admin("POST", f"/sources/{source}/content", body, stream=stream)
            assert (answer.status, answer.slug) == (422, "option-invalid")
            assert answer.json["detail"] == (
                f"'xlsx' is not a format of this source; possible: {possible}"
            )


def test_query_that_fails_is_a_problem(admin: Client, shop: str) -> None:
    query = {"item": "select 1 / (20000 - n) from generate_series(1, 30000) n"}
    changes = {"limits": {"max_rows": None}}
    admin("PATCH", f"/sources/{shop}", changes, headers={"If-Match": "*"})
    for stream in (False, True):
        answer = admin("POST", f"/sources/{shop}/content", query, stream=stream)
        assert (answer.status, answer.slug) == (502, "fetch-failed")


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_ends_its_query(
    server: ApiServer, shop: str, pg_database: Database, stream: bool
) -> None:
    body = json.dumps({"item": SLOW}).encode()
    request = (
        f"POST /v1/sources/{shop}/content{'?stream=true' if stream else ''} HTTP/1.1\r\n"
        f"Host: localhost\r\nAuthorization: Bearer root\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.sendall(request + body)
        wait_until_blocking(lambda: running(pg_database) == 1)
    wait_until_blocking(lambda: running(pg_database) == 0)


def test_nothing_of_a_download_stays_on_the_disk(
    server: ApiServer, admin: Client, lake: str
) -> None:
    for item in ("public/orders.csv", "nothing.csv"):
        admin("POST", f"/sources/{lake}/content", {"item": item})
    # The last byte is sent before the directory is deleted.
    wait_until_blocking(lambda: not list(server.temporary.iterdir()))
    assert server.pid
    files = psutil.Process(server.pid).open_files()
    assert [file.path for file in files if file.path.startswith(str(server.temporary))] == []


def test_token_that_is_revoked_ends_what_it_has_started(
    server: ApiServer, shop: str, pg_database: Database
) -> None:
    client = server.client(f"leaver-{shop}", [shop, ["read", "query"]])
    body = json.dumps({"item": SLOW})
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    connection.request("POST", f"/v1/sources/{shop}/content", body, headers)
    wait_until_blocking(lambda: running(pg_database) == 1)
    del server.principals[f"leaver-{shop}"]
    server.write_principals()
    wait_until_blocking(lambda: running(pg_database) == 0)
    connection.close()
    assert client("GET", "/sources").status == 401
