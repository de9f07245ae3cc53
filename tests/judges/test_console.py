"""The console in Chromium: every page, on the real server, with a database and files."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judges.conftest import Tab
from tests.judges.serving import ConsoleServer
from tests.server.client import Client

sync_api = pytest.importorskip("playwright.sync_api", reason="`nox -s judges` installs Playwright")
expect = sync_api.expect


@pytest.fixture(scope="module", autouse=True)
def sources(server: ConsoleServer, shop: dict[str, Any]) -> None:
    """`db`, a database; `lake`, a directory with folders, a table and a text."""
    server.admin.create("db", "postgresql", **shop)
    folder = server.data / "lake"
    (folder / "reports/2026").mkdir(parents=True)
    (folder / "reports/2026/units.csv").write_text("region,units\nnorth,12\nsouth,\neast,3\n")
    (folder / "readme.txt").write_text("hello\nworld\n")
    server.admin.create("lake", path=str(folder))


PAGES = {
    "": "Sources",
    "add": "Add a source",
    "add/postgresql": "Add PostgreSQL",
    "add/azure_blob": "Add Azure Blob",
    "edit/db": "Edit db",
    "source/db": "db",
    "source/lake": "lake",
    "source/lake?path=reports%2F2026%2F": "lake",
    "source/lake?pattern=**%2F*.nothing": "lake",
    "item/db?item=public.orders": "public.orders",
    "item/lake?item=reports%2F2026%2Funits.csv": "units.csv",
    "item/lake?item=missing": "Not found",
    "query?source=db": "Query",
    "jobs": "Jobs",
    "tokens": "Tokens",
    "audit": "Audit",
    "audit?user=nobody-of-this-name": "Audit",
    "audit?operation=register&since=2026-01-01T00:00": "Audit",
    "nowhere": "Not found",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_accessible(new_tab: Callable[..., Tab], theme: str) -> None:
    tab = new_tab(color_scheme=theme)
    page = tab.open()
    found = {}
    for path, title in PAGES.items():
        tab.go(path)
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        expect(page).to_have_title(f"{title} · datasources")
        if violations := tab.violations():
            found[path] = violations
    tab.go("item/db?item=public.orders")
    for name in ("Columns", "Statistics", "Details"):
        page.get_by_role("tab", name=name).click()
        expect(page.get_by_text("Computing…")).to_have_count(0)
        if violations := tab.violations():
            found[name] = violations
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    found["Sign in"] = tab.violations()
    assert found == {"Sign in": []}


def test_every_page_fits_a_phone(new_tab: Callable[..., Tab]) -> None:
    tab = new_tab(viewport={"width": 360, "height": 640}, has_touch=True)
    page = tab.open()
    for path, title in PAGES.items():
        tab.go(path)
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert (path, width) == (path, 360)
    assert tab.violations() == []


def test_dark_theme_can_be_chosen_and_stays(tab: Tab) -> None:
    page = tab.open()
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for name in ("Theme: auto", "Theme: light"):
        page.get_by_role("button", name=name).click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    dark = page.evaluate(background)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sources")
    assert page.evaluate(background) == dark != light


def test_token_of_the_address_signs_in_and_leaves_the_address(
    tab: Tab, server: ConsoleServer
) -> None:
    page = tab.open()
    assert server.token not in page.url
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sources")
    tab.go("tokens")
    page.go_back()
    page.go_back()
    assert server.token not in page.url
    assert all(server.token not in url for url in tab.requests)


def test_wrong_token_is_refused_and_sign_out_forgets_the_token(
    tab: Tab, server: ConsoleServer
) -> None:
    page = tab.page
    page.goto(server.url)
    page.get_by_label("Token").fill("ds_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("The token is not valid")).to_be_visible()
    page.get_by_label("Token").fill(f" {server.token} ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sources")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_token_of_a_link_does_not_replace_that_of_somebody_who_is_signed_in_silently(
    tab: Tab, server: ConsoleServer
) -> None:
    page = tab.open()
    other = server.add_token("somebody-else")
    page.evaluate("token => { location.hash = `#token=${token}` }", other)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator(".who")).to_have_text("admin")
    assert other not in page.url
    page.evaluate("token => { location.hash = `#token=${token}` }", other)
    dialog.get_by_role("button", name="Use the new token").click()
    expect(page.locator(".who")).to_have_text("somebody-else")


def test_revoked_token_leads_to_the_sign_in(tab: Tab, server: ConsoleServer) -> None:
    page = tab.open(token=server.add_token("leaver"))
    expect(page.get_by_text("No source is granted to you yet")).to_be_visible()
    server.admin("DELETE", "/tokens/leaver")
    page.get_by_label("Filter sources").fill("x")
    expect(page.get_by_text("not any more")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_sign_in_again_keeps_what_is_typed(tab: Tab, server: ConsoleServer) -> None:
    def new_token() -> str:
        made = server.admin("POST", "/tokens", {"name": "second-admin", "admin": True})
        return str(made.json["token"])

    page = tab.open("add/local_file", token=new_token())
    page.get_by_label("Id", exact=True).fill("typed")
    page.get_by_label("Path", exact=True).fill(str(server.data / "lake"))
    server.admin("DELETE", "/tokens/second-admin")
    page.get_by_role("button", name="Add source").click()
    dialog = page.get_by_role("dialog")
    assert tab.violations() == []
    dialog.get_by_label("Token").fill("ds_wrong")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("Token").fill(new_token())
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Id", exact=True)).to_have_value("typed")
    page.get_by_role("button", name="Add source").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("typed")
    server.admin("DELETE", "/sources/typed")


def test_sources_are_filtered_and_paged(tab: Tab, server: ConsoleServer) -> None:
    for number in range(60):
        server.admin.create(f"many-{number:02}", path=str(server.data / "lake"))
    page = tab.open()
    rows = page.get_by_role("table", name="Sources").locator("tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("Page 2")).to_be_visible()
    page.get_by_role("button", name="Previous").click()
    page.keyboard.press("/")
    page.keyboard.type("many-07")
    expect(rows).to_have_count(1)
    page.get_by_label("Filter sources").fill("nothing like that")
    page.get_by_role("button", name="Clear the filter").click()
    expect(rows).to_have_count(50)
    page.get_by_label("Type", exact=True).select_option("postgresql")
    expect(rows.first).to_contain_text("PostgreSQL")
    for number in range(60):
        server.admin("DELETE", f"/sources/many-{number:02}")


def test_database_is_added_by_form_and_its_errors_stand_at_the_fields(
    tab: Tab, server: ConsoleServer, shop: dict[str, Any]
) -> None:
    page = tab.open("add/postgresql")
    page.get_by_label("Name", exact=True).fill("Shop database")
    expect(page.get_by_label("Id", exact=True)).to_have_value("shop-database")
    for name in ("host", "database", "user"):
        page.get_by_label(name.capitalize(), exact=True).fill(shop[name])
    port = page.get_by_label(re.compile("^Port"))
    password = page.get_by_label(re.compile("^Password"))
    port.fill("many")
    add = page.get_by_role("button", name="Add source")
    add.click()
    expect(port).to_be_focused()
    expect(port).to_have_attribute("aria-invalid", "true")
    expect(page.locator("p.field-error:visible", has_text="integer")).to_be_visible()
    port.fill(str(shop["port"]))
    password.fill("wrong")
    add.click()
    expect(password).to_be_focused()
    expect(page.locator("p.field-error", has_text="password authentication")).to_be_visible()
    assert server.admin("GET", "/sources/shop-database").status == 404
    password.fill(shop["password"])
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.get_by_text("It works")).to_be_visible()
    page.get_by_role("button", name="Find choices").click()
    choices = page.locator(".choice")
    expect(choices.filter(has_text="shop")).to_be_visible()
    choices.filter(has_text="public").click()
    expect(page.get_by_label(re.compile("^Schemas"))).to_have_value("public")
    add.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Shop database")
    expect(page.get_by_role("link", name="public.orders")).to_be_visible()
    stored = server.admin("GET", "/sources/shop-database").json
    assert stored["options"]["schemas"] == ["public"]
    assert shop["password"] not in page.content()


def test_alternatives_decide_which_fields_are_asked_for(tab: Tab) -> None:
    page = tab.open("add/azure_blob")
    key = page.locator("input[name=account_key]")
    expect(key).to_be_hidden()
    page.get_by_role("radio", name="Account key").check()
    expect(key).to_be_visible()
    expect(page.locator("input[name=connection_string]")).to_be_hidden()
    page.get_by_label("Id", exact=True).fill("blobs")
    page.get_by_label("Container", exact=True).fill("NO")
    add = page.get_by_role("button", name="Add source")
    add.click()
    expect(page.get_by_label("Account url", exact=True)).to_be_focused()
    expect(page.locator("p.field-error:visible", has_text="Must be given")).to_have_count(2)
    page.get_by_label("Account url", exact=True).fill("https://shop.blob.core.windows.net")
    key.fill("YSBrZXk=")
    add.click()
    expect(page.get_by_label("Container", exact=True)).to_be_focused()
    page.get_by_text("Advanced options").click()
    expect(page.get_by_label(re.compile("^Retries"))).to_have_attribute("placeholder", "6")


def test_setting_that_admits_a_refused_source_is_named_at_the_field(tab: Tab) -> None:
    page = tab.open("add/local_file")
    page.get_by_label("Id", exact=True).fill("etc")
    path = page.get_by_label("Path", exact=True)
    path.fill("/etc")
    page.get_by_role("button", name="Add source").click()
    expect(path).to_be_focused()
    expect(page.locator("p.field-error", has_text="--allow-root")).to_be_visible()


def test_source_that_does_not_answer_can_be_saved_without_a_test(
    tab: Tab, server: ConsoleServer
) -> None:
    page = tab.open("add/postgresql")
    page.get_by_label("Id", exact=True).fill("later")
    for name, value in {"Host": "127.0.0.1", "Database": "x", "User": "x"}.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_label(re.compile("^Port")).fill("1")
    page.get_by_role("button", name="Add source").click()
    page.get_by_role("button", name="Save without a test").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("later")
    server.admin("DELETE", "/sources/later")


def test_wrong_password_is_fixed_without_the_other_options_being_typed_again(
    tab: Tab, server: ConsoleServer, shop: dict[str, Any]
) -> None:
    server.admin.create("broken", "postgresql", **{**shop, "password": "wrong"})
    page = tab.open("source/broken")
    page.get_by_role("button", name="Test").click()
    expect(page.get_by_text("password authentication failed").first).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    page.get_by_role("button", name="Replace Password").click()
    page.get_by_label(re.compile("^Password")).fill(shop["password"])
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("broken")
    expect(page.get_by_role("link", name="public.orders")).to_be_visible()
    server.admin("DELETE", "/sources/broken")


def test_changed_destination_asks_for_the_secret_at_its_field(
    tab: Tab, server: ConsoleServer, shop: dict[str, Any]
) -> None:
    server.admin.create("moved", "postgresql", **shop)
    page = tab.open("edit/moved")
    page.get_by_label("Host", exact=True).fill("localhost")
    page.get_by_label("Test before saving").uncheck()
    page.get_by_role("button", name="Save").click()
    password = page.get_by_label(re.compile("^Password"))
    expect(password).to_be_focused()
    reason = "given again, or removed: a stored secret is sent only to the destination that it was"
    expect(page.locator("p.field-error", has_text=reason)).to_be_visible()
    expect(page.get_by_text(reason)).to_have_count(1)  # and not above the form, too
    link = page.get_by_role("alert").get_by_role("button", name="Password")
    page.get_by_label("Host", exact=True).focus()
    link.click()
    expect(password).to_be_focused()
    password.fill(shop["password"])
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("moved")
    assert server.admin("GET", "/sources/moved").json["options"]["host"] == "localhost"
    server.admin("DELETE", "/sources/moved")


def test_second_of_two_editors_sees_both_versions_and_chooses(
    new_tab: Callable[..., Tab], server: ConsoleServer
) -> None:
    server.admin.create("contested", path=str(server.data / "lake"))
    first, second = new_tab(), new_tab()
    pages = [first.open("edit/contested"), second.open("edit/contested")]
    pages[0].get_by_label("Name", exact=True).fill("First")
    pages[0].get_by_role("button", name="Save").click()
    expect(pages[0].get_by_role("heading", level=1)).to_have_text("First")
    pages[1].get_by_label("Name", exact=True).fill("Second")
    pages[1].get_by_role("button", name="Save").click()
    dialog = pages[1].get_by_role("dialog")
    expect(dialog.get_by_role("row", name="Name First Second")).to_be_visible()
    assert second.violations() == []
    dialog.get_by_role("button", name="Take the stored version").click()
    expect(pages[1].get_by_label("Name", exact=True)).to_have_value("First")
    pages[1].get_by_label("Name", exact=True).fill("Second")
    third = {"name": "Third", "metadata": {"owner": "ann"}, "limits": {"max_rows": 5}}
    server.admin("PATCH", "/sources/contested", third, headers={"If-Match": "*"})
    pages[1].get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("row", name="Name Third Second")).to_be_visible()
    expect(dialog.get_by_role("row", name="Metadata owner ann not changed by you")).to_be_visible()
    expect(dialog.get_by_role("row", name="Limits")).to_contain_text('"max_rows":5')
    dialog.get_by_role("button", name="Save mine").click()
    expect(pages[1].get_by_role("heading", level=1)).to_have_text("Second")
    stored = server.admin("GET", "/sources/contested").json
    assert (stored["name"], stored["metadata"]) == ("Second", {"owner": "ann"})
    server.admin("DELETE", "/sources/contested")


def test_source_is_paused_with_a_reason_resumed_and_deleted(
    tab: Tab, server: ConsoleServer
) -> None:
    server.admin.create("worker", path=str(server.data / "lake"))
    page = tab.open("source/worker")
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Give a reason")
    dialog.get_by_label("Reason").fill("moving until noon")
    assert tab.violations() == []
    page.keyboard.press("Enter")
    expect(page.get_by_text("Moving until noon")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sources")
    assert server.admin("GET", "/sources/worker").status == 404


def test_what_ends_late_leaves_the_page_that_is_shown_meanwhile(
    tab: Tab, server: ConsoleServer
) -> None:
    server.admin.create("resting", path=str(server.data / "lake"))
    server.admin("POST", "/sources/resting/pause", {"reason": "a rest"})
    page = tab.open("source/resting")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/sources/resting/resume", hold)
    with page.expect_request("**/sources/resting/resume"):
        page.get_by_role("button", name="Resume").click()
    tab.go("add/local_file")
    page.get_by_label("Id", exact=True).fill("typed")
    held[0].continue_()
    expect(page.get_by_text("Resumed resting.")).to_be_visible()
    expect(page.get_by_label("Id", exact=True)).to_have_value("typed")
    server.admin("DELETE", "/sources/resting")


def test_folders_lead_to_items_and_patterns_find_them(tab: Tab) -> None:
    page = tab.open("source/lake")
    page.get_by_role("link", name="reports").click()
    page.get_by_role("link", name="2026").click()
    page.get_by_role("link", name="units.csv").click()
    expect(page.get_by_role("table", name="Rows").get_by_role("cell", name="12")).to_be_visible()
    page.get_by_role("link", name="2026").click()
    expect(page.get_by_role("link", name="units.csv")).to_be_visible()
    page.get_by_label("Search items").fill("read")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="readme.txt")).to_be_visible()
    expect(page.get_by_text("1 item", exact=True)).to_be_visible()


@pytest.fixture
def large(server: ConsoleServer) -> Iterator[int]:
    """The number of files of the source `large`, in one folder."""
    folder, count = server.data / "large", 5000
    folder.mkdir()
    for number in range(count):
        (folder / f"file-{number:05}.txt").touch()
    server.admin.create("large", path=str(folder))
    yield count
    server.admin("DELETE", "/sources/large")


SCROLL = """async (goal) => {
    const status = document.querySelector("main p[role=status]");
    while (Number(status.textContent.replace(/[^0-9]/g, "")) < goal) {
        window.scrollTo(0, document.body.scrollHeight);
        await new Promise((resolve) => setTimeout(resolve));
    }
}"""


def test_million_items_are_scrolled_in_the_memory_of_a_few_thousand(
    tab: Tab, server: ConsoleServer
) -> None:
    server.admin.create("million", "many", count=1_000_000)
    page = tab.open("source/million")
    session = tab.context.new_cdp_session(page)
    rows = page.locator(".space .line")
    expect(page.get_by_role("link", name="item-0000000.txt")).to_be_visible()

    def used_after(items: int) -> int:
        """Return the bytes of the page's heap when it has scrolled past this many items."""
        page.evaluate(SCROLL, items)
        session.send("HeapProfiler.collectGarbage")
        return int(session.send("Runtime.getHeapUsage")["usedSize"])

    before = used_after(10_000)
    after = used_after(40_000)
    assert rows.count() < 100
    # An item takes about 300 bytes where it is kept, and the cursor of a page as much.
    assert after - before < 30_000 * 50
    page.evaluate("window.scrollTo(0, 0)")
    expect(page.get_by_role("link", name="item-0000000.txt")).to_be_visible()
    server.admin("DELETE", "/sources/million")


