"""Rows of a COPY on their way from libpq to a file.

psycopg's own `copy` waits for the socket once per row. Here every row that has come is taken
before the next wait; see https://www.postgresql.org/docs/current/libpq-copy.html.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint
from typing import TypeAlias

from psycopg import pq

from datasources import run_in_thread

Write: TypeAlias = Callable[[bytearray | memoryview], None]
"""Takes text, which it may not keep."""

_BATCH = 1 << 18  # bytes written at once
_PIECE = 1 << 20  # bytes of a longer row written at once
_ROWS = 1 << 13  # rows taken before the loop gets its turn
_READS = 16  # of the socket, likewise
_PATIENCE = 0.1  # seconds until a thread that waits looks whether it should stop

# Where Linux keeps tcpi_bytes_received in struct tcp_info: include/uapi/linux/tcp.h
_BYTES_RECEIVED = struct.Struct("128xQ")


@dataclass(frozen=True, slots=True)
class Rows:
    """Whole rows of a binary COPY; before the first its header, and the last is its trailer."""

    data: bytearray | memoryview
    lengths: list[int]
    """How many bytes each has."""


Take: TypeAlias = Callable[[Rows], None]


class TooLongError(Exception):
    """One row, or one answer, is longer than may be held in memory."""


class Meter:
    """Tells how much one connection has received since the last `reset`.

    libpq keeps a row until it is whole and does not tell how much it keeps.  Only Linux says, and
    only of TCP; elsewhere nothing is ever too long.  libpq reads for as long as the server keeps
    up, so on a busy machine more than the limit may have come by the first check.
    """

    def __init__(self, descriptor: int, limit: int | None) -> None:
        self._limit = limit
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._start: int | None = None

    def reset(self) -> None:
        """Begin anew at the next check."""
        self._start = None

    def check(self) -> None:
        """Raise `TooLongError` if more than the limit has come."""
        received = self._received()
        if self._start is None:
            self._start = received
        elif self._limit is not None and received - self._start > self._limit:
            raise TooLongError

    def close(self) -> None:
        """Give up the descriptor; the connection keeps its own."""
        self._socket.close()

    def _received(self) -> int:
        if sys.platform != "linux":
            return 0
        try:
            info = self._socket.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size
            )
        except OSError:  # not TCP
            return 0
        known = len(info) == _BYTES_RECEIVED.size
        return int(_BYTES_RECEIVED.unpack(info)[0]) if known else 0


class _Receiver:
    """Takes rows that have come, and never for long.

    They are gathered in one buffer rather than a list: millions of small objects kept alive cost
    more than all the rest.
    """

    def __init__(
        self, pgconn: pq.abc.PGconn, wanted: int | None, max_row: int | None, batch: int
    ) -> None:
        self._taken = self._skipped = 0
        self._wanted = sys.maxsize if wanted is None else wanted
        self._pgconn = pgconn
        self._meter = Meter(pgconn.socket, max_row)
        self._longest = sys.maxsize if max_row is None else max(1, max_row)
        self._batch = batch
        self._buffer = bytearray()

    def _take_rows(self) -> int:
        """Take what has come; return libpq's last word: 0 to wait, -1 for the end."""
        before = self._taken
        size = self._drain()
        if size or self._taken != before:
            self._meter.reset()
        else:
            self._meter.check()
        if self._buffer and (size < 0 or len(self._buffer) >= self._batch):
            self._hand_over()
        return size

    def _drain(self) -> int:
        """Take what libpq and the socket hold: to ask costs less than to wait."""
        for _ in range(_READS):
            before = self._taken
            size = self._skip() if before >= self._wanted else self._gather()
            if size or self._taken == before or len(self._buffer) >= self._batch:
                return size
            self._pgconn.consume_input()
        return 1  # what was read last is still to be taken

    def _gather(self) -> int:
        """Move rows that libpq holds into the buffer; return its last word."""
        raise NotImplementedError

    def _hand_over(self) -> None:
        """Pass on what is in the buffer, and empty it."""
        raise NotImplementedError

    def _check_length(self, row: memoryview) -> None:
        """Raise `TooLongError` for a row that came whole before the meter could tell."""
        if len(row) >= self._longest:
            raise TooLongError

    def _skip(self) -> int:
        """Drop what libpq holds beyond the rows that are wanted."""
        size = 1
        for _ in range(_ROWS):
            size, _row = self._pgconn.get_copy_data(1)
            if size <= 0:
                break
            self._skipped += 1
        return size


