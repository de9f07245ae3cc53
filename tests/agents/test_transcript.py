"""The transcript in the documentation is what a host and a gateway do.

`WRITE_TRANSCRIPT=1 pytest tests/agents/test_transcript.py` writes it anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from tests.agents.test_chat_host import CODE, Host, client_example, host  # a fixture
from tests.agents.upstream import Upstream
from tests.waiting import wait_until

__all__ = ["host"]

TRANSCRIPT = Path(__file__).parents[2] / "docs/examples/chat-transcript.txt"
# What differs from run to run.
PASSING = [
    (r"data-[0-9a-f]{16}", "data-0123456789abcdef"),
    (r"-[0-9a-f]{12}\.csv", "-0123456789ab.csv"),
]


def lines(host: Host, answer: str, upstream: Upstream) -> Iterator[str]:
    [(messages, _, files)] = host.asked
    yield "# A host: its model gets"
    yield from (part["text"] for part in messages[0]["content"])
    yield "\n# finds in its working directory"
    yield from files
    yield "\n# runs this code there"
    yield CODE
    yield "\n# and answers"
    yield answer
    yield "# The gateway: the server of the model has these files"
    for name, content in sorted(upstream.seen[0].items()):
        yield f"{name}: {content.decode()!r}"
    yield "\n# and gets"
    [message] = upstream.body["messages"]
    yield message.pop("content")
    yield json.dumps({**upstream.body, "messages": [message]})


async def test_transcript_is_what_happens(host: Host, start: Callable[..., Any]) -> None:
    example = client_example()
    async with AsyncOpenAI(**host.options()) as client:
        answer = "".join(await example.ask_for_words(client))
    gateway = await start("file_ids", concurrency=1)
    async with gateway.client() as client:
        await example.ask_for_words(client)
    await wait_until(lambda: gateway.upstream.files == {})
    text = "\n".join(lines(host, answer, gateway.upstream)) + "\n"
    for passing, instead in PASSING:
        text = re.sub(passing, instead, text)
    if os.environ.get("WRITE_TRANSCRIPT"):
        TRANSCRIPT.write_text(text, "utf-8")
    assert TRANSCRIPT.read_text("utf-8") == text