# Shows a list of 50,000 rows a page, of which four are lower than a page can be high.
LONG_LIST = """async () => {
    const { LongList } = await import(new URL("console/list.js", document.baseURI));
    const size = 50_000;
    const load = async (cursor) => {
        const first = Number(cursor);
        const items = Array.from({ length: size }, (_, number) => first + number);
        return { items, next_cursor: String(first + size) };
    };
    const list = new LongList({
        label: "Numbers",
        columns: ["Number"],
        signal: new AbortController().signal,
        load,
        row: (item) => [String(item)],
        changed: () => {},
    });
    await list.begin();
    document.querySelector("main").replaceChildren(list.node);
    const next = () => new Promise(requestAnimationFrame);
    while (list.count < 5 * size) {
        window.scrollTo(0, document.body.scrollHeight);
        await next();
    }
    await next();
    const inView = (line) => line.getBoundingClientRect().top < innerHeight
        && line.getBoundingClientRect().bottom > 0;
    return [...document.querySelectorAll(".space .line")].filter(inView).map((line) =>
        Number(line.textContent));
}"""


def test_rows_stay_in_view_while_others_are_added_beyond_the_height_of_a_page(tab: Tab) -> None:
    page = tab.open()
    numbers = page.evaluate(LONG_LIST)
    assert 199_999 in numbers
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_large_folder_is_scrolled_with_few_rows_in_the_page(tab: Tab, large: int) -> None:
    page = tab.open("source/large")
    rows = page.locator(".space .line")
    expect(page.get_by_role("link", name="file-00000.txt")).to_be_visible()
    most = 0
    while not page.get_by_text(f"{large:,} items", exact=True).is_visible():
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.evaluate("new Promise(requestAnimationFrame)")
        most = max(most, rows.count())
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    expect(page.get_by_role("link", name=f"file-{large - 1:05}.txt")).to_be_visible()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight / 2)")
    expect(page.locator(".space .line a").nth(15)).to_contain_text("file-025")
    page.evaluate("window.scrollTo(0, 0)")
    first = page.get_by_role("link", name="file-00000.txt")
    expect(first).to_be_visible()
    first.focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
        page.evaluate("new Promise(requestAnimationFrame)")  # rows are drawn when it is scrolled
    expect(page.get_by_role("link", name="file-00030.txt")).to_be_focused()
    assert max(most, rows.count()) < 100
    assert tab.violations() == []


