"""The stock client of OpenAI asks a host whose endpoint has three lines for data."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import openai
import pytest
from starlette.types import Receive, Scope, Send

from tests.agents.conftest import ANN, SLOW, House, running
from tests.agents.serving import serving
from tests.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
CODE = (
    "import glob\n"
    "for name in sorted(glob.glob('**/*.csv', recursive=True)):\n"
    "    print(sum(float(line.split(',')[1]) for line in open(name).readlines()[1:]))"
)


class Host:
    """The example, its address, and what reaches it and its model."""

    def __init__(self, module: ModuleType, house: House) -> None:
        self.module = module
        self.house = house
        self.url = ""
        self.requests = 0
        self.asked: list[tuple[list[Any], str, list[str]]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.app = module.serve(house.registry, self.model)
        module.PRINCIPALS["token"] = ANN

    async def model(self, messages: list[Any], directory: str) -> AsyncIterator[str]:
        """Run code in the directory, and answer with what it prints."""
        self.asked.append((messages, directory, sorted(os.listdir(directory))))
        yield "Sums: "
        await self.hold.wait()
        yield await self.module.run_code(CODE, directory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += scope["type"] == "http"
        await self.app(scope, receive, send)

    def options(self) -> dict[str, Any]:
        return {"base_url": f"{self.url}/v1", "api_key": "token"}

    def left(self) -> bool:
        """Return True if no directory of a request is left."""
        return not any(os.path.exists(directory) for _, directory, _ in self.asked)


def load(name: str) -> ModuleType:
    """Return a new module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where FastAPI looks up the annotations
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def client_example() -> ModuleType:
    """Return the example of clients."""
    return load("chat_client")


@pytest.fixture
async def host(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    module = load("chat_host")
    monkeypatch.setitem(sys.modules, "chat_host", module)
    host = Host(module, house)
    async with serving(host) as host.url:
        yield host


def question(*uris: str) -> dict[str, Any]:
    parts = [{"type": "file", "file": {"file_id": uri}} for uri in uris]
    text = {"type": "text", "text": "What are the sums?"}
    return {"model": "m", "messages": [{"role": "user", "content": [text, *parts]}]}


BOTH = (
    "datasource://shop/SELECT%20id,%20total%20FROM%20orders",
    "datasource://blobs/2026/orders.csv",
)
SUMS = "Sums: 36.5\n7.5\n"


async def test_synchronous_client_gets_an_answer_from_both_files(host: Host) -> None:
    def ask() -> Any:
        with openai.OpenAI(**host.options()) as client:
            return client_example().ask(client)

    assert await asyncio.to_thread(ask) == SUMS
    [(messages, _, files)] = host.asked
    assert len(files) == 3
    assert ".datasources" in files
    text, described = messages[0]["content"]
    assert text == {"type": "text", "text": "What are the sums of the totals?"}
    assert "datasource://" not in json.dumps(messages)
    assert '"path": "2026/orders.csv"' in described["text"]
    await wait_until(host.left)


async def test_asynchronous_client_gets_a_streamed_answer(host: Host) -> None:
    async with openai.AsyncOpenAI(**host.options()) as client:
        words = await client_example().ask_for_words(client)
    assert "".join(words) == SUMS
    assert len(words) == 2
    await wait_until(host.left)


async def test_synchronous_client_gets_a_streamed_answer(host: Host) -> None:
    def ask() -> str:
        with openai.OpenAI(**host.options()) as client:
            stream = client.chat.completions.create(**question(*BOTH), stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(ask) == SUMS


async def test_field_of_the_body_is_a_reference(host: Host) -> None:
    def ask() -> Any:
        with openai.OpenAI(**host.options()) as client:
            return client_example().ask_by_field(client)

    await asyncio.to_thread(ask)
    assert host.asked[0][2] == [".datasources", "public.orders.csv"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("datasource://nothing", 422),
        ("datasource://unknown/a", 422),
        ("datasource://secret/orders.csv", 422),
        ("datasource://blobs/gone.csv", 422),
        ("datasource://shop/SELECT%20nope", 424),
        ("datasource://lake/large.csv", 413),
    ],
)
async def test_failed_reference_is_told_once_and_before_the_model_runs(
    host: Host, uri: str, status: int, stream: bool
) -> None:
    with (host.house.lake / "large.csv").open("wb") as file:
        file.truncate(101_000_000)
    async with openai.AsyncOpenAI(**host.options(), max_retries=5) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**question(BOTH[1], uri), stream=stream)
    assert (caught.value.status_code, host.requests, host.asked) == (status, 1, [])
    body: Any = caught.value.body
    assert [failure["pointer"] for failure in body["failures"]] == [
        "#/messages/0/content/2/file/file_id"
    ]
    assert body["failures"][0]["detail"] in body["message"]
    assert client_example().explain(caught.value) == [body["message"]]


async def test_malformed_body_is_refused(host: Host) -> None:
    headers = {"authorization": "Bearer token"}
    async with httpx2.AsyncClient(
        base_url=host.url, headers=headers, trust_env=False, timeout=60
    ) as client:
        for content in (b"", b"{", b"[]", b"[" * 100_000, b"\xff"):
            answer = await client.post("/v1/chat/completions", content=content)
            assert answer.status_code == 422
            assert answer.json()["error"]["message"] == "#: the body must be an object of JSON"


async def test_client_that_leaves_ends_its_query(host: Host) -> None:
    uri = "datasource://shop/" + SLOW.replace("%", "%25").replace("?", "%3F")
    async with openai.AsyncOpenAI(**host.options()) as client:
        asking = asyncio.create_task(client.chat.completions.create(**question(uri)))
        await wait_until(lambda: running(host.house.database) == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await wait_until(lambda: running(host.house.database) == 0)
    assert host.asked == []


async def test_client_that_leaves_a_stream_ends_it_and_its_files(host: Host) -> None:
    host.hold.clear()
    async with openai.AsyncOpenAI(**host.options()) as client:
        stream = await client.chat.completions.create(**question(*BOTH), stream=True)
        assert (await anext(aiter(stream))).choices[0].delta.content == "Sums: "
        assert not host.left()
        await stream.close()
    await wait_until(host.left)
    host.hold.set()
