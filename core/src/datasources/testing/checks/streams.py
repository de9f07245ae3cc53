"""Checks of streams: with the ability `stream`, and without it through a registry."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from datasources import (
    DataSourceConnector,
    ItemNotFoundError,
    ItemStream,
    LimitExceededError,
    Limits,
    OptionError,
)
from datasources.testing.base import Checks, registry_of
from datasources.testing.checks.abilities import _needs
from datasources.testing.stalls import assert_never_stalls
from datasources.testing.subject import Subject


class StreamChecks(Checks):
    """A stream has the bytes of a fetch, or those of a range."""

    async def test_a_stream_has_the_bytes_of_the_item(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "stream")
        for identifier, content in subject.items.items():
            stream = await _open(connector, identifier)
            assert stream.size in (None, len(content)), f"the size of {identifier!r}"
            assert await _read(stream) == content, f"the bytes of {identifier!r}"

    async def test_a_range_has_these_bytes_of_the_item(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "stream")
        identifier, content = subject.largest()
        size = len(content)
        ranges = [(1, None), (None, 1), (1, size - 1), (size - 1, 10 * size), (size, None), (0, 0)]
        for start, end in ranges:
            stream = await _open(connector, identifier, start=start, end=end)
            expected = content[start:end]
            assert stream.size in (None, len(expected)), f"the size of {start} to {end}"
            assert await _read(stream) == expected, f"the bytes of {start} to {end}"

    async def test_a_range_behind_the_end_is_an_option_error(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "stream")
        identifier, content = subject.largest()
        with pytest.raises(OptionError):
            await _open(connector, identifier, start=len(content) + 1)

    async def test_a_stream_of_a_missing_item_is_item_not_found(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "stream")
        with pytest.raises(ItemNotFoundError):
            await _open(connector, subject.missing)

    async def test_a_stream_can_be_closed_early(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "stream")
        identifier, content = subject.largest()
        for pieces in (0, 1):
            stream = await _open(connector, identifier)
            for _ in range(pieces):
                await anext(aiter(stream))
            await stream.aclose()
            await stream.aclose()
        assert await _read(await _open(connector, identifier)) == content

    async def test_streams_keep_the_loop_free(
        self, connector: DataSourceConnector, subject: Subject
    ) -> None:
        _needs(subject, "stream")
        identifier, _ = subject.largest()

        async def stream() -> None:
            await _read(await _open(connector, identifier))

        await assert_never_stalls(stream, "open_stream")

    async def test_a_stream_through_a_registry_is_whole_or_an_error(self, subject: Subject) -> None:
        identifier, content = subject.largest()
        async with registry_of(subject) as registry:
            await registry.register_data_source(subject.config())
            async with registry.open_stream("subject", identifier) as stream:
                assert b"".join([chunk async for chunk in stream]) == content
            assert stream.receipt is not None
            assert stream.receipt.sha256 == hashlib.sha256(content).hexdigest()
            limits = Limits(max_bytes=len(content) - 1)
            with pytest.raises(LimitExceededError):
                async with registry.open_stream("subject", identifier, limits=limits) as stream:
                    async for _ in stream:
                        pass


async def _open(connector: Any, identifier: str, **given: Any) -> ItemStream:
    stream = await connector.open_stream(identifier, **given)
    assert isinstance(stream, ItemStream), "open_stream must return an ItemStream"
    return stream


async def _read(stream: ItemStream) -> bytes:
    try:
        return b"".join([chunk async for chunk in stream])
    finally:
        await stream.aclose()
