"""The service of the guide, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datasources import CredentialManager, DataSourceConfig
from tests.conftest import IN_CI
from tests.docs.blocks import DOCS
from tests.servers import Database
from tests.waiting import wait_until

if not IN_CI:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx2")
    pytest.importorskip("uvicorn")
import uvicorn
from fastapi.testclient import TestClient

SUM = "print(sum(float(line.split(',')[2]) for line in open('public.orders.csv').readlines()[1:]))"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The module, with a store of its own."""
    spec = importlib.util.spec_from_file_location("service", DOCS / "examples" / "service.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "service", module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("STORE", str(tmp_path / "sources.db"))
    monkeypatch.setenv("AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", CredentialManager.generate_key())
    return module


@pytest.fixture
def client(service: ModuleType) -> Iterator[TestClient]:
    """A client of the running service."""
    with TestClient(service.app, headers={"x-user": "ann"}) as client:
        yield client


@pytest.fixture
def prompts(service: ModuleType) -> list[tuple[str, str]]:
    """What the model was asked, and where; it sums a column of the orders."""
    asked: list[tuple[str, str]] = []

    async def model(prompt: str, directory: str) -> str:
        asked.append((prompt, directory))
        return str(await service.run_code(SUM, directory))

    service.app.state.model = model
    return asked


@pytest.fixture
def source(shop: Database) -> dict[str, Any]:
    """A source of the shop's database for ann, its password given in clear."""
    return {
        "id": "shop",
        "type": "postgresql",
        "options": {
            "host": shop.host,
            "port": shop.port,
            "database": shop.name,
            "user": "analyst",
            "password": os.environ["SHOP_PASSWORD"],
        },
        "users": ["ann"],
    }


@pytest.fixture
def secret(source: dict[str, Any]) -> str:
    """The password."""
    return str(source["options"]["password"])


def chat(client: TestClient, *references: tuple[str, str], user: str = "ann") -> Any:
    """Ask about some items."""
    asked = [{"source": source, "item": item} for source, item in references]
    body = {"text": "What was sold?", "references": asked}
    return client.post("/chat", json=body, headers={"x-user": user})


def test_a_source_is_created_listed_tested_browsed_and_deleted(
    client: TestClient, source: dict[str, Any], secret: str
) -> None:
    answers = [
        client.post("/sources", json=source),
        client.get("/sources"),
        client.get("/sources/shop"),
        client.post("/sources/shop/test"),
        client.get("/sources/shop/items"),
        client.get("/sources/shop/preview", params={"item": "public.orders", "rows": 2}),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200, 200]
    created, listed, got, tested, items, preview = (answer.json() for answer in answers)
    assert created["options"]["password"] == "***REDACTED***"
    assert listed == [created] == [got]
    assert tested["ok"] is True
    assert [item["path"] for item in items] == ["public.orders"]
    assert preview["columns"] == ["id", "country", "amount"]
    assert (len(preview["rows"]), preview["more"]) == (2, True)
    assert client.delete("/sources/shop").status_code == 204
    assert client.get("/sources").json() == []
    assert not any(secret in answer.text for answer in answers)


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"type": "nothing"}, 422, "UnknownConnectorError"),
        ({"options": {"colour": "red"}}, 422, "OptionError"),
        ({"id": "no spaces"}, 422, "OptionError"),
        ({"type": "local_file", "options": {"path": "/etc"}}, 403, "PolicyError"),
        ({"type": "local_file", "options": {"path": "${env:HOME}"}}, 403, "PolicyError"),
    ],
)
def test_what_may_not_be_is_refused_with_its_status(
    client: TestClient, source: dict[str, Any], change: dict[str, Any], status: int, error: str
) -> None:
    answer = client.post("/sources", json=source | change)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert client.get("/sources").json() == []


def test_errors_have_their_status(client: TestClient, source: dict[str, Any]) -> None:
    assert client.post("/sources", json=source).status_code == 201
    assert client.post("/sources", json=source).status_code == 409
    wrong = source | {"id": "wrong", "options": source["options"] | {"password": "something"}}
    assert client.post("/sources", json=wrong).status_code == 502
    assert client.get("/sources/nothing").status_code == 404
    assert client.get("/sources/nothing/items").status_code == 404
    statuses = {
        item: client.get("/sources/shop/preview", params={"item": item}).status_code
        for item in ("public.nothing", "drop table orders", "select nothing from orders")
    }
    assert statuses == {
        "public.nothing": 404,
        "drop table orders": 403,
        "select nothing from orders": 502,
    }


@pytest.mark.parametrize("broken", ["id", "type", "options"])
def test_an_answer_to_a_malformed_request_repeats_no_secret(
    client: TestClient, source: dict[str, Any], secret: str, broken: str
) -> None:
    del source[broken]
    answer = client.post("/sources", json=source | {"password": secret})
    assert answer.status_code == 422
    assert broken in answer.json()["message"]
    assert secret not in answer.text


