"""The figures of a process are for administrators, in a format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from datasources import OptionError
from datasources_server import ServerSettings
from tests.server.client import Answer, Client
from tests.server.conftest import ApiServer
from tests.waiting import wait_until_blocking

Figures = dict[tuple[str, ...], float]


@pytest.fixture
def own() -> Iterator[ApiServer]:
    """A server that no other test asks."""
    with ApiServer() as server:
        yield server


def scrape(client: Client) -> Answer:
    return client("GET", "/metrics", prefix="")


def figures(client: Client) -> Figures:
    """Return all samples, by name and values of labels."""
    answer = scrape(client)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name.removeprefix("datasources_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def requests(figures: Figures) -> float:
    """Return the number of requests, without those for figures."""
    return sum(
        number
        for (name, *labels), number in figures.items()
        if name == "requests_total" and "/metrics" not in labels
    )


def test_requests_operations_refusals_and_pools_are_counted(own: ApiServer) -> None:
    (own.data / "a.csv").write_text("n\n1\n")
    own.admin.create("lake", path=str(own.data))
    reader = own.client("ann", ["lake", ["read"]])
    for _ in range(3):
        reader("POST", "/sources/lake/content", {"item": "a.csv"})
    reader("POST", "/sources/lake/content", {"item": "missing.csv"})
    reader("GET", "/audit")
    Client(own.port, "wrong")("GET", "/sources")
    own.admin("BREW", "/sources")
    # A request is counted after its response, when its files are deleted.
    wait_until_blocking(lambda: requests(figures(own.admin)) == 8)
    shown = figures(own.admin)
    content = ("requests_total", "POST", "/sources/{source_id}/content")
    assert (shown[*content, "200"], shown[*content, "404"]) == (3, 1)
    assert shown["request_seconds_total", content[2]] > 0
    assert shown["requests_total", "GET", "/sources", "401"] == 1
    assert shown["requests_total", "other", "other", "405"] == 1
    assert shown["operations_total", "fetch", "ok"] == 3
    assert shown["operations_total", "fetch", "item-not-found"] == 1
    assert shown["operation_bytes_total", "fetch"] == 12
    assert shown["refusals_total", "not-authenticated"] == 1
    assert shown["refusals_total", "not-allowed"] == 1
    assert shown["pool_in_use", "lake"] == 0
    assert shown["pool_connects_total", "lake"] == 1
    assert shown["jobs_running",] == 0


def test_jobs_are_counted_by_their_ends(own: ApiServer) -> None:
    (own.data / "a.csv").write_text("n\n1\n")
    own.admin.create("lake", path=str(own.data))
    reader = own.client("ann", ["lake", ["read"]])
    workspace = reader("POST", "/workspaces", {"sources": ["lake"]}).json["id"]
    for item in ("a.csv", "missing.csv"):
        items = {"items": [{"source": "lake", "item": item}]}
        reader("POST", f"/workspaces/{workspace}/fetch", items)
    shown = figures(own.admin)
    assert shown["jobs_ended_total", "finished"] == 1
    assert shown["jobs_ended_total", "failed"] == 1


def test_figures_are_for_administrators_unless_they_are_open(own: ApiServer) -> None:
    reader = own.client("ann", ["lake", ["read"]])
    assert scrape(Client(own.port, None)).slug == "not-authenticated"
    assert scrape(reader).slug == "not-allowed"
    with ApiServer(open_metrics=True) as server:
        assert figures(Client(server.port, None))["jobs_running",] == 0
    with pytest.raises(OptionError, match="'open_metrics' must be true or false"):
        ServerSettings(open_metrics="yes")  # type: ignore[arg-type]


def test_figures_hold_neither_items_nor_options(own: ApiServer) -> None:
    secret = "canary-4711"
    (own.data / secret).mkdir()
    own.admin.create("lake", path=str(own.data / secret))
    own.admin("POST", "/sources/lake/preview", {"item": f"{secret}.csv"})
    own.admin("GET", f"/sources/{secret}")
    own.admin("GET", f"/{secret}")
    assert secret.encode() not in scrape(own.admin).body
