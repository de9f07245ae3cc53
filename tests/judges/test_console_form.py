"""The form of a source in Chromium: every field that the API takes, and errors at their fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.judges.conftest import Tab
from tests.judges.serving import ConsoleServer

sync_api = pytest.importorskip("playwright.sync_api", reason="`nox -s judges` installs Playwright")
expect = sync_api.expect

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def depot(server: ConsoleServer, shop: dict[str, Any]) -> Iterator[None]:
    """The source `depot`, a database."""
    server.admin.create("depot", "postgresql", **shop)
    yield
    server.admin("DELETE", "/sources/depot")


def unfold(page: Any, *names: str) -> None:
    for name in names:
        page.locator("summary", has_text=name).click()


def errors_of(page: Any) -> list[str]:
    """Return the labels of the fields that are marked as wrong, in the order of the page."""
    found: list[str] = page.locator("[aria-invalid=true]").evaluate_all(
        "nodes => nodes.map(node => node.labels[0]?.firstChild.textContent ?? node.ariaLabel)"
    )
    return found


def test_limits_metadata_and_queries_are_set_and_changed(tab: Tab, server: ConsoleServer) -> None:
    page = tab.open("edit/depot")
    unfold(page, "Limits", "Stored queries", "Metadata")
    page.get_by_label("Limits of its own").check()
    page.get_by_label("Size of a file").fill("2 MB")
    page.get_by_label("Rows of a result").fill("")
    page.get_by_role("button", name="Add a note").click()
    page.get_by_label("Name of note 1").fill("owner")
    page.get_by_label("Value of note 1").fill(MARKUP)
    page.get_by_role("button", name="Add a query").click()
    page.get_by_label("Name of the query").fill("by-country")
    page.get_by_label("Text of the query").fill(
        "select name from customers where country = :country order by id"
    )
    page.get_by_role("button", name="Declare the parameter country").click()
    page.get_by_label("Choices").fill("DE\nFR")
    assert tab.violations() == []
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("depot")
    stored = server.admin("GET", "/sources/depot").json
    assert stored["limits"] == {"max_bytes": 2_000_000, "max_rows": None, "timeout": 300}
    assert stored["metadata"] == {"owner": MARKUP}
    assert stored["queries"]["by-country"]["parameters"]["country"]["choices"] == ["DE", "FR"]
    tab.go("edit/depot")
    expect(page.locator("summary", has_text="Limits")).to_contain_text("2.0 MB, 300 s")
    unfold(page, "Limits", "Stored queries", "Metadata")
    expect(page.get_by_label("Size of a file")).to_have_value("2 MB")
    page.get_by_label("Limits of its own").uncheck()
    page.get_by_role("button", name="Remove note 1").click()
    page.get_by_role("button", name="Remove the parameter country").click()
    page.get_by_label("Text of the query").fill("select 1 as one")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("depot")
    stored = server.admin("GET", "/sources/depot").json
    assert (stored["limits"], stored["metadata"]) == (None, {})
    assert stored["queries"]["by-country"]["parameters"] == {}


def test_form_that_was_not_touched_changes_nothing(tab: Tab, server: ConsoleServer) -> None:
    changes = {
        "limits": {"max_bytes": 1234, "max_rows": None, "timeout": 2.5},
        "metadata": {
            "owner": "ann\nand bob",
            "__proto__": "x",
            "tags": ["a", 1],
            "nested": {"deep": True},
        },
        "queries": {
            "q": {
                "text": "\r\nselect :a as a, :b as b, :c as c",
                "parameters": {
                    "a": {"type": "number", "required": False, "default": 2.5},
                    "b": {"type": "boolean", "required": False, "default": True},
                    "c": {"choices": ["x, y", "z"], "description": "One of two"},
                },
            }
        },
    }
    made = server.admin("PATCH", "/sources/depot", changes, headers={"If-Match": "*"})
    assert made.status == 200, made.body
    page = tab.open("edit/depot")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Nothing has changed.")).to_be_visible()
    assert server.admin("GET", "/sources/depot").json["version"] == made.json["version"]


def test_each_problem_stands_at_its_field_and_the_first_one_has_the_focus(tab: Tab) -> None:
    page = tab.open("edit/depot")
    page.get_by_label("Test before saving").uncheck()
    unfold(page, "Advanced options", "Limits")
    page.get_by_label("Limits of its own").check()
    page.get_by_label("Rows of a result").fill("many")
    page.get_by_label("Seconds of a fetch").fill("-1")
    unfold(page, "Limits")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Rows of a result")).to_be_focused()
    assert errors_of(page) == ["Rows of a result", "Seconds of a fetch"]
    expect(page.get_by_role("alert")).to_contain_text("2 fields need a change")
    assert tab.violations() == []
    page.get_by_label("Rows of a result").fill("5")
    page.get_by_label("Seconds of a fetch").fill("5")
    page.get_by_label(re.compile("^Port")).fill("many")
    page.get_by_label(re.compile("^Connect timeout")).fill("soon")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label(re.compile("^Port"))).to_be_focused()
    assert errors_of(page) == ["Port", "Connect timeout"]


def test_problems_of_stored_queries_stand_at_their_fields(tab: Tab) -> None:
    page = tab.open("edit/depot")
    unfold(page, "Stored queries")
    page.get_by_role("button", name="Add a query").click()
    page.get_by_label("Name of the query").fill("No Name")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Text of the query")).to_be_focused()  # it is empty
    page.get_by_label("Text of the query").fill("select :n as n")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Name of the query")).to_be_focused()
    assert errors_of(page) == ["Name of the query"]
    page.get_by_label("Name of the query").fill("fine")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Text of the query")).to_be_focused()
    reason = page.get_by_text("has :n without a declaration")
    expect(reason).to_have_count(1)
    assert errors_of(page) == ["Text of the query"]
    page.get_by_role("button", name="Declare the parameter n").click()
    page.get_by_label("Type").select_option("integer")
    page.get_by_label("A value must be given").uncheck()
    page.get_by_label("Default").fill("none")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("p.field-error", has_text="whole number")).to_be_visible()
    page.get_by_role("button", name="Add a query").click()
    page.get_by_label("Name of the query").nth(1).fill("fine")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("p.field-error", has_text="name of another one")).to_be_visible()


def test_setting_that_admits_a_refused_network_is_named_at_the_host(tab: Tab) -> None:
    page = tab.open("add/postgresql")
    page.get_by_label("Id", exact=True).fill("metadata-service")
    host = page.get_by_label("Host", exact=True)
    for field, value in {"Host": "169.254.169.254", "Database": "x", "User": "x"}.items():
        page.get_by_label(field, exact=True).fill(value)
    for button in ("Test", "Add source"):
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.locator("p.field-error", has_text="--allow-network")).to_be_visible()
        expect(host).to_be_focused()


def test_stored_query_asks_for_its_parameters(tab: Tab, server: ConsoleServer) -> None:
    query = {
        "text": "select name, id from customers where country = :country and id <= :most",
        "parameters": {
            "country": {"choices": ["DE", "FR"], "description": "Where they live"},
            "most": {"type": "integer", "required": False, "default": 100},
        },
    }
    changes = {"queries": {"by-country": query}}
    server.admin("PATCH", "/sources/depot", changes, headers={"If-Match": "*"})
    reader = server.add_token("parameters", {"source": "depot", "rights": ["read"]})
    page = tab.open("source/depot", token=reader)
    page.get_by_role("link", name="query:by-country").click()
    expect(page.get_by_role("heading", name="Give the values")).to_be_visible()
    assert tab.violations() == []
    page.get_by_role("button", name="Run").click()
    country = page.get_by_label("country")
    expect(country).to_be_focused()
    expect(page.locator("p.field-error", has_text="required")).to_be_visible()
    country.select_option("FR")
    page.get_by_label("most").fill("11")
    page.get_by_role("button", name="Run").click()
    rows = page.get_by_role("table", name="Rows").locator("tbody tr")
    expect(rows).to_have_count(3)
    page.get_by_role("tab", name="Statistics").click()
    expect(page.get_by_role("row", name=re.compile("^id 3 0 1"))).to_be_visible()
    page.get_by_role("tab", name="Details").click()
    details = page.get_by_role("tabpanel")
    country = details.get_by_role("row", name=re.compile("^country "))
    expect(country.get_by_role("row", name="choices DE, FR")).to_be_visible()
    expect(details).not_to_contain_text("{")
    assert tab.violations() == []
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    assert len(waiting.value.path().read_text().splitlines()) == 4


def test_form_that_is_not_saved_is_left_only_after_a_question(
    tab: Tab, server: ConsoleServer
) -> None:
    page = tab.open("add/local_file")
    dialog = page.get_by_role("dialog", name="Leave without saving?")
    page.get_by_label("Name", exact=True).fill("Half done")
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(dialog).to_be_visible()
    assert tab.violations() == []
    dialog.get_by_role("button", name="Stay", exact=True).click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("Half done")
    expect(page).to_have_url(re.compile("#/add/local_file$"))
    page.get_by_role("link", name="Jobs", exact=True).click()
    dialog.get_by_role("button", name="Leave", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")


def test_tab_with_an_unsaved_form_asks_before_it_is_closed(new_tab: Any) -> None:
    tab = new_tab()
    page = tab.open("add/local_file")
    page.close(run_before_unload=True)  # nothing was typed
    tab = new_tab()
    page = tab.open("add/local_file")
    page.get_by_label("Name", exact=True).fill("Half done")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    tab.errors.clear()  # of the dialog


def test_form_that_was_saved_is_left_without_a_question(tab: Tab, server: ConsoleServer) -> None:
    (server.data / "kept").mkdir(exist_ok=True)
    page = tab.open("add/local_file")
    page.get_by_label("Name", exact=True).fill("Kept")
    page.get_by_label("Path", exact=True).fill(str(server.data / "kept"))
    page.get_by_role("button", name="Add source", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Kept")
    tab.go("edit/kept")
    page.get_by_label("Name", exact=True).fill("Kept on")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Kept on")
    server.admin("DELETE", "/sources/kept")
