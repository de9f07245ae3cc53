"""The audit trail says who did what, on every worker, and who was refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.client import Client
from tests.server.conftest import ApiServer
from tests.waiting import wait_until_blocking


def entries(admin: Client, **query: Any) -> list[dict[str, Any]]:
    """Return the entries of all pages."""
    found: list[dict[str, Any]] = []
    while True:
        page = admin("GET", "/audit", **query)
        assert page.status == 200, page.body
        found += page.json["items"]
        if page.json["next_cursor"] is None:
            return found
        query["cursor"] = page.json["next_cursor"]


def wait_for(admin: Client, number: int, **query: Any) -> list[dict[str, Any]]:
    wait_until_blocking(lambda: len(entries(admin, **query)) >= number)
    return entries(admin, **query)


def test_operations_are_found_by_source_user_operation_and_outcome(
    server: ApiServer, admin: Client, lake: str
) -> None:
    ann = server.client(f"ann-{lake}", [lake, ["read"]])
    for name in ("public/orders.csv", "nothing.csv"):
        answer = ann("POST", f"/sources/{lake}/preview", {"item": name})
    failed = answer.headers["x-request-id"]
    found = wait_for(admin, 2, user=ann.token, operation="preview")
    assert [entry["outcome"] for entry in found] == ["ItemNotFoundError", "ok"]  # newest first
    assert found[0]["request_id"] == failed
    assert {entry["source"] for entry in found} == {lake}
    assert len(entries(admin, user=ann.token, outcome="ok", operation="preview")) == 1
    registered = entries(admin, source=lake, operation="registered")
    assert [entry["user"] for entry in registered] == ["root"]
    pages = entries(admin, user=ann.token, operation="preview", limit=1)
    assert pages == found
    moment = found[0]["time"]
    assert entries(admin, user=ann.token, operation="preview", since=moment) == found[:1]
    assert entries(admin, user=ann.token, operation="preview", until=moment) == found[1:]


def test_refused_requests_are_entries_without_what_was_sent(
    server: ApiServer, admin: Client, lake: str
) -> None:
    ann = server.client(f"refused-{lake}", [lake, ["read"]])
    assert ann("DELETE", f"/sources/{lake}").status == 403
    (entry,) = wait_for(admin, 1, user=ann.token, operation="refused")
    assert (entry["outcome"], entry["method"]) == ("not-allowed", "DELETE")
    # A process of its own, as one process writes only so many refusals of strangers in a minute.
    with server.another_worker() as worker:
        unknown = Client(worker.port, "a-token-of-nobody")("GET", "/sources")
    request_id = unknown.headers["x-request-id"]
    wait_until_blocking(
        lambda: request_id in {e["request_id"] for e in entries(admin, operation="refused")}
    )
    found = entries(admin, operation="refused", outcome="not-authenticated")
    assert "a-token-of-nobody" not in str(found)
    assert "user" not in found[0]


def test_strangers_cannot_fill_the_store(server: ApiServer) -> None:
    with server.another_worker() as worker:
        stranger = Client(worker.port, "nobody")
        answers = [stranger("GET", "/sources") for _ in range(150)]
        worker._end(worker.stop_signal)  # writes what waits
    assert {answer.status for answer in answers} == {401}
    # The other worker may write entries of tests before meanwhile.
    asked = {answer.headers["x-request-id"] for answer in answers}
    found = entries(server.admin, outcome="not-authenticated")
    assert len([entry for entry in found if entry["request_id"] in asked]) == 100


def test_entries_of_another_worker_are_there_and_outlive_it(
    server: ApiServer, admin: Client, lake: str
) -> None:
    with server.another_worker() as other:
        ann = server.client(f"there-{lake}", [lake, ["read"]])
        there = Client(other.port, ann.token)
        assert (
            there("POST", f"/sources/{lake}/preview", {"item": "public/orders.csv"}).status == 200
        )
    (entry,) = wait_for(admin, 1, user=ann.token, operation="preview")
    assert entry["outcome"] == "ok"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"since": "yesterday"}, 422),
        ({"until": "0.5"}, 422),
        ({"cursor": "x"}, 422),
        ({"limit": 0}, 422),
    ],
)
def test_malformed_filter_is_refused(admin: Client, query: dict[str, Any], status: int) -> None:
    assert admin("GET", "/audit", **query).status == status
