"""The console's page and files: sent with headers that let nothing else run."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from tests.server.client import Answer, Client
from tests.server.served import ServeCommand
from tests.server.test_serve import served

__all__ = ["served"]

FILES = sorted(
    entry.name
    for entry in (resources.files("datasources_server") / "console").iterdir()
    if entry.name != "index.html"
)


def get(served: ServeCommand, path: str, **headers: str) -> Answer:
    client = Client(served.port, None)
    return client("GET", path, prefix="", headers=headers)


def test_console_is_served_without_a_token_and_its_policy_has_no_inline_code(
    served: ServeCommand,
) -> None:
    page = get(served, "/")
    assert page.status == 200
    assert page.headers["cache-control"] == "no-store"
    names = re.findall(r'(?:src|href)="console/([^"]+)"', page.body.decode())
    assert set(names) == set(FILES)  # so that the browser loads all of them at once
    for path in ("/", *(f"/console/{name}" for name in FILES)):
        answer = get(served, path)
        policy = answer.headers["content-security-policy"]
        assert answer.status == 200
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for rule in (
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "base-uri 'none'",
        ):
            assert rule in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(rb"<script>|<style|\son\w+=|style=", page.body)


def test_files_are_revalidated_and_others_do_not_exist(served: ServeCommand) -> None:
    first = get(served, "/console/app.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    again = get(served, "/console/app.js", **{"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    for path in ("/console/", "/console/index.html", "/console/../app.py", "/console/app.py"):
        assert get(served, path).status == 404


def test_links_of_other_sites_lead_to_the_console_and_frames_do_not(served: ServeCommand) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert get(served, "/", **cross, **{"Sec-Fetch-Dest": "document"}).status == 200
    assert get(served, "/", **cross, **{"Sec-Fetch-Dest": "iframe"}).status == 403
    assert get(served, "/console/app.js", **cross).status == 403
    assert get(served, "/healthz", **cross, **{"Sec-Fetch-Dest": "document"}).status == 403
    assert get(served, "/", Host="other.example").status == 421


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_scripts_make_no_html_of_text(name: str) -> None:
    script = (resources.files("datasources_server") / "console" / name).read_text("utf-8")
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|eval\(|Function\("
    )
    assert not re.search(sinks, script)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script)
