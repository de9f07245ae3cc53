"""Uploads of files into a source, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judges.conftest import Tab
from tests.judges.serving import ConsoleServer

sync_api = pytest.importorskip("playwright.sync_api", reason="`nox -s judges` installs Playwright")
expect = sync_api.expect
expect.set_options(timeout=30_000)


@pytest.fixture
def inbox(server: ConsoleServer) -> Iterator[Path]:
    """The directory of the source `inbox`, which takes files."""
    folder = server.data / "inbox"
    (folder / "old").mkdir(parents=True)
    (folder / "old/report.csv").write_text("n\n1\n")
    server.admin.create("inbox", "local_file", path=str(folder), writable=True)
    yield folder
    server.admin("DELETE", "/sources/inbox")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def choose(page: Any, *files: Any) -> None:
    """Choose files in the dialog of the browser that the button opens."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload", exact=True).click()
    chooser.value.set_files(list(files))


def file(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "text/csv", "buffer": content}


def test_files_are_uploaded_into_the_folder_that_is_shown(tab: Tab, inbox: Path) -> None:
    page = tab.open("source/inbox?path=old%2F")
    choose(page, file("new.csv", b"n\n2\n"), file("other.csv", b"n\n3\n"))
    expect(page.get_by_role("table", name="Items")).to_contain_text("other.csv")
    expect(page.get_by_role("table", name="Items")).to_contain_text("new.csv")
    assert (inbox / "old/new.csv").read_bytes() == b"n\n2\n"
    assert tab.violations() == []


def test_item_is_replaced_only_after_a_question(tab: Tab, inbox: Path) -> None:
    page = tab.open("source/inbox?path=old%2F")
    dialog = page.get_by_role("dialog", name="Replace the item?")
    choose(page, file("report.csv", b"n\n2\n"))
    expect(dialog).to_contain_text("old/report.csv is in the source already")
    assert tab.violations() == []
    dialog.get_by_role("button", name="Cancel", exact=True).click()
    expect(dialog).to_have_count(0)
    assert (inbox / "old/report.csv").read_bytes() == b"n\n1\n"
    choose(page, file("report.csv", b"n\n2\n"))
    dialog.get_by_role("button", name="Replace", exact=True).click()
    expect(page.locator("#status")).to_have_text("Uploaded old/report.csv.")
    assert (inbox / "old/report.csv").read_bytes() == b"n\n2\n"


def test_upload_shows_progress_and_is_cancelled(tab: Tab, inbox: Path, tmp_path: Path) -> None:
    page = tab.open("source/inbox?path=old%2F")
    session = tab.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 50_000}
    session.send("Network.emulateNetworkConditions", slow)
    (tmp_path / "large.csv").write_bytes(bytes(20 << 20))
    choose(page, tmp_path / "large.csv")
    expect(page.get_by_role("progressbar", name="Upload of large.csv")).to_be_visible()
    page.locator("#downloads").get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("progressbar")).to_have_count(0)
    expect(page.get_by_role("button", name="Upload", exact=True)).to_be_enabled()
    assert [path.name for path in (inbox / "old").iterdir()] == ["report.csv"]


def test_refusal_of_an_upload_is_shown(tab: Tab, server: ConsoleServer, inbox: Path) -> None:
    limits = {"limits": {"max_bytes": 10}}
    version = server.admin("GET", "/sources/inbox").headers["etag"]
    changed = server.admin("PATCH", "/sources/inbox", limits, headers={"If-Match": version})
    assert changed.status == 200, changed.body
    page = tab.open("source/inbox?path=old%2F")
    choose(page, file("large.csv", b"x" * 1000))
    expect(page.get_by_role("alert")).to_contain_text("more than 10 bytes")
    assert [path.name for path in (inbox / "old").iterdir()] == ["report.csv"]


def test_only_who_may_write_sees_the_button(tab: Tab, server: ConsoleServer, inbox: Path) -> None:
    reader = server.add_token("inbox-reader", {"source": "inbox", "rights": ["read"]})
    page = tab.open("source/inbox", token=reader)
    expect(page.get_by_role("heading", name="Items", exact=True)).to_be_visible()
    assert page.get_by_role("button", name="Upload", exact=True).count() == 0
