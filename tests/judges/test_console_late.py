"""Answers that come late, fail, or do not fit JavaScript, and where the focus is after them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.judges.conftest import Tab
from tests.judges.serving import ConsoleServer

sync_api = pytest.importorskip("playwright.sync_api", reason="`nox -s judges` installs Playwright")
expect = sync_api.expect


class Held:
    """Holds the requests of a page that match, until they are let go."""

    def __init__(self, page: Any, matches: Callable[[str], bool]) -> None:
        self._page = page
        self.routes: list[Any] = []
        page.route(matches, self._hold)

    def _hold(self, route: Any) -> None:
        self.routes.append(route)

    def let_go(self, *, json: Any = None) -> None:
        """Answer the first one, and wait until the page has handled the answer."""
        route = self.routes.pop(0)
        with self._page.expect_event("requestfinished", lambda request: request == route.request):
            route.continue_() if json is None else route.fulfill(json=json)
        self._page.evaluate("() => fetch('/healthz').then((response) => response.text())")


@pytest.fixture
def lakes(server: ConsoleServer) -> Iterator[None]:
    """Two sources of files."""
    folder = server.data / "late"
    folder.mkdir()
    for name in ("late-one", "late-two"):
        server.admin.create(name, path=str(folder))
    yield
    for name in ("late-one", "late-two"):
        server.admin("DELETE", f"/sources/{name}")
    folder.rmdir()


def test_late_answer_about_another_filter_leaves_the_list_of_sources(tab: Tab, lakes: None) -> None:
    page = tab.open()
    rows = page.get_by_role("table", name="Sources").locator("tbody tr")
    held = Held(page, lambda url: "type=postgresql" in url)
    with page.expect_request("**/v1/sources?*type=postgresql*"):
        page.get_by_label("Type", exact=True).select_option("postgresql")
    page.get_by_label("Type", exact=True).select_option("local_file")
    expect(rows.filter(has_text="late-one")).to_have_count(1)
    held.let_go()
    expect(rows.filter(has_text="late-one")).to_have_count(1)


def job(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:032}",
        "owner": "admin",
        "workspace": "0" * 32,
        "item_count": 0,
        "items": [],
        "state": "finished",
        "cancelling": False,
        "created_at": "2026-01-01T00:00:00+00:00",
        "ended_at": "2026-01-01T00:00:01+00:00",
        "progress": None,
        "receipts": [],
        "problem": None,
    }


def test_new_look_at_the_jobs_leaves_the_page_that_is_chosen_meanwhile(tab: Tab) -> None:
    page = tab.open()
    first = {"items": [job(2)], "next_cursor": "second"}
    page.route("**/v1/jobs?limit=50", lambda route: route.fulfill(json=first))
    second = {"items": [job(1)], "next_cursor": None}
    page.route("**/v1/jobs?*cursor=second", lambda route: route.fulfill(json=second))
    tab.go("jobs")
    table = page.get_by_role("table", name="Jobs")
    expect(table).to_contain_text("00000000")
    page.unroute("**/v1/jobs?limit=50")
    held = Held(page, lambda url: url.endswith("/v1/jobs?limit=50"))
    with page.expect_request("**/v1/jobs?limit=50"):
        pass  # some seconds later
    page.get_by_role("button", name="Older").click()
    expect(page.get_by_text("Page 2")).to_be_visible()
    expect(page.get_by_role("button", name="Newer")).to_be_focused()  # there are no older ones
    held.let_go(json=first)
    expect(page.get_by_text("Page 2")).to_be_visible()


def test_refusal_of_an_old_token_leaves_the_new_one(tab: Tab, server: ConsoleServer) -> None:
    page = tab.open(token=server.add_token("late-token"))
    expect(page.get_by_text("No source is granted to you yet")).to_be_visible()
    held = Held(page, lambda url: "q=held" in url)
    with page.expect_request("**/v1/sources?*q=held*"):
        page.get_by_label("Filter sources").fill("held")
    server.admin("DELETE", "/tokens/late-token")
    page.get_by_label("Filter sources").fill("x")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(server.add_token("late-token"))
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_have_count(0)
    held.let_go()
    expect(dialog).to_have_count(0)
    page.get_by_label("Filter sources").fill("y")
    expect(page.get_by_text("Nothing matches")).to_be_visible()


def test_malformed_token_of_the_address_leads_to_the_sign_in(
    tab: Tab, server: ConsoleServer
) -> None:
    tab.page.goto(f"{server.url}#token=%zz")
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("Sign in")
    expect(tab.page.get_by_text("The token is not valid")).to_be_visible()


def test_token_can_be_added_although_the_sources_cannot_be_listed(tab: Tab) -> None:
    page = tab.open("tokens")
    page.route("**/v1/sources?limit=200", lambda route: route.abort())
    page.get_by_role("button", name="Add token").click()
    expect(page.get_by_role("dialog", name="Add a token")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("does not answer")


def test_upload_that_fails_after_its_page_was_left_is_told(tab: Tab, server: ConsoleServer) -> None:
    folder = server.data / "late-inbox"
    folder.mkdir()
    server.admin.create("late-inbox", "local_file", path=str(folder), writable=True)
    page = tab.open("source/late-inbox")
    held = Held(page, lambda url: "/upload?" in url)
    files = [{"name": f"{n}.csv", "mimeType": "text/csv", "buffer": b"n\n"} for n in (1, 2)]
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload", exact=True).click()
    with page.expect_request("**/upload?*"):
        chooser.value.set_files(files)
    tab.go("jobs")
    server.admin("POST", "/sources/late-inbox/pause", {"reason": "a rest"})
    held.let_go()
    expect(page.locator("#status")).to_contain_text("Not uploaded: 1.csv, 2.csv")
    server.admin("DELETE", "/sources/late-inbox")
    folder.rmdir()


def test_large_whole_numbers_are_not_rounded_and_nan_has_no_place_in_a_histogram(
    tab: Tab, server: ConsoleServer, shop: dict[str, Any]
) -> None:
    server.admin.create("late-db", "postgresql", **shop)
    query = "select 9007199254740993 as n, x from (values ('NaN'::float8), (1.5)) as v (x)"
    page = tab.open(f"item/late-db?item={quote(query)}")
    rows = page.get_by_role("table", name="Rows")
    expect(rows.get_by_role("cell", name="9007199254740993").first).to_be_visible()
    page.get_by_role("tab", name="Statistics").click()
    figures = page.get_by_role("table", name="Statistics").get_by_role("row", name="n", exact=False)
    expect(figures.first).to_be_visible()
    expect(page.get_by_text("9,007,199,254,740,993").first).to_be_visible()
    server.admin("DELETE", "/sources/late-db")


def test_button_has_the_focus_again_when_its_action_has_ended(tab: Tab, lakes: None) -> None:
    page = tab.open("source/late-one")
    test = page.get_by_role("button", name="Test", exact=True)
    test.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("It works")).to_be_visible()
    expect(test).to_be_focused()


def test_dialog_stays_while_its_action_runs_so_that_a_new_token_is_shown(
    tab: Tab, server: ConsoleServer
) -> None:
    page = tab.open("tokens")
    page.get_by_role("button", name="Add token").click()
    dialog = page.get_by_role("dialog", name="Add a token")
    dialog.get_by_label("Name", exact=True).fill("late")
    dialog.get_by_label("Administrator").check()
    held = Held(page, lambda url: url.endswith("/v1/tokens"))
    with page.expect_request("**/v1/tokens"):
        dialog.get_by_role("button", name="Add", exact=True).click()
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("button", name="Cancel")).to_be_disabled()
    held.let_go()
    expect(page.get_by_label("The token of late")).to_have_value(re.compile("^ds_"))