def test_table_has_types_figures_and_plots(tab: Tab) -> None:
    page = tab.open("item/db?item=public.orders")
    rows = page.get_by_role("table", name="Rows")
    expect(rows.get_by_role("columnheader", name="amount numeric(8,2)")).to_be_visible()
    expect(rows.locator("tbody tr")).to_have_count(100)
    page.get_by_role("tab", name="Preview").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Columns")).to_be_focused()
    page.get_by_role("tab", name="Statistics").click()
    expect(page.get_by_role("row", name="amount 5,000 0 0.12 465.595 999.75")).to_be_visible()
    expect(page.get_by_role("img", name="Histogram of amount")).to_be_visible()
    tab.go("item/lake?item=reports%2F2026%2Funits.csv")
    page.get_by_role("tab", name="Statistics").click()
    expect(page.get_by_role("row", name="units 2 1 3 7.5 12")).to_be_visible()


def test_item_is_downloaded(tab: Tab, tmp_path: Path) -> None:
    page = tab.open("item/db?item=public.customers")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.suffix == ".csv"
    assert len(path.read_text().splitlines()) == 501


def test_download_tells_how_many_rows_it_has_at_most(tab: Tab, server: ConsoleServer) -> None:
    server.admin("PATCH", "/sources/db", {"limits": {"max_rows": 3}}, headers={"If-Match": "*"})
    page = tab.open("item/db?item=public.customers")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    expect(page.locator("#status")).to_contain_text("It has 3 rows at most.")
    assert len(waiting.value.path().read_text().splitlines()) == 4
    server.admin("PATCH", "/sources/db", {"limits": None}, headers={"If-Match": "*"})


