"""Ask a chat service about data, with the client of OpenAI."""

from __future__ import annotations

from typing import Any

from openai import APIStatusError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

# question
MESSAGES: list[ChatCompletionMessageParam] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What are the sums of the totals?"},
            {
                "type": "file",
                "file": {"file_id": "datasource://shop/SELECT%20id,%20total%20FROM%20orders"},
            },
            {"type": "file", "file": {"file_id": "datasource://blobs/2026/orders.csv"}},
        ],
    }
]


def ask(client: OpenAI) -> str | None:
    completion = client.chat.completions.create(model="m", messages=MESSAGES)
    return completion.choices[0].message.content


async def ask_for_words(client: AsyncOpenAI) -> list[str]:
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    return [chunk.choices[0].delta.content or "" async for chunk in stream]


# field
def ask_by_field(client: OpenAI) -> str | None:
    completion = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "What are the sums of the totals?"}],
        extra_body={"data_sources": [{"source": "shop", "item": "public.orders", "format": "csv"}]},
    )
    return completion.choices[0].message.content


# errors
def explain(error: APIStatusError) -> list[str]:
    body: Any = error.body
    return [f"{failure['pointer']}: {failure['detail']}" for failure in body["failures"]]
