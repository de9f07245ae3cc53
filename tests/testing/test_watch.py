"""What is left open counts only if it stays open."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from datasources.testing.watch import nothing_left


async def test_socket_that_a_server_of_this_process_accepts_late_and_closes_is_not_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted: list[socket.socket] = []

    def collect() -> None:
        accepted.append(socket.socket())
        asyncio.get_running_loop().call_later(0.05, accepted[0].close)

    monkeypatch.setattr(gc, "collect", collect)
    async with nothing_left("a block"):
        pass
    assert accepted