def test_download_that_would_fail_tells_why(tab: Tab) -> None:
    page = tab.open("query?source=db")
    page.get_by_label("Source", exact=True).select_option("db")
    page.get_by_label("Query", exact=True).fill("select nothing from nowhere")
    page.get_by_role("button", name="Download").click()
    expect(page.locator("#status")).to_contain_text("nowhere")
    assert not [url for url in tab.requests if "/links" in url]


def test_colleague_is_told_that_administrators_edit_sources(
    new_tab: Callable[..., Tab], server: ConsoleServer
) -> None:
    reader = server.add_token("no-editor", {"source": "lake", "rights": ["read"]})
    tab = new_tab()
    page = tab.open("edit/lake", token=reader)
    for path in ("edit/lake", "add", "add/local_file"):
        tab.go(path)
        expect(page.get_by_text("Only administrators add and edit sources")).to_be_visible()


def test_result_of_a_test_is_in_view(new_tab: Callable[..., Tab], server: ConsoleServer) -> None:
    page = new_tab(viewport={"width": 900, "height": 400}).open("edit/db")
    test = page.get_by_role("button", name="Test", exact=True)
    page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
    test.click()
    expect(page.get_by_text("It works")).to_be_in_viewport()
    expect(test).to_be_focused()


def test_query_is_run_cancelled_and_stored(tab: Tab, server: ConsoleServer) -> None:
    page = tab.open("query?source=db")
    page.get_by_label("Source", exact=True).select_option("db")
    editor = page.get_by_label("Query", exact=True)
    editor.fill("select country, count(*) as n from customers group by 1 order by 1;")
    page.keyboard.press("Control+Enter")
    rows = page.get_by_role("table", name="Rows")
    expect(rows.get_by_role("columnheader", name="n bigint")).to_be_visible()
    expect(rows.get_by_role("cell", name="DE")).to_be_visible()
    expect(page.get_by_text(re.compile(r"^5 rows in"))).to_be_visible()
    page.get_by_role("button", name="Save as stored query").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("p.field-error", has_text="Must be given")).to_be_visible()
    dialog.get_by_label("Name").fill("by-country")
    assert tab.violations() == []
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Stored as query:by-country")).to_be_visible()
    numbers = "generate_series(1, 300000)"
    editor.fill(f"select count(*) from {numbers} a, {numbers} b")  # takes minutes
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled")).to_be_visible()
    editor.fill("drop table orders")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("read-only")
    reader = server.add_token("storer", {"source": "db", "rights": ["read"]})
    page.get_by_role("button", name="Sign out").click()
    page = tab.open("source/db", token=reader)
    page.get_by_role("link", name="query:by-country").click()
    expect(page.get_by_role("cell", name="JP")).to_be_visible()


