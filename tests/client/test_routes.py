"""Every route of the server has a method of the client, and every method asks for its route."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from datasources import CredentialManager, DataSourceRegistry
from datasources_client import Client, DataSourceError, Link, Selection
from datasources_server import Tokens, create_app
from tests.client.scripted import ScriptedServer, problem

ID, BODY = "shop", {"path": "x"}
LINK = Link("https://data.example/v1/links/code", datetime.now(UTC), None)
# The route and the call of each method that sends one request.
CALLS: list[tuple[str, Callable[[Client], Any]]] = [
    ("GET /healthz", lambda client: client.check_health()),
    ("GET /readyz", lambda client: client.check_ready()),
    ("GET /metrics", lambda client: client.metrics()),
    ("GET /v1/me", lambda client: client.caller()),
    ("GET /v1/types", lambda client: client.types()),
    ("GET /v1/types/{}", lambda client: client.describe_type("local_file")),
    ("GET /v1/sources", lambda client: next(client.sources(type="local_file", q="a"))),
    ("GET /v1/sources", lambda client: client.sources_page("cursor", limit=3)),
    ("GET /v1/sources/{}", lambda client: client.source(ID)),
    ("PUT /v1/sources/{}", lambda client: client.create_source(ID, "local_file", BODY)),
    (
        "PUT /v1/sources/{}",
        lambda client: client.replace_source(ID, "local_file", BODY, version=3),
    ),
    ("PUT /v1/sources/{}", lambda client: client.validate_source(ID, "local_file", BODY)),
    ("PATCH /v1/sources/{}", lambda client: client.update_source(ID, {}, version=3)),
    ("DELETE /v1/sources/{}", lambda client: client.delete_source(ID)),
    ("POST /v1/sources/{}/pause", lambda client: client.pause_source(ID, "moving")),
    ("POST /v1/sources/{}/resume", lambda client: client.resume_source(ID)),
    ("POST /v1/sources/{}/test", lambda client: client.check_source(ID)),
    ("POST /v1/test", lambda client: client.check_new_source("local_file", BODY)),
    ("POST /v1/discover", lambda client: client.discover("local_file", BODY)),
    ("GET /v1/sources/{}/items", lambda client: next(client.items(ID, "folder/"))),
    ("GET /v1/sources/{}/items", lambda client: client.items_page(ID, pattern="**.csv")),
    ("POST /v1/sources/{}/describe", lambda client: client.describe(ID, "a")),
    ("POST /v1/sources/{}/plan", lambda client: client.plan(ID, "a").__enter__()),
    ("POST /v1/sources/{}/splits", lambda client: client.open_split({"source_id": ID})),
    ("POST /v1/sources/{}/splits", lambda client: next(client.read_split({"source_id": ID}))),
    ("POST /v1/sources/{}/preview", lambda client: client.preview(ID, "a")),
    ("POST /v1/sources/{}/statistics", lambda client: client.statistics(ID, "a")),
    ("POST /v1/sources/{}/content", lambda client: client.open_content(ID, "a", stream=True)),
    ("POST /v1/sources/{}/content", lambda client: client.fetch(ID, "a", format="csv")),
    ("POST /v1/sources/{}/upload", lambda client: client.upload(ID, "a", [b"x"])),
    ("POST /v1/sources/{}/fetch", lambda client: client.fetch_here(ID, "a", "/workspace")),
    ("GET /v1/receipts/{}", lambda client: client.receipt("request")),
    ("POST /v1/links", lambda client: client.make_link(ID, "a", format="csv")),
    ("GET /v1/links/{}", lambda client: client.open_link(LINK)),
    ("POST /v1/workspaces", lambda client: client.make_workspace(ID, ttl=60)),
    ("GET /v1/workspaces/{}", lambda client: client.workspace("work")),
    ("DELETE /v1/workspaces/{}", lambda client: client.delete_workspace("work")),
    (
        "POST /v1/workspaces/{}/fetch",
        lambda client: client.fetch_into("work", [Selection(ID, "a")]),
    ),
    ("GET /v1/workspaces/{}/files/{}", lambda client: client.open_file("work", "a")),
    ("GET /v1/jobs", lambda client: next(client.jobs())),
    ("GET /v1/jobs/{}", lambda client: client.job("job")),
    ("DELETE /v1/jobs/{}", lambda client: client.cancel_job("job")),
    ("GET /v1/jobs/{}/events", lambda client: next(client.job_events("job"))),
    ("GET /v1/audit", lambda client: next(client.audit(user="ann"))),
    ("GET /v1/tokens", lambda client: client.tokens()),
    ("POST /v1/tokens", lambda client: client.add_token("ann", admin=True)),
    ("DELETE /v1/tokens/{}", lambda client: client.revoke_token("ann")),
]
OTHER_METHODS = {"close"}
ROUTES_OF_WORKSPACE_SOCKETS = {"POST /v1/sources/{}/fetch"}


def routes_of_server(directory: Path) -> set[str]:
    registry = DataSourceRegistry(CredentialManager(CredentialManager.generate_key()))
    app = create_app(registry, tokens=Tokens(directory / "tokens.json"))
    return {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }


def test_every_route_of_the_server_has_a_method(tmp_path: Path) -> None:
    routes = routes_of_server(tmp_path) | ROUTES_OF_WORKSPACE_SOCKETS
    assert {route for route, _ in CALLS} == routes


def test_every_method_is_in_the_table() -> None:
    called = {name for _, call in CALLS for name in call.__code__.co_names}
    methods = {name for name in dir(Client) if not name.startswith("_")}
    assert methods - called == OTHER_METHODS


@pytest.mark.parametrize(("route", "call"), CALLS)
def test_method_sends_one_request_to_its_route(route: str, call: Callable[[Client], Any]) -> None:
    with ScriptedServer(problem("not-allowed", 403)) as server, Client(server.url) as client:
        with pytest.raises(DataSourceError):
            call(client)
        (line,) = server.lines
    method, path = route.split()
    pattern = re.escape(f"{method} {path}").replace(r"\{\}", "[a-z_]+")
    assert re.fullmatch(rf"{pattern}(\?\S*)? HTTP/1.1", line)
