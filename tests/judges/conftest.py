"""Chromium, pages of the console in it, and what these must never do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import IN_CI, _served
from tests.judges.serving import ConsoleServer
from tests.servers import PostgresServer, ServerError
from tests.servers.azurite import cache_directory, install_package
from tests.servers.debian import CHROMIUM, require

playwright = pytest.importorskip(
    "playwright.sync_api", reason="`nox -s judges` installs Playwright"
)

AXE_VERSION = "4.14.1"
TIMEOUT = 30_000  # milliseconds that an expectation may take to come true
playwright.expect.set_options(timeout=TIMEOUT)
# The test's own requests for what is refused are errors of the network in the browser's console.
_EXPECTED = "Failed to load resource"


def _available(find: Callable[[], Any]) -> Any:
    """Return what a function finds; a failure fails the test in CI, and skips it elsewhere."""
    try:
        return find()
    except ServerError as exc:
        if IN_CI:
            pytest.fail(str(exc), pytrace=False)
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def axe() -> Path:
    """The script of axe-core, which checks the accessibility of a page."""
    arguments = (cache_directory(), "axe-core", AXE_VERSION, "axe.min.js")
    path: Path = _available(lambda: install_package(*arguments)[1])
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    _available(lambda: require(CHROMIUM))
    with playwright.sync_playwright() as driver:
        # The tests may run as root, for whom Chromium has no sandbox.
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def server() -> Iterator[ConsoleServer]:
    with ConsoleServer() as server:
        yield server


@pytest.fixture(scope="session")
def shop() -> Iterator[dict[str, Any]]:
    """The options of a database with customers and orders, which a role may read."""
    from demo.content import fill_database

    for server in _served(PostgresServer()):
        password = fill_database(server)
        yield {
            "host": "127.0.0.1",
            "port": server.port,
            "database": "shop",
            "user": "analyst",
            "password": password,
        }


class Tab:
    """A page of the console, signed in; `check` asserts that it did nothing that it must not.

    Attributes:
        page: Playwright's page.
        requests: Addresses of all requests.
    """

    def __init__(self, browser: Any, axe: Path, server: ConsoleServer, **options: Any) -> None:
        self._server = server
        self._url = server.url
        self.context = browser.new_context(**options)
        self.context.add_init_script(path=axe)
        self.page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(f"error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("console", self._message)

    def _dialog(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _message(self, message: Any) -> None:
        # A violation of the content security policy is such an error, too.
        if message.type in ("error", "warning") and _EXPECTED not in message.text:
            self.errors.append(f"{message.type}: {message.text}")

    def open(self, path: str = "", *, token: str | None = None) -> Any:
        """Sign in, go to a page below `#/`, and return the page when it is there."""
        self.page.goto(f"{self._server.url}#token={token or self._server.token}")
        self.wait_for_page("")
        if path:
            self.go(path)
        return self.page

    def go(self, path: str) -> None:
        """Go to a page below `#/`, and wait until it has taken the place of the one before."""
        self.page.evaluate("path => { location.hash = `#/${path}` }", path)
        self.wait_for_page(path)

    def wait_for_page(self, path: str) -> None:
        self.page.wait_for_function(
            "path => document.querySelector('main')?.dataset.address === `#/${path}`", arg=path
        )

    def violations(self) -> list[str]:
        """Return what axe-core finds wrong on the page as it is."""
        self.page.wait_for_function(
            "() => document.getAnimations().every("
            "(animation) => animation.effect.getComputedTiming().iterations === Infinity)"
        )
        found = self.page.evaluate("async () => (await axe.run(document)).violations")
        return [
            f"{violation['id']}: {violation['help']}: {node['html'][:200]} {node['target']}"
            for violation in found
            for node in violation["nodes"]
        ]

    def check(self) -> None:
        assert self.errors == []
        own = (self._url, f"blob:{self._url}")
        assert [url for url in self.requests if not url.startswith(own)] == []


@pytest.fixture
def new_tab(browser: Any, axe: Path, server: ConsoleServer) -> Iterator[Callable[..., Tab]]:
    """Makes pages of browsers that share nothing; each is checked at the end."""
    tabs: list[Tab] = []

    def make(server: ConsoleServer = server, **options: Any) -> Tab:
        tabs.append(Tab(browser, axe, server, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.context.close()
    for tab in tabs:
        tab.check()


@pytest.fixture
def tab(new_tab: Callable[..., Tab]) -> Tab:
    return new_tab()