def test_users_have_the_pages_of_their_rights(tab: Tab, server: ConsoleServer) -> None:
    grants: list[dict[str, object]] = [
        {"source": "db", "rights": ["read", "query"]},
        {"source": "lake", "rights": ["read"], "items": ["reports/**"]},
    ]
    page = tab.open(token=server.add_token("ann", *grants))
    expect(page.get_by_role("link", name="Tokens")).to_have_count(0)
    expect(page.get_by_role("link", name="Add source")).to_have_count(0)
    page.get_by_role("link", name="lake").click()
    expect(page.get_by_role("link", name="reports")).to_be_visible()
    expect(page.get_by_role("link", name="readme.txt")).to_have_count(0)
    for name in ("Edit", "Pause", "Delete"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    tab.go("query")
    page.get_by_label("Query", exact=True).fill("select 42 as answer")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("cell", name="42")).to_be_visible()


def test_token_is_made_shown_once_and_revoked(tab: Tab, server: ConsoleServer) -> None:
    page = tab.open("tokens")
    page.get_by_role("button", name="Add token").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("Give the token a name")
    dialog.get_by_label("Name").fill("bob")
    dialog.get_by_label("Source 1", exact=True).fill("lake")
    dialog.get_by_label("Items of source 1").fill("reports/**")
    assert tab.violations() == []
    dialog.get_by_role("button", name="Add", exact=True).click()
    field = dialog.get_by_label("The token of bob")
    token = field.input_value()
    assert tab.violations() == []
    dialog.get_by_role("button", name="Done").click()
    expect(page.get_by_role("row", name=re.compile("^bob lake read of reports"))).to_be_visible()
    assert token not in page.content()
    assert Client(server.port, token)("GET", "/sources/lake").status == 200
    page.get_by_role("button", name="Revoke bob").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name=re.compile("^bob"))).to_have_count(0)


