"""Each route admits who may use it, from where it may be used, and nobody else."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import pytest

from datasources import Grant, Principal
from datasources_server import create_app
from tests.core.fakes import CountingStore, fresh, registry_of, source
from tests.server.client import HOST, Client
from tests.server.conftest import ApiServer
from tests.waiting import wait_until_blocking

ITEM = {"item": "public/orders.csv"}
# A split that no plan has made: the grant is checked before it is.
SPLIT = {
    "source_id": "{id}",
    "identifier": "public/orders.csv",
    "index": 0,
    "count": 1,
    "part": {},
    "fingerprint": "x",
}
PATCH = ({"name": "x"}, {"If-Match": "*"})
PUT = ({"type": "local_file", "options": {"path": "/nowhere"}}, {"If-None-Match": "*"})
# Route, body and headers; then the status for an administrator, for a user who may read, and for one
# who has no grant. `{id}` is the source; other names in braces are things that the reader has made.
TABLE: list[tuple[str, str, Any, dict[str, str], int, int, int]] = [
    ("GET", "/me", None, {}, 200, 200, 200),
    ("GET", "/types", None, {}, 200, 200, 200),
    ("GET", "/types/local_file", None, {}, 200, 200, 200),
    ("GET", "/sources", None, {}, 200, 200, 200),
    ("GET", "/sources/{id}", None, {}, 200, 200, 404),
    ("PUT", "/sources/{id}", *PUT, 403, 403, 403),
    ("PATCH", "/sources/{id}", *PATCH, 200, 403, 403),
    ("POST", "/sources/{id}/pause", {"reason": "x"}, {}, 200, 403, 403),
    ("POST", "/sources/{id}/resume", None, {}, 200, 403, 403),
    ("POST", "/sources/{id}/test", None, {}, 200, 200, 404),
    ("POST", "/sources/{id}/test", {"name": "x"}, {}, 200, 403, 404),
    ("POST", "/test", PUT[0], {}, 403, 403, 403),
    ("POST", "/discover", PUT[0], {}, 403, 403, 403),
    ("GET", "/sources/{id}/items", None, {}, 200, 200, 404),
    ("POST", "/sources/{id}/describe", ITEM, {}, 200, 200, 404),
    ("POST", "/sources/{id}/preview", ITEM, {}, 200, 200, 404),
    ("POST", "/sources/{id}/statistics", ITEM, {}, 501, 501, 404),
    ("POST", "/sources/{id}/content", ITEM, {}, 200, 200, 404),
    ("POST", "/sources/{id}/plan", ITEM, {}, 200, 200, 404),
    ("POST", "/sources/{id}/splits", {"split": SPLIT}, {}, 409, 409, 404),
    ("POST", "/sources/{id}/upload", {}, {}, 501, 403, 404),
    ("POST", "/links", {"source": "{id}"} | ITEM, {}, 201, 201, 404),
    ("GET", "/receipts/{receipt}", None, {}, 404, 200, 404),
    ("GET", "/audit", None, {}, 200, 403, 403),
    ("POST", "/workspaces", {"sources": ["{id}"]}, {}, 201, 201, 404),
    ("GET", "/workspaces/{workspace}", None, {}, 404, 200, 404),
    (
        "POST",
        "/workspaces/{workspace}/fetch",
        {"items": [{"source": "{id}"} | ITEM]},
        {},
        404,
        200,
        404,
    ),
    ("GET", "/workspaces/{workspace}/files/x", None, {}, 404, 404, 404),
    ("GET", "/jobs", None, {}, 200, 200, 200),
    ("GET", "/jobs/{job}", None, {}, 200, 200, 404),
    ("GET", "/jobs/{job}/events", None, {}, 200, 200, 404),
    ("DELETE", "/jobs/{job}", None, {}, 200, 200, 404),
    ("DELETE", "/workspaces/{workspace}", None, {}, 404, 204, 404),
    ("DELETE", "/sources/{id}", None, {}, 204, 403, 403),
]
QUERIES = {"/sources/{id}/upload": {"item": "new.csv"}}
# A link is used without a token; test_links.py shows by whom.
WITHOUT_TOKEN = {("GET", "/links/{code}")}
# The parameters of the OpenAPI document for parts of the paths above.
NAMED = {
    "local_file": "{type_name}",
    "{receipt}": "{request_id}",
    "{workspace}": "{workspace_id}",
    "{job}": "{job_id}",
    "/files/x": "/files/{path}",
}
each_route = pytest.mark.parametrize(
    ("method", "path", "body", "headers", "for_admin", "for_reader", "for_stranger"),
    TABLE,
    ids=[f"{row[0]} {row[1]} {number}" for number, row in enumerate(TABLE)],
)


class Made(dict[str, str]):
    """Names in the paths and bodies of the table; those that a reader makes are made on use."""

    def __init__(self, source_id: str, reader: Client | None = None) -> None:
        super().__init__(id=source_id)
        self._reader = reader

    def __missing__(self, name: str) -> str:
        reader, source_id = self._reader, self["id"]
        assert reader is not None
        if name == "receipt":
            streamed = reader("POST", f"/sources/{source_id}/content", ITEM, stream=True)
            return str(streamed.headers["x-request-id"])
        made: str = reader("POST", "/workspaces", {"sources": [source_id]}).json["id"]
        if name == "workspace":
            return made
        items = {"items": [ITEM | {"source": source_id}], "wait": False}
        job: str = reader("POST", f"/workspaces/{made}/fetch", items).json["id"]
        wait_until_blocking(lambda: reader("GET", f"/jobs/{job}").json["state"] == "finished")
        return job

    def fill(self, value: Any) -> Any:
        """Return a value of JSON with the names in its texts filled in."""
        if isinstance(value, dict):
            return {name: self.fill(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner) for inner in value]
        return value.format_map(self) if isinstance(value, str) else value


@each_route
def test_route_admits_roles_as_the_table_says(
    server: ApiServer,
    lake: str,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    for_admin: int,
    for_reader: int,
    for_stranger: int,
) -> None:
    reader = server.client(f"reader-{lake}", [lake, ["read"]])
    made = Made(lake, reader)
    address, body, query = made.fill(path), made.fill(body), QUERIES.get(path, {})
    stranger = server.client(f"stranger-{lake}", ["another", ["read"]])
    for client, status in ((stranger, for_stranger), (reader, for_reader)):
        answer = client(method, address, body, headers=headers, **query)
        assert answer.status == status, answer.body
    for token in (None, "wrong", "roo"):
        answer = Client(server.port, token)(method, address, body, headers=headers, **query)
        assert (answer.status, answer.slug) == (401, "not-authenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    answer = server.admin(method, address, body, headers=headers, **query)
    assert answer.status == for_admin, answer.body


def test_every_route_is_in_the_table(server: ApiServer) -> None:
    document = server.admin("GET", "/openapi.json", prefix="").json
    routes = {
        (method.upper(), path.removeprefix("/v1").replace("{source_id}", "{id}"))
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/v1")
    }
    tested = set()
    for method, path, *_ in TABLE:
        parameters = path
        for name, parameter in NAMED.items():
            parameters = parameters.replace(name, parameter)
        tested.add((method, parameters))
    assert routes - WITHOUT_TOKEN == tested


OF_A_SOURCE = [
    row
    for row in TABLE
    if row[6] == 404 and "{id}" in f"{row[1]} {row[2]}" and "{workspace}" not in row[1]
]


@pytest.mark.parametrize("row", OF_A_SOURCE, ids=lambda row: row[1])
def test_unknown_source_and_one_without_grant_give_the_same_answer(
    server: ApiServer, lake: str, row: tuple[Any, ...]
) -> None:
    method, path, body, headers = row[:4]
    stranger = server.client("stranger", ["another", ["read"]])
    answers = []
    for source_id in (lake, "unknown"):
        made = Made(source_id)
        query = QUERIES.get(path, {})
        answer = stranger(method, made.fill(path), made.fill(body), headers=headers, **query)
        document = answer.json
        assert document.pop("instance")
        answers.append((answer.status, document))
    assert answers[0] == answers[1]


async def test_routes_ask_as_often_for_an_unknown_source_as_for_one_without_grant() -> None:
    """They ask the store and the connector."""
    stranger = Principal("stranger", grants=[Grant("another", {"read", "query", "write"})])
    store, connector = CountingStore(), fresh()
    async with registry_of(connector, store=store) as registry:
        for source_id in ("another", "hidden"):
            await registry.register_data_source(source(source_id))
        app = create_app(registry, authenticate=lambda _: stranger)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for method, path, body, headers, *_ in OF_A_SOURCE:
                answers = []
                for source_id in ("unknown", "hidden"):
                    store.asked = 0
                    made = Made(source_id)
                    answer = await client.request(
                        method,
                        "/v1" + made.fill(path),
                        json=made.fill(body),
                        headers=headers,
                        params=QUERIES.get(path, {}),
                    )
                    document = answer.json()
                    document.pop("instance", None)
                    answers.append((answer.status_code, document, store.asked, connector.connects))
                assert answers[0] == answers[1], (method, path)


def test_user_sees_neither_options_nor_fingerprints(server: ApiServer, lake: str) -> None:
    reader = server.client("option-reader", [lake, ["read"]])
    described = reader("GET", f"/sources/{lake}").json
    names = {"id", "type", "name", "abilities", "state", "reason", "version", "rights"}
    assert set(described) == names
    assert [item["id"] for item in reader("GET", "/sources").json["items"]] == [lake]


def test_grant_narrowed_to_items_hides_the_others(server: ApiServer, lake: str) -> None:
    narrow = server.client("narrow", [lake, ["read"], ["public/*"]])
    items = narrow("GET", f"/sources/{lake}/items").json["items"]
    assert [item["path"] for item in items] == ["public/orders.csv"]
    refused = narrow("POST", f"/sources/{lake}/content", {"item": "private/salaries.csv"})
    assert (refused.status, refused.slug) == (403, "not-allowed")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost", "Host": "localhost"}, 200),
        ({"Origin": "http://localhost:81", "Host": "localhost"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_foreign_pages_and_hosts_execute_nothing(
    server: ApiServer, lake: str, headers: dict[str, str], status: int
) -> None:
    answer = server.admin("POST", f"/sources/{lake}/pause", {"reason": "x"}, headers=headers)
    assert answer.status == status, answer.body
    state = server.admin("GET", f"/sources/{lake}").json["state"]
    assert state == ("paused" if status == 200 else "ready")


def test_public_url_is_a_host_and_an_origin() -> None:
    with ApiServer(public_url="https://data.example") as server:
        headers = {"Host": "data.example", "Origin": "https://data.example"}
        assert server.admin("GET", "/sources", headers=headers).status == 200
        headers["Origin"] = "http://data.example:8080"
        assert server.admin("GET", "/sources", headers=headers).slug == "origin-not-allowed"


def test_request_without_a_host_is_refused(server: ApiServer) -> None:
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.sendall(b"GET /v1/sources HTTP/1.0\r\nAuthorization: Bearer root\r\n\r\n")
        answer = connection.recv(65536)
    assert b" 421 " in answer.split(b"\r\n")[0]


def test_health_needs_no_token(server: ApiServer) -> None:
    nobody = Client(server.port, None)
    assert nobody("GET", "/healthz", prefix="").json == {"status": "ok"}
    assert nobody("GET", "/readyz", prefix="").json == {"status": "ok"}


def test_tests_of_connections_are_bounded_for_each_principal() -> None:
    with ApiServer(tests_per_minute=2) as server:
        server.admin.create("lake", path=str(server.data))
        ann, bob = (server.client(name, ["lake", ["read"]]) for name in ("ann", "bob"))
        statuses = [ann("POST", "/sources/lake/test").status for _ in range(3)]
        refused = ann("POST", "/sources/lake/test")
        assert statuses == [200, 200, 429]
        assert refused.slug == "too-many-tests"
        assert int(refused.headers["retry-after"]) in range(1, 61)
        assert bob("POST", "/sources/lake/test").status == 200
