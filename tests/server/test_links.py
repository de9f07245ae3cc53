"""Links are used once, within a minute, by whoever has them; receipts are asked for afterwards."""

from __future__ import annotations

import http.client
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from datasources import DataSourceConfig, DataSourceRegistry, Principal, Record, SQLiteStore
from datasources.stores import MemoryRecords
from datasources_server import create_app, links
from datasources_server.problems import Problem
from tests.server.client import HOST, Answer, Client
from tests.server.conftest import ApiServer

ORDERS = b"id,total\n1,9.5\n2,20\n3,7\n"
ITEM = "public/orders.csv"


def make(client: Client, source_id: str, item: str = ITEM, **fields: Any) -> str:
    """Make a link and return its path."""
    answer = client("POST", "/links", {"source": source_id, "item": item} | fields)
    assert answer.status == 201, answer.body
    return urlsplit(answer.json["url"]).path


def use(server: ApiServer, path: str, **headers: str) -> Answer:
    return Client(server.port, None)("GET", path, prefix="", headers=headers)


@pytest.fixture
def reader(server: ApiServer, lake: str) -> Client:
    return server.client(f"linker-{lake}", [lake, ["read"], ["public/*"]])


def test_link_brings_the_content_once_and_without_a_token(
    server: ApiServer, reader: Client, lake: str
) -> None:
    made = reader("POST", "/links", {"source": lake, "item": ITEM}).json
    assert made["url"].startswith(f"http://{HOST}:{server.port}/v1/links/")
    assert made["max_rows"] == 10_000
    path = urlsplit(made["url"]).path
    answer = use(server, path)
    assert (answer.status, answer.body) == (200, ORDERS)
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''orders.csv"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["cache-control"] == "no-store"
    again = use(server, path)
    assert (again.status, again.slug) == (404, "link-not-found")


def test_of_many_uses_at_once_one_gets_the_content(
    server: ApiServer, reader: Client, lake: str
) -> None:
    path = make(reader, lake)
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(lambda _: use(server, path).status, range(8)))
    assert statuses == [200] + [404] * 7


def test_link_has_the_format_that_was_asked_for(
    server: ApiServer, admin: Client, lake: str
) -> None:
    answer = use(server, make(admin, lake, format="parquet"))
    assert (answer.status, answer.slug) == (422, "option-invalid")  # files come as they are


def test_link_to_what_is_not_granted_is_refused(reader: Client, lake: str) -> None:
    body = {"source": lake, "item": "private/salaries.csv"}
    refused = reader("POST", "/links", body)
    assert (refused.status, refused.slug) == (403, "not-allowed")


def test_link_of_a_principal_without_the_grant_any_more_is_refused(
    server: ApiServer, reader: Client, lake: str
) -> None:
    paths = [make(reader, lake) for _ in range(2)]
    assert reader.token
    server.principals[reader.token]["grants"] = [[lake, ["read"], ["other/*"]]]
    server.write_principals()
    assert use(server, paths[0]).slug == "not-allowed"
    del server.principals[reader.token]
    server.write_principals()
    assert use(server, paths[1]).slug == "link-not-found"


def test_foreign_hosts_and_pages_do_not_use_a_link_up(
    server: ApiServer, reader: Client, lake: str
) -> None:
    path = make(reader, lake)
    assert use(server, path, Host="evil.example").slug == "host-not-allowed"
    assert use(server, path, **{"Sec-Fetch-Site": "cross-site"}).slug == "origin-not-allowed"
    assert use(server, path, **{"Sec-Fetch-Site": "none"}).status == 200


@pytest.mark.parametrize("code", ["x", "%00", "%ff", "a" * 5000, "ä"])
def test_forged_link_is_not_found(server: ApiServer, code: str) -> None:
    assert use(server, f"/v1/links/{code}").status == 404


def test_store_holds_neither_the_code_nor_the_item_of_a_link(
    server: ApiServer, reader: Client, lake: str
) -> None:
    code = make(reader, lake).rpartition("/")[2]
    with closing(SQLiteStore(server.directory / "sources.db")) as store:
        records = store.records().list("link", owner=str(reader.token))
    assert len(records) == 1
    for hidden in (code, ITEM):
        assert hidden not in repr(records)


def test_link_that_has_expired_is_not_found(server: ApiServer, reader: Client, lake: str) -> None:
    path = make(reader, lake)
    with closing(SQLiteStore(server.directory / "sources.db")) as store:
        records = store.records()
        (record,) = records.list("link", owner=str(reader.token))
        assert record.expires_at
        records.delete_expired(record.expires_at)
    assert use(server, path).slug == "link-not-found"


