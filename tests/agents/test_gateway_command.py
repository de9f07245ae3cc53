"""`datasources serve` with the table [gateway], which a kill does not make forget an upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.agents.gateways import question
from tests.agents.serving import serving
from tests.agents.upstream import KEY, Upstream
from tests.server.served import ServeCommand
from tests.waiting import wait_until

FILES = ("datasource://lake/a.csv", "datasource://lake/b.csv")


@pytest.fixture
async def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def served(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServeCommand]:
    """The command with a gateway in front of the upstream, and a source of two files."""
    monkeypatch.setenv("MODEL_KEY", KEY)
    async with serving(upstream) as url:
        config = tmp_path / "config.toml"
        config.write_text(
            f'[gateway]\nurl = "{url}/v1"\nmode = "file_ids"\nkey = "${{env:MODEL_KEY}}"\n'
            "heartbeat_timeout = 2\n"
        )
        command = ServeCommand(config=config)
        with await asyncio.to_thread(command.__enter__):
            data = command.directory / "data"
            for name in ("a.csv", "b.csv"):
                (data / name).write_text("id\n1\n")
            admin = command.admin
            await asyncio.to_thread(admin.create, "lake", path=str(data))
            yield command


def client(served: ServeCommand) -> openai.AsyncOpenAI:
    url = f"http://127.0.0.1:{served.port}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key=served.admin.token or "", max_retries=0)


async def test_command_serves_the_gateway(served: ServeCommand, upstream: Upstream) -> None:
    async with client(served) as openai_client:
        answer = await openai_client.chat.completions.create(**question(*FILES))
        assert [model.id async for model in openai_client.models.list()] == ["m"]
    assert answer.choices[0].message.content == "Hello you"
    await wait_until(lambda: upstream.files == {})
    assert {headers["authorization"] for headers in upstream.headers} == {f"Bearer {KEY}"}
    assert KEY not in served.log


async def test_uploads_of_a_killed_gateway_are_deleted_at_its_next_start(
    served: ServeCommand, upstream: Upstream
) -> None:
    upstream.proceed = asyncio.Semaphore(1)  # the id of one upload arrives
    upstream.files["file-of-others"] = ("a.csv", b"")
    async with client(served) as openai_client:
        asking = asyncio.create_task(openai_client.chat.completions.create(**question(*FILES)))
        await wait_until(lambda: len(upstream.names) == 2 and upstream.uploading == 1)
        await asyncio.to_thread(served.kill)
        with pytest.raises(openai.APIConnectionError):
            await asking
    assert len(upstream.files) == 3
    await asyncio.to_thread(served.start)
    await wait_until(lambda: list(upstream.files) == ["file-of-others"])


async def test_upload_that_could_not_be_deleted_is_deleted_later(
    served: ServeCommand, upstream: Upstream
) -> None:
    upstream.delete_status = 503
    async with client(served) as openai_client:
        await openai_client.chat.completions.create(**question(*FILES))
    assert len(upstream.files) == 2
    upstream.delete_status = 200
    await wait_until(lambda: upstream.files == {})
