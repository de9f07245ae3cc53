"""The data of a conversation stay for its later requests, and for nobody else."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from datasources import Grant, Principal, WorkspaceSession
from datasources_agents import ReferencesError
from datasources_agents.gateway import GatewaySettings
from datasources_agents.gateway.conversations import Conversations
from datasources_server import ServerSettings
from datasources_server.calls import Api, Call
from tests.agents.conftest import ANN, ORDERS, House
from tests.agents.gateways import BOB, question
from tests.agents.upstream import Upstream
from tests.waiting import wait_until

BLOB = "datasource://blobs/2026/orders.csv"
FILE = "datasource://lake/orders.csv"
TABLE = "datasource://shop/public.orders"
Start = Callable[..., Any]


@pytest.mark.parametrize("mode", ["file_ids", "file_parts"])
async def test_later_request_has_the_data_of_the_earlier_ones(
    start: Start, house: House, mode: str
) -> None:
    gateway = await start(mode)
    await gateway.ask(TABLE, BLOB, thread_id="t 1")
    await wait_until(lambda: gateway.upstream.files == {})
    with psycopg.connect(house.database.dsn(), autocommit=True) as connection:
        connection.execute("DROP TABLE orders")
    first = gateway.upstream.seen[0]
    await gateway.ask(thread_id="t 1")
    await gateway.ask(FILE, thread_id="t 1")
    assert gateway.upstream.seen[1] == first
    assert len(first) == 2
    assert {name: gateway.upstream.seen[2][name] for name in first} == first
    assert len(gateway.upstream.seen[2]) == 3
    await wait_until(lambda: gateway.upstream.files == {})
    assert len(gateway.directories()) == 1


async def test_item_that_changed_is_fetched_again(start: Start, house: House) -> None:
    gateway = await start()
    await gateway.ask(BLOB, thread_id="t")
    house.container.upload_blob("2026/orders.csv", "id\n5\n", overwrite=True)
    await gateway.ask(thread_id="t")
    await wait_until(lambda: gateway.upstream.files == {})
    await gateway.ask(BLOB, thread_id="t")
    contents = [[content.decode() for content in seen.values()] for seen in gateway.upstream.seen]
    assert contents == [[ORDERS], [ORDERS], ["id\n5\n"]]


async def test_conversations_of_two_people_and_of_two_names_are_apart(start: Start) -> None:
    gateway = await start()
    await gateway.ask(FILE, thread_id="t")
    await wait_until(lambda: gateway.upstream.files == {})
    await gateway.ask(token="bob-token", thread_id="t")
    await gateway.ask(thread_id="T")
    await gateway.ask()
    assert [len(seen) for seen in gateway.upstream.seen] == [1, 0, 0, 0]


async def test_data_whose_grant_was_revoked_are_not_handed_over_again(start: Start) -> None:
    gateway = await start()
    await gateway.ask(FILE, BLOB, thread_id="t")
    await wait_until(lambda: gateway.upstream.files == {})
    gateway.principals["ann-token"] = Principal("ann", grants=[Grant("lake", {"read"})])
    await gateway.ask(thread_id="t")
    assert [len(seen) for seen in gateway.upstream.seen] == [2, 1]
    [directory] = gateway.directories()
    assert sorted(os.listdir(gateway.root / directory)) == [".datasources", "2026", "orders.csv"]
    assert os.listdir(gateway.root / directory / "2026") == []


async def test_requests_of_one_conversation_wait_for_each_other(start: Start) -> None:
    gateway = await start()
    await asyncio.gather(*(gateway.ask(FILE, BLOB, thread_id="t") for _ in range(5)))
    assert len(gateway.upstream.seen) == 5
    await wait_until(lambda: gateway.upstream.files == {})


async def test_files_of_requests_that_come_at_once_are_all_in_the_conversation(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start()
    both = asyncio.Barrier(2)

    @asynccontextmanager
    async def open_when_both_have_come(*arguments: Any) -> AsyncIterator[WorkspaceSession]:
        await both.wait()
        async with open_directory(*arguments) as session:
            yield session

    open_directory = Conversations.open
    with monkeypatch.context() as patch:
        patch.setattr(Conversations, "open", open_when_both_have_come)
        await asyncio.gather(*(gateway.ask(uri, thread_id="t") for uri in (FILE, BLOB)))
    await wait_until(lambda: gateway.upstream.files == {})
    await gateway.ask(thread_id="t")
    assert len(gateway.upstream.seen[2]) == 2


async def test_malformed_id_of_a_conversation_is_refused(start: Start) -> None:
    gateway = await start()
    ids: list[Any] = [1, "", [], {"a": 1}]
    for thread_id in ids:
        with pytest.raises(openai.UnprocessableEntityError, match="#/thread_id"):
            await gateway.ask(FILE, thread_id=thread_id)
    assert gateway.upstream.bodies == []


async def share(start: Start, tmp_path: Path, **settings: Any) -> Any:
    """Return a gateway that shares a directory with its upstream."""
    upstream = Upstream(shared=tmp_path / "shared")
    return await start("workspace", upstream, root=str(tmp_path / "shared"), **settings)


async def test_shared_directory_has_the_files_while_the_model_runs(
    start: Start, tmp_path: Path
) -> None:
    gateway = await share(start, tmp_path)
    await gateway.ask(FILE, BLOB)
    seen = gateway.upstream.seen[0]
    assert sorted(seen) == [".datasources/manifest.json", "2026/orders.csv", "orders.csv"]
    assert seen["orders.csv"].decode() == ORDERS
    assert gateway.upstream.names == []
    text = gateway.upstream.body["messages"][0]["content"][1]["text"]
    assert str(tmp_path / "shared" / gateway.upstream.body["thread_id"]) in text
    await wait_until(lambda: gateway.directories() == [])


async def test_shared_directory_of_a_conversation_stays(start: Start, tmp_path: Path) -> None:
    gateway = await share(start, tmp_path)
    await gateway.ask(FILE, thread_id="thread-1")
    (tmp_path / "shared/thread-1/result.txt").write_text("made by the model")
    await gateway.ask(BLOB, thread_id="thread-1")
    manifest = ".datasources/manifest.json"
    assert sorted(gateway.upstream.seen[0]) == [manifest, "orders.csv"]
    assert sorted(gateway.upstream.seen[1]) == [
        manifest,
        "2026/orders.csv",
        "orders.csv",
        "result.txt",
    ]
    assert [file["path"] for file in json.loads(gateway.upstream.seen[1][manifest])["files"]] == [
        "orders.csv",
        "2026/orders.csv",
    ]
    assert gateway.upstream.body["thread_id"] == "thread-1"
    assert gateway.directories() == ["thread-1"]


async def test_id_that_names_no_directory_is_refused_with_references_only(
    start: Start, tmp_path: Path
) -> None:
    gateway = await share(start, tmp_path)
    async with gateway.http() as client:
        for thread_id in ("\ud800", "\0", "a/b", "x" * 129):
            answers = [
                await client.post(
                    "/v1/chat/completions",
                    content=json.dumps(question(*uris) | {"thread_id": thread_id}),
                )
                for uris in ([FILE], [])
            ]
            assert [answer.status_code for answer in answers] == [422, 200], thread_id
            assert answers[0].json()["errors"][0]["pointer"] == "#/thread_id"


async def test_shared_directory_of_somebody_else_is_refused(start: Start, tmp_path: Path) -> None:
    gateway = await share(start, tmp_path)
    await gateway.ask(FILE, thread_id="thread-1")
    for uris in ([FILE], []):
        with pytest.raises(openai.UnprocessableEntityError, match="conversation of somebody else"):
            await gateway.ask(*uris, token="bob-token", thread_id="thread-1")
    assert len(gateway.upstream.bodies) == 1


async def test_name_that_no_directory_can_have_is_refused(start: Start, tmp_path: Path) -> None:
    gateway = await share(start, tmp_path)
    for thread_id in ("..", ".", "../x", "a/b", ".hidden", "a\0", "x" * 200):
        with pytest.raises(openai.UnprocessableEntityError, match="128 characters at most"):
            await gateway.ask(FILE, thread_id=thread_id)
        assert gateway.directories() == []


async def test_link_that_the_model_planted_is_not_followed(start: Start, tmp_path: Path) -> None:
    gateway = await share(start, tmp_path)
    await gateway.ask(FILE, thread_id="t")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text(ORDERS)
    (tmp_path / "shared/t/2026").symlink_to(tmp_path / "outside")
    (tmp_path / "shared/t/orders.csv").unlink()
    (tmp_path / "shared/t/orders.csv").symlink_to(tmp_path / "outside/secret")
    with pytest.raises(openai.APIStatusError) as caught:
        await gateway.ask(BLOB, thread_id="t")
    assert caught.value.status_code == 424
    assert os.listdir(tmp_path / "outside") == ["secret"]


async def test_conversation_ends_after_its_time(start: Start, house: House, tmp_path: Path) -> None:
    gateway = await share(start, tmp_path)
    (tmp_path / "shared/foreign").mkdir(parents=True)
    await gateway.ask(FILE, thread_id="t")
    records = house.registry.store.records()
    assert records is not None
    api = Api(house.registry, lambda _: None, ServerSettings())
    settings = GatewaySettings("http://localhost/v1", "workspace", conversation_ttl=0.1)
    conversations = Conversations(api, settings, str(gateway.root))
    kind = conversations._kind
    assert len(records.list(kind)) == 1

    def is_over() -> bool:
        conversations.sweep()
        return gateway.directories() == ["foreign"] and records.list(kind) == []

    await wait_until(is_over)


async def test_conversations_of_one_person_are_bounded(start: Start) -> None:
    gateway = await start(conversations=2)
    for thread_id in ("a", "b", "a"):
        await gateway.ask(FILE, thread_id=thread_id)
    with pytest.raises(openai.APIStatusError, match="you have 2 conversations") as caught:
        await gateway.ask(FILE, thread_id="c")
    assert caught.value.status_code == 424
    await gateway.ask(FILE, token="bob-token", thread_id="c")


async def test_directory_that_cannot_be_made_is_a_failure(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    gateway = await start("workspace", root=str(tmp_path / "file"))
    with pytest.raises(openai.APIStatusError, match="cannot be opened") as caught:
        await gateway.ask(FILE)
    assert caught.value.status_code == 424


async def test_conversation_that_two_people_begin_at_once_belongs_to_one(
    house: House, tmp_path: Path
) -> None:
    api = Api(house.registry, lambda _: None, ServerSettings())
    settings = GatewaySettings("http://localhost/v1", "workspace")
    conversations = Conversations(api, settings, str(tmp_path / "root"))
    ann, bob = (Call(api, each, house.access(each), "1") for each in (ANN, BOB))
    seen = [await conversations.find(call, "t") for call in (ann, bob)]
    async with conversations.open(ann, seen[0]):
        pass
    with pytest.raises(ReferencesError, match="conversation of somebody else"):
        async with conversations.open(bob, seen[1]):
            pass