@pytest.mark.parametrize("width", [360, 390])
def test_tokens_are_revoked_on_a_phone(
    new_tab: Callable[..., Tab], server: ConsoleServer, width: int
) -> None:
    grant = {"source": "a-source-of-the-company", "rights": ["read", "write"]}
    other = {"source": "lake", "rights": ["read"], "items": ["reports/2026/**"]}
    name = f"somebody-with-a-long-name-{width}"
    token = server.add_token(name, grant, other)
    assert Client(server.port, token)("GET", "/me").status == 200  # so that there is a last use
    page = new_tab(viewport={"width": width, "height": 800}, has_touch=True).open("tokens")
    revoke = page.get_by_role("button", name=f"Revoke {name}")
    revoke.scroll_into_view_if_needed()
    expect(revoke).to_be_in_viewport(ratio=0.9)
    assert page.get_by_role("region", name="Tokens").evaluate("node => node.scrollLeft") == 0
    server.admin("DELETE", f"/tokens/{name}")


def test_colleague_gets_access_from_the_page_of_a_source(new_tab: Callable[..., Tab]) -> None:
    page = new_tab(permissions=["clipboard-read", "clipboard-write"]).open("source/lake")
    page.get_by_role("link", name="Give access").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Source 1", exact=True)).to_have_value("lake")
    dialog.get_by_label("Name").fill("newcomer")
    dialog.get_by_role("button", name="Add", exact=True).click()
    dialog.get_by_role("button", name="Copy a link that signs in").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    colleague = new_tab().page
    colleague.goto(link)
    expect(colleague.locator(".who")).to_have_text("newcomer")
    expect(colleague.get_by_role("link", name="lake")).to_be_visible()
    page.go_back()
    expect(dialog).to_have_count(0)


