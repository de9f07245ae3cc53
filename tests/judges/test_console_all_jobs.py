"""The jobs of everybody, as administrators see them in Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.judges.conftest import Tab
from tests.judges.serving import ConsoleServer
from tests.server.client import Client
from tests.waiting import wait_until_blocking

sync_api = pytest.importorskip("playwright.sync_api", reason="`nox -s judges` installs Playwright")
expect = sync_api.expect
expect.set_options(timeout=30_000)


def test_administrator_sees_whose_job_fetches_what(
    tab: Tab, server: ConsoleServer, shop: dict[str, Any]
) -> None:
    server.admin.create("depot", "postgresql", **shop)
    rights: dict[str, object] = {"source": "depot", "rights": ["read", "query"]}
    zoe = Client(server.port, server.add_token("zoe", rights))
    workspace = zoe("POST", "/workspaces", {"sources": ["depot"]}).json["id"]
    items = [{"source": "depot", "item": item} for item in ("public.customers", "SELECT 1 AS one")]
    job = zoe("POST", f"/workspaces/{workspace}/fetch", {"items": items, "wait": False}).json["id"]
    wait_until_blocking(lambda: zoe("GET", f"/jobs/{job}").json["state"] == "finished", timeout=60)
    page = tab.open("jobs")
    row = page.get_by_role("row", name=re.compile(job[:8]))
    expect(row).to_contain_text("zoe")
    expect(row).to_contain_text("depot: public.customers and 1 more")
    row.get_by_role("link", name=job[:8], exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {job[:8]}")
    expect(page.locator("main")).to_contain_text("depot: SELECT 1 AS one")
    expect(page.get_by_role("table", name="Files")).to_contain_text("public.customers.csv")
    assert page.get_by_role("button", name=re.compile("Download")).count() == 0
    assert tab.violations() == []
    server.admin("DELETE", "/sources/depot")
