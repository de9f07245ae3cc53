"""Bad input of every kind is a problem that names field and reason, and shows no secret."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

import pytest

from tests.server.client import HOST, Client
from tests.server.conftest import ApiServer
from tests.servers import Database

CANARY = "canary-4d5e6f"
NEW = {"If-None-Match": "*"}
BODY = {"type": "local_file", "options": {"path": "x"}}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", "#"),
        (b"{", "#"),
        (b"[]", "#"),
        (b"null", "#"),
        (b'"text"', "#"),
        ({"type": "local_file"}, "#/options"),
        (BODY | {"type": 5}, "#/type"),
        (BODY | {"type": "No Type"}, "#/type"),
        (BODY | {"options": [CANARY]}, "#/options"),
        (BODY | {"options": CANARY}, "#/options"),
        (BODY | {"extra/field": CANARY}, "#/extra~1field"),
        (BODY | {"metadata": CANARY}, "#/metadata"),
        (BODY | {"limits": CANARY}, "#/limits"),
        (BODY | {"limits": {"max_bytes": -1}}, "#/limits/max_bytes"),
        (BODY | {"limits": {"timeout": CANARY}}, "#/limits/timeout"),
        (BODY | {"limits": {"most": 1}}, "#/limits/most"),
        (BODY | {"queries": {"a": {}}}, "#/queries/a/text"),
        (
            BODY | {"queries": {"a": {"text": "select :x", "parameters": {"x": {"type": CANARY}}}}},
            "#/queries/a/parameters/x/type",
        ),
    ],
)
def test_malformed_body_names_the_field(
    admin: Client, new_id: str, body: Any, pointer: str
) -> None:
    answer = admin("PUT", f"/sources/{new_id}", body, headers=NEW)
    assert (answer.status, answer.slug) == (422, "request-invalid")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert CANARY not in answer.body.decode()
    assert admin("GET", f"/sources/{new_id}").status == 404


def test_each_wrong_limit_of_a_change_is_named(admin: Client, lake: str) -> None:
    changes = {"limits": {"max_bytes": -1, "max_rows": 1.5, "timeout": "soon"}}
    answer = admin("PATCH", f"/sources/{lake}", changes, headers={"If-Match": "*"})
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == [
        "#/limits/max_bytes",
        "#/limits/max_rows",
        "#/limits/timeout",
    ]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (BODY | {"type": "unheard"}, "unheard"),
        (BODY | {"queries": {"No Name": {"text": "select 1"}}}, "No Name"),
        (BODY | {"options": {"path": 5}}, "path"),
        (BODY | {"options": {}}, "path"),
        (BODY | {"name": "\ud800"}, "'name'"),
        ({"type": "postgresql", "options": {"port": "x", "password": CANARY}}, "port"),
        ({"type": "postgresql", "options": {"password": [CANARY]}}, "password"),
        ({"type": "postgresql", "options": {"pasword": CANARY}}, "pasword"),
    ],
)
def test_invalid_source_names_the_option(admin: Client, new_id: str, body: Any, named: str) -> None:
    answer = admin("PUT", f"/sources/{new_id}", body, headers=NEW)
    assert answer.status == 422, answer.body
    assert answer.slug in ("option-invalid", "connector-unknown")
    assert named in answer.json["detail"]
    assert CANARY not in answer.body.decode()


@pytest.mark.parametrize("source_id", ["a b", "-a", "ä", "a" * 129, "%00", "..", "'"])
def test_malformed_id_is_refused(admin: Client, source_id: str) -> None:
    answer = admin("PUT", f"/sources/{source_id}", BODY, headers=NEW)
    assert (answer.status, answer.slug) in [(422, "request-invalid"), (404, "not-found")]
    if answer.status == 422:
        assert [error["pointer"] for error in answer.json["errors"]] == ["source_id"]


@pytest.mark.parametrize(
    "number", ["NaN", "1e999", "-Infinity", "1" * 5000, "\xff", "[" * 20_000, '{"a":' * 20_000]
)
def test_json_that_is_none_is_a_problem(admin: Client, new_id: str, number: str) -> None:
    body = f'{{"type": "local_file", "options": {{"path": {number}}}}}'.encode("latin-1")
    answer = admin("PUT", f"/sources/{new_id}", body, headers=NEW)
    assert answer.status in (400, 422)
    assert answer.slug


def test_metadata_nested_too_deep_are_refused_and_do_not_end_the_list(
    admin: Client, new_id: str, lake: str
) -> None:
    deep = '{"below":' * 800 + "1" + "}" * 800
    options = json.dumps(admin("GET", f"/sources/{lake}").json["options"])
    body = f'{{"type": "local_file", "options": {options}, "metadata": {deep}}}'.encode()
    answer = admin("PUT", f"/sources/{new_id}-deep", body, headers=NEW)
    assert (answer.status, answer.slug) == (422, "option-invalid")
    change = f'{{"metadata": {deep}}}'.encode()
    changed = admin("PATCH", f"/sources/{lake}", change, headers={"If-Match": "*"})
    assert (changed.status, changed.slug) == (422, "option-invalid")
    assert admin("GET", f"/sources/{lake}").json["metadata"] == {}
    assert admin("GET", "/sources").status == 200


def test_body_over_the_limit_is_413(server: ApiServer, admin: Client) -> None:
    big = b" " * ((1 << 20) + 1)
    answer = admin("POST", "/test", big)
    assert (answer.status, answer.slug) == (413, "body-too-large")
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/test HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer root\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with suppress(ConnectionError):  # it may be refused before the end of the last chunk
            for _ in range(17):
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert b" 413 " in connection.recv(65536)


def test_body_that_does_not_arrive_is_408() -> None:
    with (
        ApiServer(body_timeout=0.2) as server,
        socket.create_connection((HOST, server.port), timeout=30) as connection,
    ):
        connection.sendall(
            b"POST /v1/test HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer root\r\n"
            b"Content-Length: 10\r\n\r\n{"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b" 408 " in answer
        assert b"body-too-slow" in answer


@pytest.mark.parametrize(
    ("method", "path", "status", "slug", "allow"),
    [
        ("GET", "/nothing", 404, "not-found", None),
        ("POST", "/sources", 405, "method-not-allowed", "GET"),
        ("DELETE", "/types", 405, "method-not-allowed", "GET"),
        ("BREW", "/sources", 405, "method-not-allowed", "GET"),
        ("POST", "/sources/a.b", 405, "method-not-allowed", "DELETE, GET, PATCH, PUT"),
    ],
)
def test_framework_answers_with_problems_too(
    admin: Client, method: str, path: str, status: int, slug: str, allow: str | None
) -> None:
    answer = admin(method, path)
    document = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, document["type"]) == (status, f"urn:datasources:error:{slug}")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    ("query", "name"),
    [({"limit": "x"}, "limit"), ({"limit": 0}, "limit"), ({"limit": 201}, "limit")],
)
def test_parameter_is_named(admin: Client, query: dict[str, Any], name: str) -> None:
    answer = admin("GET", "/sources", **query)
    assert (answer.status, answer.slug) == (422, "request-invalid")
    assert [error["pointer"] for error in answer.json["errors"]] == [name]


def test_secret_is_in_no_response_and_no_log(pg_database: Database) -> None:
    options = {"host": HOST, "port": pg_database.port, "database": "x", "user": "u"}
    with ApiServer() as server:
        admin = server.admin
        types = [item["type"] for item in admin("GET", "/types").json["items"]]
        seen = [admin("GET", "/openapi.json", prefix="").body]
        for type_name in types:
            described = admin("GET", f"/types/{type_name}").json
            secrets = [field["name"] for field in described["form"]["fields"] if field["secret"]]
            for name in secrets:
                for value in (
                    CANARY,
                    {"a": CANARY},
                    [CANARY],
                    f"https://u:{CANARY}@h/x?sig={CANARY}",
                ):
                    body = {"type": type_name, "options": {**options, name: value}}
                    path = f"/sources/{type_name}"
                    seen += [
                        admin("PUT", path, body, headers=NEW).body,
                        admin("PUT", path, body, headers=NEW, test=True).body,
                        admin("PUT", path, json.dumps(body)[:-2].encode(), headers=NEW).body,
                        admin("POST", "/test", body).body,
                        admin("PATCH", path, body, headers={"If-Match": "*"}).body,
                        admin(
                            "PATCH",
                            path,
                            {"options": {name: value}},
                            headers={"If-Match": "*"},
                            test=True,
                        ).body,
                        admin("POST", f"{path}/test", {"options": {name: value}}).body,
                        admin("POST", f"{path}/preview", {"item": "public.orders"}).body,
                        admin("GET", path).body,
                        admin("GET", "/sources").body,
                    ]
        assert len(seen) > 50
        assert not [body for body in seen if CANARY.encode() in body]
        assert CANARY not in server.log