def test_principal_has_a_hundred_links_at_most(
    server: ApiServer, reader: Client, lake: str
) -> None:
    with closing(SQLiteStore(server.directory / "sources.db")) as store:
        for number in range(99):  # which do not expire while the test runs
            store.records().put(Record("link", f"{lake}-{number}", str(reader.token), {}))
    path = make(reader, lake)
    refused = reader("POST", "/links", {"source": lake, "item": ITEM})
    assert (refused.status, refused.slug) == (429, "too-many-links")
    assert use(server, path).status == 200
    make(reader, lake)


def test_links_that_are_made_at_once_keep_to_the_bound() -> None:
    class RecordsOfTwo(MemoryRecords):
        """Returns a list once two threads have one."""

        def list(self, *arguments: Any, **more: Any) -> list[Record]:
            listed = super().list(*arguments, **more)
            both.wait(30)
            return listed

    both, records = Barrier(2), RecordsOfTwo()
    for number in range(links._MAX_LINKS - 1):
        records.put(Record("link", f"{number}", "ann", {}))

    def put(link_id: str) -> None:
        with suppress(Problem):
            links._put(records, Record("link", link_id, "ann", {}))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(put, ["one", "two"]))
    assert len(MemoryRecords.list(records, "link", owner="ann", limit=200)) <= links._MAX_LINKS


def test_link_works_on_another_worker(server: ApiServer, reader: Client, lake: str) -> None:
    with server.another_worker() as other:
        path = make(reader, lake)
        assert use(other, path).body == ORDERS
        assert use(server, path).slug == "link-not-found"


def test_receipt_of_a_stream_is_there_for_its_principal(
    server: ApiServer, reader: Client, admin: Client, lake: str
) -> None:
    streamed = reader("POST", f"/sources/{lake}/content", {"item": ITEM}, stream=True)
    path = f"/receipts/{streamed.headers['x-request-id']}"
    fetched = reader("POST", f"/sources/{lake}/content", {"item": ITEM})
    expected = json.loads(fetched.headers["datasources-receipt"])
    receipt = reader("GET", path).json["receipt"]
    assert {name: receipt[name] for name in ("size", "sha256", "truncated")} == {
        name: expected[name] for name in ("size", "sha256", "truncated")
    }
    assert ITEM not in json.dumps(receipt)
    for other in (admin, server.client("receipt-stranger", [lake, ["read"]])):
        assert other("GET", path).slug == "receipt-not-found"
    assert reader("GET", "/receipts/unknown").slug == "receipt-not-found"


def test_problem_of_a_stream_that_failed_is_there(
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
    os.truncate(large, 1 << 20)
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    request_id = response.headers["x-request-id"]
    problem = admin("GET", f"/receipts/{request_id}").json["problem"]
    assert problem["instance"] == f"urn:uuid:{request_id}"
    assert problem["type"] == "urn:datasources:error:fetch-failed"


def test_link_has_the_address_that_its_client_can_use() -> None:
    """The public one, but for a client of the machine that has used another."""
    with ApiServer(public_url="https://data.example/base/") as server:
        (server.data / "a.csv").write_bytes(ORDERS)
        server.admin.create("lake", path=str(server.data))
        body = {"source": "lake", "item": "a.csv"}
        own = server.admin("POST", "/links", body).json["url"]
        assert own.startswith(f"http://{HOST}:{server.port}/v1/links/")
        assert use(server, urlsplit(own).path).body == ORDERS
        public = server.admin("POST", "/links", body, headers={"Host": "data.example"})
        assert public.json["url"].startswith("https://data.example/base/v1/links/")


async def test_content_is_had_without_links_where_the_host_cannot_name_principals(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_bytes(ORDERS)
    root = Principal("root", roles={"admin"})
    async with DataSourceRegistry() as registry:
        config = DataSourceConfig("lake", "local_file", "Lake", {"path": str(tmp_path)})
        await registry.register_data_source(config)
        transport = httpx2.ASGITransport(create_app(registry, authenticate=lambda _: root))
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost/v1"
        ) as client:
            refused = await client.post("/links", json={"source": "lake", "item": "a.csv"})
            assert refused.status_code == 501
            assert "find_principal" in refused.json()["detail"]
            content = await client.post("/sources/lake/content", json={"item": "a.csv"})
            assert content.content == ORDERS
