"""The console in Chromium: every page, on the real server, with a database and files."""

from __future__ import annotations

from tests.judges.conftest import Tab
from tests.judges.serving import ConsoleServer


def test_token_of_the_address_signs_in_and_leaves_the_address(tab: Tab, server: ConsoleServer) -> None:
    page = tab.open()
    assert server.token not in page.url
    page.go_back()
    assert server.token not in page.url
