"""The routes in the application of a host, and settings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, Request

from datasources import (
    LOCAL_NETWORKS,
    DataSourceConfig,
    DataSourceRegistry,
    Grant,
    MemoryStore,
    OptionError,
    PolicyError,
    Principal,
)
from datasources_server import (
    ServerSettings,
    SharedTokens,
    create_app,
    router,
    strict_policy,
    token_uses,
)
from datasources_server.responses import ContentResponse, read_file
from tests.core.fakes import MemoryConnector, registry_of, source
from tests.waiting import wait_until

ROOT = Principal("root", roles={"admin"})


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


async def test_router_works_in_the_application_of_a_host() -> None:
    async def authenticate(request: Request) -> Principal | None:
        return ROOT if request.headers.get("x-user") == "root" else None

    async with DataSourceRegistry() as registry:
        app = FastAPI()
        app.include_router(router(registry, authenticate=authenticate), prefix="/data/v1")

        @app.get("/own")
        async def own() -> str:
            raise HTTPException(418)

        async with client_of(app) as client:
            refused = await client.get("/data/v1/sources")
            assert refused.status_code == 401
            assert refused.headers["content-type"] == "application/problem+json"
            listed = await client.get("/data/v1/sources", headers={"x-user": "root"})
            assert listed.json() == {"items": [], "next_cursor": None}
            secret = {"type": "local_file", "options": "canary"}
            malformed = await client.post("/data/v1/test", json=secret, headers={"x-user": "root"})
            assert malformed.status_code == 422
            assert "canary" not in malformed.text
            foreign = {"x-user": "root", "origin": "https://evil.example"}
            assert (await client.get("/data/v1/sources", headers=foreign)).status_code == 403
            assert (await client.get("/own")).json() == {"detail": "I'm a Teapot"}


@pytest.mark.parametrize("result", [None, True, "root", {"id": "root"}])
async def test_only_a_principal_is_a_principal(result: Any) -> None:
    async with DataSourceRegistry() as registry:
        app = create_app(registry, authenticate=lambda _: result)
        async with client_of(app) as client:
            assert (await client.get("/v1/sources")).status_code == 401


async def test_error_of_the_host_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Request) -> Principal:
        raise RuntimeError("password=canary-123")

    async with (
        DataSourceRegistry() as registry,
        client_of(create_app(registry, authenticate=fail)) as client,
    ):
        answer = await client.get("/v1/sources")
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:datasources:error:unexpected-error"
    assert "RuntimeError" in caplog.text
    assert "canary" not in answer.text + caplog.text


async def test_test_of_a_connection_tells_administrators_alone_about_references() -> None:
    async def authenticate(request: Request) -> Principal:
        if request.headers.get("x-user") == "root":
            return ROOT
        return Principal("ann", grants=[Grant("shop", {"read"})])

    options = {"host": "h", "database": "d", "user": "u", "password": "${env:NO_SUCH_VARIABLE}"}
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(DataSourceConfig("shop", "postgresql", "", options))
        async with client_of(create_app(registry, authenticate=authenticate)) as client:
            told = await client.post("/v1/sources/shop/test", headers={"x-user": "root"})
            assert "NO_SUCH_VARIABLE" in told.json()["error"]["message"]
            hidden = await client.post("/v1/sources/shop/test")
            assert hidden.json()["error"]["slug"] == "secret-not-found"
            assert "administrators can read why" in hidden.json()["error"]["message"]
            assert "NO_SUCH_VARIABLE" not in hidden.text


ANN = Principal("ann", grants=[Grant("s", {"read", "query"})])


class Host:
    """Finds its user; `answers` are taken before, one after the other."""

    def __init__(self) -> None:
        self.answers: list[Principal | Exception | None] = []

    def find_principal(self, _: str) -> Principal | None:
        answer = self.answers.pop(0) if self.answers else ANN
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("confirm_seconds", "answers", "reason"),
    [
        (60, [RuntimeError("away"), None], "the grants of the job's owner have changed"),
        (0.1, [RuntimeError("away")] * 99, "it cannot be told if the owner of the job may go on"),
    ],
)
async def test_job_ends_when_its_owner_may_not_go_on_also_after_an_error_of_the_host(
    tmp_path: Path, confirm_seconds: float, answers: list[Any], reason: str
) -> None:
    host = Host()
    settings = ServerSettings(
        workspace_root=str(tmp_path), recheck_seconds=0.1, confirm_seconds=confirm_seconds
    )
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        app = create_app(
            registry,
            authenticate=lambda _: ANN,
            find_principal=host.find_principal,
            settings=settings,
        )
        async with app.router.lifespan_context(app), client_of(app) as client:
            made = await client.post("/v1/workspaces", json={"sources": ["s"]})
            body = {"items": [{"source": "s", "item": "slow"}], "wait": False}
            path = f"/v1/workspaces/{made.json()['id']}/fetch"
            job = (await client.post(path, json=body)).json()
            host.answers = answers
            while job["state"] == "running":
                await asyncio.sleep(0.1)
                job = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert (job["state"], job["problem"]["detail"]) == ("cancelled", reason)


async def test_trail_and_uses_of_tokens_are_written_after_an_unexpected_error_of_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    records, failed = store.records(), set()

    def failing_once(name: str, kind: str) -> None:
        method = getattr(records, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if name not in failed and kind in (arguments[0], getattr(arguments[0], "kind", None)):
                failed.add(name)
                raise RuntimeError("the driver failed")
            return method(*arguments, **more)

        monkeypatch.setattr(records, name, call)

    tokens = SharedTokens(records)
    headers = {"Authorization": f"Bearer {tokens.add('root', admin=True)}"}
    failing_once("append_many", "audit")
    failing_once("put", "token-use")
    async with DataSourceRegistry(store=store) as registry:
        app = create_app(registry, tokens=tokens)
        async with app.router.lifespan_context(app), client_of(app) as client:
            used, entries = None, []
            await client.post("/v1/tokens", json={"name": "ann"}, headers=headers)
            while not (used and entries):
                await asyncio.sleep(0.1)
                listed = (await client.get("/v1/tokens", headers=headers)).json()["items"]
                used = {token["name"]: token["last_used_at"] for token in listed}["root"]
                entries = (await client.get("/v1/audit", headers=headers)).json()["items"]
    assert failed == {"append_many", "put"}
    assert [entry["operation"] for entry in entries] == ["token_made"]


async def test_entry_that_is_being_written_when_the_server_ends_is_in_the_trail_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    records = store.records()
    append, writing, go_on = records.append_many, threading.Event(), threading.Event()

    def wait_at_first(*arguments: Any, **more: Any) -> None:
        if not writing.is_set():
            writing.set()
            go_on.wait(60)
        append(*arguments, **more)

    monkeypatch.setattr(records, "append_many", wait_at_first)
    tokens = SharedTokens(records)
    headers = {"Authorization": f"Bearer {tokens.add('root', admin=True)}"}
    ending = asyncio.Event()

    async def serve() -> None:
        async with app.router.lifespan_context(app), client_of(app) as client:
            await client.post("/v1/tokens", json={"name": "ann"}, headers=headers)
            await wait_until(writing.is_set)
            ending.set()

    async with DataSourceRegistry(store=store) as registry:
        app = create_app(registry, tokens=tokens)
        serving = asyncio.create_task(serve())
        await ending.wait()
        for _ in range(100):  # it ends as far as it can
            await asyncio.sleep(0)
        go_on.set()
        await serving
    entries = [entry["operation"] for _, entry in records.read("audit", "all")]
    assert entries == ["token_made"]


async def test_server_does_not_end_while_a_use_of_a_token_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_uses, "_WRITE_SECONDS", 0)
    store = MemoryStore()
    records = store.records()
    put, writing, go_on = records.put, threading.Event(), threading.Event()

    def wait(*arguments: Any, **more: Any) -> None:
        writing.set()
        go_on.wait(60)
        put(*arguments, **more)

    tokens = SharedTokens(records)
    headers = {"Authorization": f"Bearer {tokens.add('root', admin=True)}"}
    monkeypatch.setattr(records, "put", wait)

    async def serve() -> None:
        async with app.router.lifespan_context(app), client_of(app) as client:
            await client.get("/v1/sources", headers=headers)
            await wait_until(writing.is_set)

    async with DataSourceRegistry(store=store) as registry:
        app = create_app(registry, tokens=tokens)
        serving = asyncio.create_task(serve())
        await wait_until(writing.is_set)
        for _ in range(1000):  # it ends as far as it can
            await asyncio.sleep(0)
        assert not serving.done()
        go_on.set()
        await serving
    assert token_uses.read_uses(records).keys() == {"root"}


async def test_response_of_a_file_that_becomes_shorter_has_no_last_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return None

    with path.open("rb") as file:
        response = ContentResponse(read_file(file, 0, 2000), 200, {"Content-Length": "2000"})
        await response({}, receive, send)
    assert [message.get("more_body") for message in sent] == [None, True]


def test_strict_policy_denies_what_is_the_hosts() -> None:
    policy = strict_policy()
    refused: list[Callable[[], None]] = [
        lambda: policy.check_paths("s", ["/"]),
        lambda: policy.check_references("s", {"a": "${env:A}"}),
        lambda: policy.check_references("s", {"a": "${file:/a}"}),
        lambda: policy.check_ambient("s", True),
        *(
            lambda n=network: policy.check_address("s", n.partition("/")[0])
            for network in LOCAL_NETWORKS
        ),
    ]
    for check in refused:
        with pytest.raises(PolicyError):
            check()


def test_network_that_is_admitted_is_no_more_than_that() -> None:
    policy = strict_policy(allow_networks=["127.0.0.2/32", "169.254.0.0/15"])
    policy.check_address("s", "127.0.0.2")
    policy.check_address("s", "169.254.169.254")
    for address in ("127.0.0.1", "127.0.0.3", "::1", "0.0.0.0", "::ffff:127.0.0.1"):
        with pytest.raises(PolicyError):
            policy.check_address("s", address)
    with pytest.raises(OptionError, match="'here' is not a network"):
        strict_policy(allow_networks=["here"])


@pytest.mark.parametrize(
    "setting",
    [{"max_body": 0}, {"max_page": True}, {"test_timeout": "1"}, {"public_url": "data.example"}],
)
def test_settings_are_checked(setting: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(setting))):
        ServerSettings(**setting)


def by_cookie(request: Request) -> Principal | None:
    return ROOT if request.cookies.get("session") == "root" else None


async def test_cookies_authenticate_nobody_unless_the_host_says_so() -> None:
    async with DataSourceRegistry() as registry:
        app = create_app(registry, authenticate=by_cookie)
        async with client_of(app) as client:
            headers = {"cookie": "session=root"}
            assert (await client.get("/v1/sources", headers=headers)).status_code == 401
        with pytest.raises(OptionError, match="'cookies' needs 'csrf'"):
            create_app(registry, authenticate=by_cookie, cookies=True)


@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_request_with_cookies_needs_the_secret_of_the_hosts_pages(is_coroutine: bool) -> None:
    def has_secret(request: Request) -> bool:
        return request.headers.get("x-csrf") == "secret"

    async def has_secret_too(request: Request) -> bool:
        return has_secret(request)

    async with DataSourceRegistry() as registry:
        csrf = has_secret_too if is_coroutine else has_secret
        app = create_app(registry, authenticate=by_cookie, cookies=True, csrf=csrf)
        async with client_of(app) as client:
            cookie = {"cookie": "session=root"}
            body = {"type": "unheard", "options": {}}
            assert (await client.get("/v1/sources", headers=cookie)).status_code == 200
            refused = await client.post("/v1/test", json=body, headers=cookie)
            assert refused.status_code == 403
            assert refused.json()["type"].endswith(":csrf-refused")
            admitted = await client.post(
                "/v1/test", json=body, headers=cookie | {"x-csrf": "secret"}
            )
            assert admitted.json()["type"].endswith(":connector-unknown")
            nobody = await client.post("/v1/test", json=body, headers={"x-csrf": "secret"})
            assert nobody.status_code == 401