def test_no_log_line_holds_a_secret(
    client: TestClient,
    source: dict[str, Any],
    secret: str,
    prompts: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/sources", json=source)
    client.post("/sources", json=source | {"id": "other", "options": {"dsn": secret}})
    chat(client, ("shop", "public.orders"), ("shop", "public.nothing"))
    assert "public.nothing" in caplog.text
    assert secret not in caplog.text


def test_a_question_is_answered_from_what_was_fetched(
    client: TestClient, source: dict[str, Any], secret: str, prompts: list[tuple[str, str]]
) -> None:
    client.post("/sources", json=source)
    answer = chat(client, ("shop", "public.orders"), ("shop", "select 1 as one"))
    assert answer.json() == {"answer": "117.0\n"}
    ((prompt, directory),) = prompts
    assert "- public.orders.csv: 'public.orders' of 'shop'" in prompt
    assert "12 rows\n  id, country, amount\n  1, JP, 1.50\n" in prompt
    assert re.search(r"- query-\w+\.csv: 'select 1 as one' of 'shop', 6 bytes, 1 rows", prompt)
    assert secret not in prompt
    assert not Path(directory).exists(), "the workspace ends with the request"


def test_the_model_is_not_asked_when_a_fetch_fails(
    client: TestClient, source: dict[str, Any], prompts: list[tuple[str, str]]
) -> None:
    client.post("/sources", json=source)
    answer = chat(client, ("shop", "public.orders"), ("shop", "public.a"), ("shop", "public.b"))
    assert answer.status_code == 424
    assert [re.search(r"public\.\w", each)[0] for each in answer.json()["errors"]] == [  # type: ignore[index]
        "public.a",
        "public.b",
    ]
    assert prompts == []


def test_a_user_reads_only_what_was_granted(
    client: TestClient, source: dict[str, Any], prompts: list[tuple[str, str]]
) -> None:
    client.post("/sources", json=source)
    answer = chat(client, ("shop", "public.orders"), user="bob")
    assert (answer.status_code, answer.json()["error"]) == (403, "PolicyError")
    assert prompts == []


def test_code_of_the_model_has_the_files_and_no_secret(
    service: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-hunter2")
    (tmp_path / "a.csv").write_text("x\n")
    code = "import json, os; print(json.dumps([dict(os.environ), os.listdir()]))"
    variables, files = json.loads(asyncio.run(service.run_code(code, str(tmp_path))))
    assert "a.csv" in files
    assert not {"SHOP_PASSWORD", "DATASOURCE_ENCRYPTION_KEY"} & variables.keys()


def test_log_and_audit_trail_name_user_and_request(
    client: TestClient, source: dict[str, Any], secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/sources", json=source)
    answer = client.get("/sources/shop/preview", params={"item": "public.nothing"})
    (line,) = [r.message for r in caplog.records if r.name == "datasources.operations"]
    assert f"request {answer.headers['x-request-id']}, user ann" in line
    audit = Path(os.environ["AUDIT_LOG"]).read_text()
    *_, last = map(json.loads, audit.splitlines())
    assert (last["user"], last["request_id"]) == ("ann", answer.headers["x-request-id"])
    assert last["outcome"] == "ItemNotFoundError"
    assert secret not in audit


async def test_a_client_that_leaves_cancels_its_fetch(
    service: ModuleType, source: dict[str, Any], prompts: list[tuple[str, str]]
) -> None:
    endless = "select count(*) from generate_series(1, 1000000000000)"
    server = uvicorn.Server(uvicorn.Config(service.app, lifespan="on", log_config=None))
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        await wait_until(lambda: server.started)
        registry = service.app.state.registry
        await registry.register_data_source(
            DataSourceConfig(
                source["id"],
                source["type"],
                "Shop",
                source["options"],
                metadata={"users": source["users"]},
            )
        )
        question = {"text": "?", "references": [{"source": "shop", "item": endless}]}
        body = json.dumps(question).encode()
        _, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(
            b"POST /chat HTTP/1.1\r\nHost: x\r\nX-User: ann\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await wait_until(lambda: registry.get_pool_stats("shop")["in_use"] == 1)
        writer.close()
        await wait_until(lambda: registry.get_pool_stats("shop")["in_use"] == 0)
    finally:
        server.should_exit = server.force_exit = True
        await serving
    lines = map(json.loads, Path(os.environ["AUDIT_LOG"]).read_text().splitlines())
    assert [line["outcome"] for line in lines if line["operation"] == "fetch"] == ["cancelled"]
    assert prompts == []
