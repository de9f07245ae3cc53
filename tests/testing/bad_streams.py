"""Bad connectors for the checks of streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from datasources import DataFetchError, ItemStream
from tests.testing.good import GoodConnector
from tests.testing.spoil import Bad, made, stalls


async def _bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _streaming(change: Any) -> Any:
    """Return a class whose streams have other bytes; `change` takes content, start and end."""

    async def open_stream(
        self: Any, identifier: str, *, start: int | None = None, end: int | None = None, **_: Any
    ) -> ItemStream:
        return ItemStream(_bytes(change(await self._content(identifier), start, end)))

    return made(open_stream=open_stream)


async def _open_anything(self: Any, identifier: str, **given: Any) -> ItemStream:
    content = (await self._all()).get(identifier, b"")
    return ItemStream(_bytes(content[given.get("start") : given.get("end")]))


async def _open_one(self: Any, identifier: str, **given: Any) -> ItemStream:
    if getattr(self, "_open_streams", 0):
        raise DataFetchError("a stream is open already")
    stream = await GoodConnector.open_stream(self, identifier, **given)
    self._open_streams = 1

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in stream:
            yield chunk
        self._open_streams = 0

    return ItemStream(chunks(), size=stream.size)


async def _say_another_size(self: Any, identifier: str, **given: Any) -> ItemStream:
    stream = await GoodConnector.open_stream(self, identifier, **given)
    return ItemStream(_bytes(b"x"), size=stream.size)


STREAMS: dict[str, Bad] = {
    "test_a_stream_has_the_bytes_of_the_item": Bad(
        "the bytes of", _streaming(lambda content, start, end: content[:-1])
    ),
    "test_a_range_has_these_bytes_of_the_item": Bad(
        "the bytes of 1 to None", _streaming(lambda content, start, end: content)
    ),
    "test_a_range_behind_the_end_is_an_option_error": Bad(
        "DID NOT RAISE", _streaming(lambda content, start, end: content[start:end])
    ),
    "test_a_stream_of_a_missing_item_is_item_not_found": Bad(
        "DID NOT RAISE", made(open_stream=_open_anything)
    ),
    "test_a_stream_can_be_closed_early": Bad("open already", made(open_stream=_open_one)),
    "test_streams_keep_the_loop_free": Bad("open_stream", stalls("open_stream")),
    "test_a_stream_through_a_registry_is_whole_or_an_error": Bad(
        "ended after 1 of", made(open_stream=_say_another_size)
    ),
}