class TextReceiver(_Receiver):
    """Takes the rows of a COPY as text with a header, on the event loop.

    Args:
        pgconn: A connection that copies out.
        write: Takes the text.
        max_rows: How many rows to write.
        max_row: How many bytes a row may have.
    """

    def __init__(
        self, pgconn: pq.abc.PGconn, write: Write, max_rows: int | None, max_row: int | None
    ) -> None:
        super().__init__(pgconn, None if max_rows is None else max_rows + 1, max_row, _BATCH)
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._long_row: memoryview | None = None
        """What is left to write of a row too long for one turn."""
        self._turn_is_due = False

    @property
    def rows(self) -> int:
        """Rows written, the header not counted."""
        return max(0, self._taken - 1)

    @property
    def truncated(self) -> bool:
        """Whether there were more."""
        return self._skipped > 0

    async def run(self) -> None:
        """Return when the last row has been written.

        Raises:
            TooLongError: A row has more than `max_row` bytes; its beginning is in libpq's hands.
        """
        descriptor = self._pgconn.socket
        self._loop.add_reader(descriptor, self._on_readable)
        try:
            self._turn()
            await self._done
        finally:
            self._loop.remove_reader(descriptor)
            self._meter.close()

    def _on_readable(self) -> None:
        # What libpq holds comes first, or its buffer would grow without bound.
        if not self._turn_is_due and not self._done.done():
            self._turn(self._pgconn.consume_input)

    def _turn(self, first: Callable[[], None] | None = None) -> None:
        self._turn_is_due = False
        if self._done.done():
            return
        try:
            if first is not None:
                first()
            size = self._write_piece() if self._long_row else self._take_rows()
        except BaseException as exc:  # noqa: BLE001  # delivered to whoever awaits `run`
            self._done.set_exception(exc)
            return
        if size < 0:
            self._done.set_result(None)
        elif size > 0:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _gather(self) -> int:
        calls = repeat(1, min(_ROWS, self._wanted - self._taken))
        planned, buffer, size = length_hint(calls), self._buffer, 0
        for size, row in map(self._pgconn.get_copy_data, calls):
            if not 0 < size < _PIECE:
                break
            buffer += row
        self._taken += planned - length_hint(calls) - (size <= 0)
        if size >= _PIECE:
            self._check_length(row)
            self._hand_over()
            self._long_row = row
        return size

    def _hand_over(self) -> None:
        self._write(self._buffer)
        self._buffer.clear()

    def _write_piece(self) -> int:
        assert self._long_row is not None
        self._write(self._long_row[:_PIECE])
        self._long_row = self._long_row[_PIECE:]
        return 1


class RowReceiver(_Receiver):
    """Takes the rows of a binary COPY, in a thread that `take` is called in too.

    Every message is one row, the header before the first of them, and the last is the trailer.
    One thread does both, as handing a block from one to another takes longer than decoding it.

    Args:
        pgconn: A connection that copies out, which nobody else may use meanwhile.
        take: Takes the rows, which are then its own.
        max_rows: How many rows to take.
        max_row: How many bytes a row may have.
        block: Hand over about that many bytes at once.
    """

    def __init__(
        self,
        pgconn: pq.abc.PGconn,
        take: Take,
        max_rows: int | None,
        max_row: int | None,
        block: int,
    ) -> None:
        super().__init__(pgconn, max_rows, max_row, block)
        self._take = take
        self._piece = min(_PIECE, self._longest)
        self._lengths: list[int] = []

    @property
    def rows(self) -> int:
        """Rows taken."""
        return self._taken - (self._skipped == 0)  # the trailer has been taken, or skipped

    @property
    def truncated(self) -> bool:
        """Whether there were more."""
        return self._skipped > 1

    async def run(self) -> None:
        """Return when the last row has been taken.

        Raises:
            TooLongError: A row has more than `max_row` bytes; its beginning is in libpq's hands.
        """
        stop = threading.Event()
        await run_in_thread(self._run, stop.is_set, on_cancel=stop.set, own_thread=True)

    def _run(self, stopping: Callable[[], bool]) -> None:
        with selectors.DefaultSelector() as selector, closing(self._meter):
            selector.register(self._pgconn.socket, selectors.EVENT_READ)
            while not stopping() and (size := self._take_rows()) >= 0:
                if size == 0:
                    selector.select(_PATIENCE)
                    self._pgconn.consume_input()

    def _gather(self) -> int:
        calls = repeat(1, min(_ROWS, self._wanted - self._taken))
        buffer, lengths, size, piece = self._buffer, self._lengths, 0, self._piece
        before, add = len(lengths), lengths.append
        for size, row in map(self._pgconn.get_copy_data, calls):
            if not 0 < size < piece:
                break
            buffer += row
            add(size)
        self._taken += len(lengths) - before
        if size >= piece:
            self._take_long_row(row)
        return size

    def _take_long_row(self, row: memoryview) -> None:
        """Hand a row over as it is: to copy it takes long."""
        self._check_length(row)
        if self._buffer:
            self._hand_over()
        self._taken += 1
        self._take(Rows(row, [len(row)]))

    def _hand_over(self) -> None:
        rows = Rows(self._buffer, self._lengths)
        self._buffer, self._lengths = bytearray(), []
        self._take(rows)