def test_table_has_a_link_to_a_query_that_keeps_what_is_typed_there(tab: Tab) -> None:
    page = tab.open("query?source=db")
    editor = page.get_by_label("Query", exact=True)
    editor.fill("select 1 as draft")
    tab.go("item/db?item=public.customers")
    page.get_by_role("main").get_by_role("link", name="Query").click()
    expect(editor).to_have_value(re.compile(r"^select 1 as draft\n\nSELECT \*\nFROM public\.cust"))
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("columnheader", name="country text")).to_be_visible()


def test_hostile_names_and_cells_execute_nothing_and_load_nothing(
    tab: Tab, server: ConsoleServer, shop: dict[str, Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        markup = f"<img src={address} onerror=alert(1)>"
        folder = server.data / "hostile"
        (folder / "javascript:alert(1)").mkdir(parents=True)
        names = [
            "<img src=x onerror=alert(1)>.csv",
            "javascript:alert(2).csv",
            "javascript:alert(1)/x.html",
            "a#b?c&d=%2e%2e\u202etxt.csv",
            "new\nline.csv",
        ]
        for name in names:
            (folder / name).write_text(f'"{markup}","=cmd"\n"<script>alert(3)</script>",{markup}\n')
        server.admin.create("hostile", path=str(folder))
        renamed = {"name": markup, "metadata": {markup: markup, "list": [markup]}}
        server.admin("PATCH", "/sources/hostile", renamed, headers={"If-Match": "*"})
        server.admin("POST", "/sources/hostile/pause", {"reason": markup})
        page = tab.open("source/hostile")
        expect(page.get_by_role("heading", level=1)).to_have_text(markup)
        expect(page.locator(".box.note")).to_contain_text(markup)
        page.get_by_role("button", name="Resume").click()
        tab.go("")
        page.get_by_role("link", name=markup).click()
        for name in names:
            tab.go("source/hostile")
            *folders, last = name.split("/")
            for folder_name in folders:
                page.get_by_role("link", name=folder_name, exact=True).click()
            page.locator(".space a").filter(has_text=last.split("\n")[-1]).click()
            expect(page.get_by_role("tab", name="Preview")).to_be_visible()
            expect(page.locator("main")).to_contain_text("<script>alert(3)</script>")
            page.get_by_role("tab", name="Statistics").click()
            page.get_by_role("tab", name="Details").click()
        tab.go("edit/hostile")
        page.locator("summary", has_text="Metadata").click()
        expect(page.get_by_label("Value of note 1")).to_have_value(markup)
        tab.go("audit?source=hostile&operation=preview")
        page.get_by_role("button", name="Details").first.click()
        expect(page.locator("main")).to_contain_text("alert(")
        tab.go("query?source=db")
        page.get_by_label("Source", exact=True).select_option("db")
        page.get_by_label("Query", exact=True).fill(f"""select '{markup}' as "{markup}" """)
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("cell", name=markup)).to_be_visible()
        for part in ("img", "script:not([src])", "iframe", "[onerror]", "a[href^='javascript']"):
            assert page.locator(f"main {part}").count() == 0
        with pytest.raises(BlockingIOError):  # nobody has connected
            listener.accept()
    server.admin("DELETE", "/sources/hostile")


def test_server_that_goes_away_is_told_and_nothing_typed_is_lost(
    new_tab: Callable[..., Tab],
) -> None:
    with ConsoleServer() as other:
        tab = new_tab(server=other)
        page = tab.open("add/local_file")
        page.get_by_label("Id", exact=True).fill("kept")
        page.get_by_label("Path", exact=True).fill(str(other.data))
        other.kill()
        page.get_by_role("button", name="Add source").click()
        expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
        other.restart()
        page.get_by_role("button", name="Add source").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("kept")


def test_token_that_is_revoked_is_asked_for_over_the_page(tab: Tab, server: ConsoleServer) -> None:
    reader = server.add_token("leaver", {"source": "db", "rights": ["read", "query"]})
    page = tab.open("query?source=db", token=reader)
    editor = page.get_by_label("Query", exact=True)
    editor.fill("select 42 as answer")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("cell", name="42")).to_be_visible()
    server.admin("DELETE", "/tokens/leaver")
    page.get_by_role("button", name="Run").click()
    dialog = page.get_by_role("dialog", name="Sign in again")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Token").fill(server.token)
    dialog.get_by_role("button", name="Sign in", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(editor).to_have_value("select 42 as answer")
