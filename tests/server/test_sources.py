"""Sources are managed over HTTP, and nobody reads a secret back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.client import Client
from tests.server.conftest import ApiServer
from tests.servers import Database

SECRET = "canary-8c1f7a"


def etag(answer) -> dict[str, str]:
    return {"If-Match": answer.headers["etag"]}


def test_source_is_created_read_changed_and_removed(
    server: ApiServer, admin: Client, new_id: str
) -> None:
    created = admin.create(new_id, path=str(server.data))
    assert created.json["state"] == "ready"
    assert "preview" in created.json["abilities"]
    patch = {"name": "Lake", "options": {"hidden": True}}
    changed = admin("PATCH", f"/sources/{new_id}", patch, headers=etag(created))
    assert changed.json["options"] == {"path": str(server.data), "hidden": True}
    assert changed.json["version"] > created.json["version"]
    assert admin("GET", f"/sources/{new_id}").json == changed.json
    whole = {"type": "local_file", "options": {"path": str(server.data)}}
    replaced = admin("PUT", f"/sources/{new_id}", whole, headers=etag(changed))
    assert replaced.json["options"] == {"path": str(server.data)}
    assert replaced.json["name"] == new_id
    assert admin("DELETE", f"/sources/{new_id}").status == 204
    assert admin("GET", f"/sources/{new_id}").slug == "source-not-found"


def test_second_of_two_people_who_edit_one_source_gets_412(
    server: ApiServer, admin: Client, lake: str
) -> None:
    seen = admin("GET", f"/sources/{lake}")
    first = admin("PATCH", f"/sources/{lake}", {"name": "A"}, headers=etag(seen))
    second = admin("PATCH", f"/sources/{lake}", {"name": "B"}, headers=etag(seen))
    assert (first.status, second.status, second.slug) == (200, 412, "conflict")
    whole = {"type": "local_file", "options": {"path": str(server.data)}}
    assert admin("PUT", f"/sources/{lake}", whole, headers=etag(seen)).slug == "conflict"
    assert admin("GET", f"/sources/{lake}").json["name"] == "A"


def test_writing_needs_a_condition(admin: Client, lake: str) -> None:
    whole = {"type": "local_file", "options": {"path": "/"}}
    assert admin("PUT", f"/sources/{lake}", whole).status == 428
    assert admin("PATCH", f"/sources/{lake}", {"name": "A"}).status == 428
    created = admin("PUT", f"/sources/{lake}", whole, headers={"If-None-Match": "*"})
    assert created.status in (403, 412)
    gone = admin(
        "PUT", "/sources/gone", whole | {"options": {"path": "x"}}, headers={"If-Match": "*"}
    )
    assert gone.status in (403, 412)


def test_creating_a_source_that_exists_is_412(server: ApiServer, admin: Client, lake: str) -> None:
    whole = {"type": "local_file", "options": {"path": str(server.data)}}
    answer = admin("PUT", f"/sources/{lake}", whole, headers={"If-None-Match": "*"})
    assert (answer.status, answer.slug) == (412, "source-exists")
    answer = admin("PUT", "/sources/gone", whole, headers={"If-Match": '"3"'})
    assert (answer.status, answer.slug) == (412, "conflict")


def test_dry_run_validates_and_stores_nothing(
    server: ApiServer, admin: Client, new_id: str
) -> None:
    whole = {"type": "local_file", "options": {"path": str(server.data)}}
    condition = {"If-None-Match": "*"}
    path = f"/sources/{new_id}"
    assert admin("PUT", path, whole, headers=condition, dry_run=True).json == {"valid": True}
    wrong = {"type": "local_file", "options": {"pth": "x"}}
    refused = admin("PUT", path, wrong, headers=condition, dry_run=True)
    assert refused.slug == "option-invalid"
    assert "'pth'" in refused.json["detail"]
    assert [error["pointer"] for error in refused.json["errors"]] == [
        "#/options/path",
        "#/options/pth",
    ]
    assert admin("GET", path).status == 404


def test_source_that_does_not_answer_is_not_stored_with_test(
    server: ApiServer, admin: Client, new_id: str
) -> None:
    whole = {"type": "local_file", "options": {"path": str(server.data / "nowhere")}}
    condition = {"If-None-Match": "*"}
    answer = admin("PUT", f"/sources/{new_id}", whole, headers=condition, test=True)
    assert (answer.status, answer.slug) == (502, "source-unreachable")
    assert admin("GET", f"/sources/{new_id}").status == 404


def test_secret_is_never_shown_and_its_fingerprint_changes_with_it(
    admin: Client, new_id: str, pg_database: Database
) -> None:
    options = {"host": pg_database.host, "port": pg_database.port, "database": "x", "user": "u"}
    created = admin.create(new_id, "postgresql", **options, password=SECRET)
    assert SECRET not in str(created.json)
    before = created.json["secrets"]
    assert before["dsn"] == {"set": False, "fingerprint": None}
    assert before["password"]["set"]
    renamed = admin("PATCH", f"/sources/{new_id}", {"name": "x"}, headers=etag(created))
    assert renamed.json["secrets"] == before
    patch = {"options": {"password": SECRET + "2"}}
    changed = admin("PATCH", f"/sources/{new_id}", patch, headers=etag(renamed))
    assert changed.json["secrets"]["password"]["fingerprint"] != before["password"]["fingerprint"]
    moved = admin(
        "PATCH", f"/sources/{new_id}", {"options": {"host": "127.0.0.2"}}, headers=etag(changed)
    )
    assert (moved.status, moved.slug) == (409, "secret-required")
    (error,) = moved.json["errors"]
    assert error["pointer"] == "#/options/password"
    assert "sent only to the destination that it was stored for" in error["detail"]


def test_masked_secret_is_not_taken_for_the_secret(
    admin: Client, new_id: str, pg_database: Database
) -> None:
    options = {"host": pg_database.host, "database": "x", "user": "u", "password": SECRET}
    created = admin.create(new_id, "postgresql", **options)
    whole = {"type": "postgresql", "options": created.json["options"]}
    answer = admin("PUT", f"/sources/{new_id}", whole, headers=etag(created))
    assert (answer.status, answer.slug) == (422, "option-invalid")


def test_connection_is_tested_before_and_after_a_source_is_stored(
    admin: Client, new_id: str, pg_database: Database
) -> None:
    options = {"dsn": pg_database.dsn(), "allow_privileged_role": True}
    body = {"type": "postgresql", "options": options}
    tested = admin("POST", "/test", body)
    assert tested.json["ok"], tested.body
    admin.create(new_id, "postgresql", **options)
    assert admin("POST", f"/sources/{new_id}/test").json["ok"]
    wrong = {"options": {"dsn": pg_database.dsn().replace(pg_database.password, SECRET)}}
    failed = admin("POST", f"/sources/{new_id}/test", wrong)
    assert failed.status == 200
    assert failed.json["ok"] is False
    assert failed.json["error"]["slug"] == "source-login-refused"
    assert SECRET not in failed.body.decode()


def test_paused_source_refuses_with_its_reason(admin: Client, lake: str) -> None:
    paused = admin("POST", f"/sources/{lake}/pause", {"reason": "moving"})
    assert (paused.json["state"], paused.json["reason"]) == ("paused", "moving")
    refused = admin("GET", f"/sources/{lake}/items")
    assert (refused.status, refused.slug) == (409, "source-paused")
    assert "moving" in refused.json["detail"]
    assert admin("POST", f"/sources/{lake}/resume").json["state"] == "ready"
    assert admin("GET", f"/sources/{lake}/items").status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("DELETE", "", None), ("POST", "/pause", {"reason": "moving"}), ("POST", "/resume", None)],
)
def test_pauses_and_removals_take_a_condition(
    admin: Client, lake: str, method: str, path: str, body: Any
) -> None:
    seen = etag(admin("GET", f"/sources/{lake}"))
    admin("PATCH", f"/sources/{lake}", {"name": "Of somebody else"}, headers=seen)
    if path == "/resume":
        admin("POST", f"/sources/{lake}/pause", {"reason": "moving"})
    before = admin("GET", f"/sources/{lake}")
    for stale in (seen, {"If-Match": '"999999"'}, {"If-Match": "no tag"}):
        refused = admin(method, f"/sources/{lake}{path}", body, headers=stale)
        assert (refused.status, refused.slug) == (412, "conflict")
    assert admin("GET", f"/sources/{lake}").json == before.json
    answer = admin(method, f"/sources/{lake}{path}", body, headers=etag(before))
    assert answer.status == (204 if method == "DELETE" else 200)
    if method != "DELETE":
        assert answer.json["state"] != before.json["state"]
        assert (
            admin(method, f"/sources/{lake}{path}", body, headers={"If-Match": "*"}).status == 200
        )


def test_sources_are_listed_in_pages_by_type_and_text(server: ApiServer, admin: Client) -> None:
    ids = [f"page-{number}" for number in range(5)]
    for source_id in ids:
        admin.create(source_id, path=str(server.data))
    seen: list[list[str]] = []
    cursor: dict[str, Any] = {}
    for _ in range(3):
        page = admin("GET", "/sources", q="PAGE-", limit=2, type="local_file", **cursor).json
        seen.append([item["id"] for item in page["items"]])
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [ids[:2], ids[2:4], ids[4:]]
    assert page["next_cursor"] is None
    assert admin("GET", "/sources", q="page-", type="postgresql").json["items"] == []


def test_list_shows_each_change_of_a_source_and_of_a_grant_at_once(
    server: ApiServer, admin: Client, lake: str
) -> None:
    name = f"lister-{lake}"

    def listed() -> list[tuple[str, str, list[str]]]:
        items = Client(server.port, name)("GET", "/sources").json["items"]
        return [(item["name"], item["state"], item["rights"]) for item in items]

    server.client(name, [lake, ["read"]])
    (before,) = listed()
    assert listed() == [before]
    changed = admin("PATCH", f"/sources/{lake}", {"name": "New"}, headers={"If-Match": "*"})
    assert changed.status == 200
    assert listed() == [("New", "ready", ["read"])]
    admin("POST", f"/sources/{lake}/pause", {"reason": "moving"})
    assert listed() == [("New", "paused", ["read"])]
    server.client(name, [lake, ["read", "write"]])
    assert listed() == [("New", "paused", ["read", "write"])]
    server.client(name, ["another", ["read"]])
    assert listed() == []
    server.client(name, [lake, ["read"]])
    admin("DELETE", f"/sources/{lake}")
    assert listed() == []


def test_cursor_is_refused_in_another_listing_and_for_another_principal(
    server: ApiServer, admin: Client
) -> None:
    for source_id in ("cursor-1", "cursor-2"):
        admin.create(source_id, path=str(server.data))
    ann = server.client("cursor-ann", ["cursor-1", ["read"]], ["cursor-2", ["read"]])
    cursor = admin("GET", "/sources", q="cursor-", limit=1).json["next_cursor"]
    assert admin("GET", "/sources", q="cursor-", limit=1, cursor=cursor).status == 200
    for client, query in ((ann, "cursor-"), (admin, "other")):
        answer = client("GET", "/sources", q=query, limit=1, cursor=cursor)
        assert (answer.status, answer.slug) == (422, "cursor-invalid")
    assert admin("GET", "/sources", cursor=cursor[:-4] + "AAAA").slug == "cursor-invalid"


@pytest.mark.parametrize(
    ("type_name", "options", "setting", "option"),
    [
        ("local_file", {"path": "/etc"}, "allowed_roots", "--allow-root"),
        (
            "postgresql",
            {"dsn": "${env:HOME}"},
            "allowed_references",
            "--allow-reference",
        ),
    ],
)
def test_refusal_by_the_policy_names_the_setting_that_admits_it(
    admin: Client, new_id: str, type_name: str, options: dict, setting: str, option: str
) -> None:
    body = {"type": type_name, "options": options}
    answer = admin("PUT", f"/sources/{new_id}", body, headers={"If-None-Match": "*"})
    assert (answer.status, answer.slug) == (403, "not-allowed")
    assert answer.json["setting"] == setting
    assert option in answer.json["detail"]


def test_local_network_is_denied_and_the_refusal_names_the_option(
    admin: Client, new_id: str
) -> None:
    options = {"host": "169.254.169.254", "database": "x", "user": "u", "password": SECRET}
    answer = admin("POST", "/test", {"type": "postgresql", "options": options})
    assert answer.json["error"]["slug"] == "not-allowed", answer.json


def test_types_are_described(admin: Client) -> None:
    listed = {item["type"]: item for item in admin("GET", "/types").json["items"]}
    assert listed["postgresql"]["state"] == "ready"
    assert listed["postgresql"]["distribution"] == "datasources-postgresql"
    described = admin("GET", "/types/postgresql").json
    assert described["schema"]["properties"]["password"]["writeOnly"] is True
    assert {"password", "host"} <= {field["name"] for field in described["form"]["fields"]}
    assert "[sources.my_postgresql]" in described["template"]
    assert described["sample_identifiers"]
    assert admin("GET", "/types/unheard").slug == "type-not-found"


def test_callers_read_who_they_are_and_their_rights(server: ApiServer, lake: str) -> None:
    reader = server.client(f"rights-{lake}", [lake, ["read", "write"]])
    assert reader("GET", "/me").json == {"id": f"rights-{lake}", "admin": False, "tokens": False}
    assert reader("GET", f"/sources/{lake}").json["rights"] == ["read", "write"]
    assert server.admin("GET", "/me").json == {"id": "root", "admin": True, "tokens": False}
    assert server.admin("GET", f"/sources/{lake}").json["rights"] == ["query", "read", "write"]


def test_stored_queries_are_patched_and_shown_to_administrators(
    admin: Client, server: ApiServer, new_id: str
) -> None:
    created = admin.create(new_id, "sqlite", path=str(server.data / f"{new_id}.db"))
    patch = {"queries": {"monthly": {"text": "SELECT 1", "description": "One"}}}
    condition = {"If-Match": created.headers["ETag"]}
    changed = admin("PATCH", f"/sources/{new_id}", patch, headers=condition)
    assert changed.json["queries"]["monthly"]["text"] == "SELECT 1"
    patch["queries"]["monthly"]["text"] = " "
    refused = admin("PATCH", f"/sources/{new_id}", patch, headers={"If-Match": "*"})
    assert (refused.status, refused.slug) == (422, "option-invalid")


def test_choices_for_options_are_discovered(admin: Client, server: ApiServer, new_id: str) -> None:
    inner = server.data / new_id / "inner"
    inner.mkdir(parents=True)
    body = {"type": "local_file", "options": {"path": str(server.data / new_id)}}
    assert admin("POST", "/discover", body).json == {"choices": {"path": [str(inner)]}}
