"""The pages of jobs and of the audit trail in Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judges.conftest import Tab
from tests.judges.serving import ConsoleServer
from tests.server.client import Client
from tests.waiting import wait_until_blocking

sync_api = pytest.importorskip("playwright.sync_api", reason="`nox -s judges` installs Playwright")
expect = sync_api.expect

MARKUP = "<img src=x onerror=alert(1)>"
NUMBERS = "generate_series(1, 300000)"
SLOW = f"select count(*) from {NUMBERS} a, {NUMBERS} b"  # takes minutes


@pytest.fixture(scope="module", autouse=True)
def warehouse(server: ConsoleServer, shop: dict[str, Any]) -> Iterator[None]:
    """The source `warehouse`, a database."""
    server.admin.create("warehouse", "postgresql", **shop)
    yield
    server.admin("DELETE", "/sources/warehouse")


def start(client: Client, *items: str) -> str:
    """Start a job that fetches items from the database; return its id."""
    workspace = client("POST", "/workspaces", {"sources": ["warehouse"]}).json["id"]
    body = {"items": [{"source": "warehouse", "item": item} for item in items], "wait": False}
    answer = client("POST", f"/workspaces/{workspace}/fetch", body)
    assert answer.status == 202, answer.body
    return str(answer.json["id"])


def worker(server: ConsoleServer, name: str) -> Client:
    """Return the client of a new user who may query the database."""
    rights: dict[str, object] = {"source": "warehouse", "rights": ["read", "query"]}
    return Client(server.port, server.add_token(name, rights))


def test_running_job_shows_progress_and_is_cancelled(tab: Tab, server: ConsoleServer) -> None:
    ann = worker(server, "job-canceller")
    job = start(ann, "public.customers", SLOW)
    page = tab.open("jobs", token=ann.token)
    row = page.get_by_role("row", name=re.compile(job[:8]))
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("item 2 of 2")
    assert tab.violations() == []
    row.get_by_role("link", name=job[:8]).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {job[:8]}")
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.get_by_role("table", name="Files")).to_contain_text("public.customers.csv")
    page.get_by_role("button", name=f"Cancel job {job[:8]}").click()
    page.get_by_role("dialog").get_by_role("button", name="Let it run").click()
    page.get_by_role("button", name=f"Cancel job {job[:8]}").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".facts .chip")).to_have_text("cancelled")
    expect(page.get_by_role("alert")).to_contain_text("cancelled")
    assert tab.violations() == []
    assert ann("GET", f"/jobs/{job}").json["state"] == "cancelled"


def test_list_of_jobs_follows_events_until_their_end(tab: Tab, server: ConsoleServer) -> None:
    ann = worker(server, "job-follower")
    page = tab.open("jobs", token=ann.token)
    expect(page.get_by_role("heading", name="No jobs")).to_be_visible()
    job = start(ann, SLOW)
    tab.go("")
    tab.go("jobs")
    row = page.get_by_role("row", name=re.compile(job[:8]))
    expect(row).to_contain_text("running")
    ann("DELETE", f"/jobs/{job}")
    expect(row).to_contain_text("cancelled")
    expect(row.get_by_role("button")).to_have_count(0)


def test_files_of_a_finished_job_are_downloaded(
    tab: Tab, server: ConsoleServer, tmp_path: Path
) -> None:
    ann = worker(server, "job-downloader")
    query = f"select '{MARKUP}' as \"{MARKUP}\""
    job = start(ann, "public.customers", query)
    wait_until_blocking(lambda: ann("GET", f"/jobs/{job}").json["state"] == "finished")
    page = tab.open(f"job/{job}", token=ann.token)
    rows = page.get_by_role("table", name="Files").locator("tbody tr")
    expect(rows).to_have_count(2)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download public.customers.csv").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert len(path.read_text().splitlines()) == 501
    assert page.locator("main img").count() == 0


def test_job_of_somebody_else_is_not_found(tab: Tab, server: ConsoleServer) -> None:
    job = start(worker(server, "job-owner"), "public.customers")
    page = tab.open(f"job/{job}", token=worker(server, "job-stranger").token)
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


def test_audit_trail_is_filtered_and_paged(tab: Tab, server: ConsoleServer) -> None:
    ann = worker(server, "audited")
    for _ in range(60):
        ann("POST", "/sources/warehouse/preview", {"item": "public.orders", "rows": 1})
    ann("POST", "/sources/warehouse/preview", {"item": f"public.{MARKUP}"})
    ann("GET", "/audit")

    def all_written() -> bool:
        answer = server.admin("GET", "/audit", user="audited", operation="refused")
        return bool(answer.json["items"])

    wait_until_blocking(all_written)
    page = tab.open("audit")
    rows = page.get_by_role("table", name="Entries").locator("tbody tr:not(.more)")
    page.get_by_label("User", exact=True).fill("audited")
    page.get_by_label("Operation", exact=True).fill("preview")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(rows).to_have_count(50)
    assert "user=audited" in page.url
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(11)
    page.get_by_role("button", name="Newer").click()
    expect(rows).to_have_count(50)
    page.get_by_label("Outcome", exact=True).fill("DataFetchError")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(MARKUP)
    page.get_by_role("button", name="Details").click()
    expect(page.locator("tr.more")).to_contain_text("request id")
    assert tab.violations() == []
    page.get_by_label("Time", exact=True).select_option("From … until …")
    page.get_by_label("Until", exact=True).fill("2001-01-01T00:00")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.get_by_role("link", name="Clear the filter").click()
    page.get_by_role("table", name="Entries").get_by_role("link", name="audited").first.click()
    expect(page.get_by_label("User", exact=True)).to_have_value("audited")
    expect(rows.first).to_contain_text("refused")
    assert page.locator("main img").count() == 0


def test_answer_that_comes_late_leaves_the_filter_of_the_audit_trail_as_it_is(tab: Tab) -> None:
    page = tab.open("audit")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/v1/audit?*", hold)
    time, until = page.get_by_label("Time", exact=True), page.get_by_label("Until", exact=True)
    with page.expect_request("**/v1/audit?*since=*"):
        time.select_option("Last hour")
    assert page.url.endswith("#/audit?hours=1")
    time.select_option("From … until …")
    until.fill("2001-01-01T00:00")
    with page.expect_response("**/v1/audit?*since=*"):
        held[0].continue_()
    page.unroute("**/v1/audit?*")
    expect(until).to_have_value("2001-01-01T00:00")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.go_back()
    page.go_back()
    expect(time).to_have_value("")
    expect(page.get_by_role("table", name="Entries")).to_be_visible()


def test_users_have_no_audit_trail(tab: Tab, server: ConsoleServer) -> None:
    page = tab.open(token=server.add_token("not-auditor"))
    expect(page.get_by_role("link", name="Jobs")).to_be_visible()
    expect(page.get_by_role("link", name="Audit")).to_have_count(0)
    tab.go("audit")
    expect(page.get_by_role("alert")).to_contain_text("Only administrators")
