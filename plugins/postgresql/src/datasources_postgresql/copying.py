"""Receive the rows of a COPY from libpq.

psycopg's own `copy` waits for the socket once per row. Here every row that has arrived is received
before the next wait (https://www.postgresql.org/docs/current/libpq-copy.html):
`get_copy_data(1)` returns a row that libpq has in full, 0 if the next one has not arrived in full,
-1 at the end; `consume_input` reads from the socket, without blocking, what has arrived.

One receiver owns the connection from the COPY_OUT result to the end of the COPY; nobody else reads
the socket meanwhile. Both receivers alternate between two phases:

- *a turn*: `_receive` moves rows from libpq to the buffer and reads the socket, bounded by
  `_ROWS_PER_TURN`, `_READS_PER_TURN` and the size of the buffer, and passes a full buffer on.
  Asking libpq and the socket again costs less than waiting, so a turn ends with a wait only when
  both have nothing.
- *a wait* for the socket to become readable, after which the next turn begins with
  `consume_input`. Rows that libpq holds are always received before the socket is read, or libpq's
  buffer would grow without bound.

`TextReceiver` takes its turns on the event loop: a turn passes a full buffer to `write` and then
yields to the loop. `call_soon` runs the next turn if more rows may be ready; otherwise the reader
that `run` has added does, which does nothing while a turn is scheduled. It must not await within a
turn, because callbacks of the loop run it. Writing text costs little, so this is the fastest way.

`RowReceiver` takes its turns in a thread of its own, where it also calls `on_rows`, which decodes
the rows to Arrow. Decoding would block the loop for tens of milliseconds, and handing each block
from a receiving thread to a decoding thread takes longer than decoding it; so one thread does
both. While it runs, the event loop does not touch the connection. A cancelled caller sets an event
that the thread checks between turns, and waits for its end; only then is the connection used again.
`on_rows` may wait for the event loop (`arrow/parquet.py` writes the file there), so a caller must
await the thread, never block on it.
"""

from __future__ import annotations

import asyncio
import math
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint
from typing import TypeAlias

from psycopg import OperationalError, pq

from datasources import run_in_thread

WriteCallback: TypeAlias = Callable[[bytearray | memoryview], None]
"""Called with the next piece of text, in a buffer that is reused after the call."""

_BATCH_BYTES = 1 << 18  # bytes of text that are written at once
_PIECE_BYTES = 1 << 20  # a row of at least this size is written in such pieces, one a turn
_ROWS_PER_TURN = 1 << 13  # rows received in one turn
_READS_PER_TURN = 16  # reads of the socket in one turn
_STOP_CHECK_INTERVAL = 0.1  # seconds between two checks of a waiting thread for cancellation

# Where Linux keeps tcpi_bytes_received in struct tcp_info: include/uapi/linux/tcp.h
_BYTES_RECEIVED = struct.Struct("128xQ")


@dataclass(frozen=True, slots=True)
class Rows:
    """Messages of a binary COPY.

    Each is a row, the header before the first; the last is the trailer alone.
    """

    data: bytearray | memoryview
    lengths: list[int]
    """Bytes of each message."""


RowsCallback: TypeAlias = Callable[[Rows], None]


class AnswerTooLongError(Exception):
    """A row, or the answer to a query, has more bytes than may be held in memory."""


class ServerSilentError(OperationalError):
    """The socket of a connection was not ready for `answer_timeout` seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer from the server within {seconds:g} seconds")


class Meter:
    """Counts the bytes that a connection has received since the last `reset`.

    libpq holds a row until it has arrived in full, and does not tell how many bytes it holds. Linux
    tells how many a TCP socket has received; elsewhere there is no limit. libpq reads for as long
    as the server sends without a pause, so more than the limit may have arrived by the first check.
    """

    def __init__(self, descriptor: int, limit: int | None) -> None:
        self._limit = limit
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._start: int | None = None

    def reset(self) -> None:
        """Count from the next `check` on."""
        self._start = None

    def check(self) -> None:
        """Raise `AnswerTooLongError` if more bytes than the limit have arrived."""
        received = self._received()
        if self._start is None:
            self._start = received
        elif self._limit is not None and received - self._start > self._limit:
            raise AnswerTooLongError

    def close(self) -> None:
        """Close the duplicate of the connection's descriptor."""
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
        if len(info) < _BYTES_RECEIVED.size:  # Linux before 4.1
            return 0
        return int(_BYTES_RECEIVED.unpack(info)[0])


class _CopyReceiver:
    """Receives rows in turns; a subclass says how rows are buffered and where they go.

    Rows are appended to one buffer rather than to a list: millions of small objects that stay alive
    cost more time than all the rest.
    """

    def __init__(
        self, pgconn: pq.abc.PGconn, max_messages: int | None, max_row: int | None, batch: int
    ) -> None:
        self._received = self._discarded = 0  # messages
        self._max_messages = sys.maxsize if max_messages is None else max_messages
        self._pgconn = pgconn
        self._meter = Meter(pgconn.socket, max_row)
        self._longest = sys.maxsize if max_row is None else max(1, max_row)
        self._batch = batch
        self._buffer = bytearray()

    def _receive(self) -> int:
        """Receive rows in one turn; return 0 to wait for more, -1 at the end, else 1 or more."""
        before = self._received
        size = self._drain()
        if size or self._received != before:
            self._meter.reset()
        else:
            self._meter.check()
        if self._buffer and (size < 0 or len(self._buffer) >= self._batch):
            self._flush_buffer()
        return size

    def _drain(self) -> int:
        """Receive rows within the bounds of a turn; return what `_receive` does."""
        for _ in range(_READS_PER_TURN):
            before = self._received
            size = self._discard_rows() if before >= self._max_messages else self._buffer_rows()
            if size or self._received == before or len(self._buffer) >= self._batch:
                return size
            self._pgconn.consume_input()
        return 1  # libpq may hold rows that were read last

    def _buffer_rows(self) -> int:
        """Move rows from libpq to the buffer; return what `get_copy_data` returned last."""
        raise NotImplementedError

    def _flush_buffer(self) -> None:
        """Pass the buffer on and empty it."""
        raise NotImplementedError

    def _check_length(self, row: memoryview) -> None:
        """Raise `AnswerTooLongError` for a row that arrived whole before the meter could tell."""
        if len(row) >= self._longest:
            raise AnswerTooLongError

    def _discard_rows(self) -> int:
        """Drop messages after the first `max_messages`; return what `_buffer_rows` does."""
        size = 1
        for _ in range(_ROWS_PER_TURN):
            size, _row = self._pgconn.get_copy_data(1)
            if size <= 0:
                break
            self._discarded += 1
        return size


class TextReceiver(_CopyReceiver):
    """Receives a COPY in text form with a header, on the event loop.

    Args:
        pgconn: A connection that has answered COPY_OUT.
        write: Called with the text, piece by piece.
        max_rows: Number of rows to write; None for all.
        max_row: Bytes that one row may have; None for no limit. `Meter` checks a row that arrives
            in parts; a row that has arrived is checked from `_PIECE_BYTES` on.
    """

    def __init__(
        self, pgconn: pq.abc.PGconn, write: WriteCallback, max_rows: int | None, max_row: int | None
    ) -> None:
        super().__init__(pgconn, None if max_rows is None else max_rows + 1, max_row, _BATCH_BYTES)
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._long_row: memoryview | None = None
        """The rest of a row that is written in several turns."""
        self._turn_is_scheduled = False
        self._answer_timeout = math.inf
        self._timer: asyncio.TimerHandle | None = None
        """Ends a wait for the socket; None during a turn."""

    @property
    def rows(self) -> int:
        """Number of rows written, without the header."""
        return max(0, self._received - 1)

    @property
    def truncated(self) -> bool:
        """True if there were more rows than `max_rows`."""
        return self._discarded > 0

    async def run(self, answer_timeout: float = math.inf) -> None:
        """Return when the last row has been written.

        Args:
            answer_timeout: Seconds without a byte from the server after which to give up.

        Raises:
            ServerSilentError: The server sent nothing for `answer_timeout`.
            AnswerTooLongError: A row has more than `max_row` bytes. The connection can only be
            closed.
        """
        descriptor = self._pgconn.socket
        self._answer_timeout = answer_timeout
        self._loop.add_reader(descriptor, self._on_readable)
        try:
            self._run_turn()
            await self._done
        finally:
            self._loop.remove_reader(descriptor)
            self._stop_timer()
            self._meter.close()

    def _on_readable(self) -> None:
        self._stop_timer()
        if not self._turn_is_scheduled and not self._done.done():
            self._run_turn(self._pgconn.consume_input)

    def _run_turn(self, first: Callable[[], None] | None = None) -> None:
        self._turn_is_scheduled = False
        if self._done.done():
            return
        try:
            if first is not None:
                first()
            size = self._write_piece() if self._long_row else self._receive()
        except BaseException as exc:  # noqa: BLE001  # raised by `run`, which awaits the future
            self._done.set_exception(exc)
            return
        if size < 0:
            self._done.set_result(None)
        elif size > 0:
            self._turn_is_scheduled = True
            self._loop.call_soon(self._run_turn)
        elif self._answer_timeout != math.inf:
            self._stop_timer()
            self._timer = self._loop.call_later(self._answer_timeout, self._on_silence)

    def _on_silence(self) -> None:
        # A loop that was blocked handles the socket before its timers, so data that arrived
        # meanwhile has stopped this timer.
        if not self._done.done():
            self._done.set_exception(ServerSilentError(self._answer_timeout))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _buffer_rows(self) -> int:
        calls = repeat(1, min(_ROWS_PER_TURN, self._max_messages - self._received))
        call_count, buffer, size = length_hint(calls), self._buffer, 0
        for size, row in map(self._pgconn.get_copy_data, calls):
            if not 0 < size < _PIECE_BYTES:
                break
            buffer += row
        # All calls but the last returned a row; `map` is faster than counting in the loop.
        calls_made = call_count - length_hint(calls)
        self._received += calls_made if size > 0 else calls_made - 1
        if size >= _PIECE_BYTES:
            self._check_length(row)
            self._flush_buffer()
            self._long_row = row
        return size

    def _flush_buffer(self) -> None:
        self._write(self._buffer)
        self._buffer.clear()

    def _write_piece(self) -> int:
        assert self._long_row is not None
        self._write(self._long_row[:_PIECE_BYTES])
        self._long_row = self._long_row[_PIECE_BYTES:]
        return 1


class RowReceiver(_CopyReceiver):
    """Receives a binary COPY in a thread of its own, which also calls `on_rows`.

    See `Rows` for what its messages are.

    Args:
        pgconn: A connection that has answered COPY_OUT.
        on_rows: Called with blocks of rows, which it may keep.
        max_rows: Number of rows to receive; None for all.
        max_row: Bytes that one row may have; None for no limit.
        block: Bytes of rows to pass to `on_rows` at once, about.
    """

    def __init__(
        self,
        pgconn: pq.abc.PGconn,
        on_rows: RowsCallback,
        max_rows: int | None,
        max_row: int | None,
        block: int,
    ) -> None:
        super().__init__(pgconn, max_rows, max_row, block)
        self._on_rows = on_rows
        self._piece = min(_PIECE_BYTES, self._longest)
        self._lengths: list[int] = []

    @property
    def rows(self) -> int:
        """Number of rows received."""
        # The trailer was either received or discarded.
        return self._received if self._discarded else self._received - 1

    @property
    def truncated(self) -> bool:
        """True if there were more rows than `max_rows`."""
        return self._discarded > 1

    async def run(self, answer_timeout: float = math.inf) -> None:
        """Return when the last row has been received.

        Args:
            answer_timeout: Seconds without a byte from the server after which to give up.

        Raises:
            ServerSilentError: The server sent nothing for `answer_timeout`.
            AnswerTooLongError: A row has more than `max_row` bytes. The connection can only be
            closed.
        """
        stop = threading.Event()
        await run_in_thread(
            self._run, stop.is_set, answer_timeout, on_cancel=stop.set, own_thread=True
        )

    def _run(self, stopping: Callable[[], bool], answer_timeout: float) -> None:
        with selectors.DefaultSelector() as selector, closing(self._meter):
            selector.register(self._pgconn.socket, selectors.EVENT_READ)
            while not stopping() and (size := self._receive()) >= 0:
                if size == 0:
                    self._wait_for_data(selector, stopping, answer_timeout)
                    self._pgconn.consume_input()

    def _wait_for_data(
        self,
        selector: selectors.BaseSelector,
        stopping: Callable[[], bool],
        answer_timeout: float,
    ) -> None:
        began = time.monotonic()
        while not selector.select(_STOP_CHECK_INTERVAL) and not stopping():
            if time.monotonic() - began > answer_timeout:
                raise ServerSilentError(answer_timeout)

    def _buffer_rows(self) -> int:
        calls = repeat(1, min(_ROWS_PER_TURN, self._max_messages - self._received))
        buffer, lengths, size, piece = self._buffer, self._lengths, 0, self._piece
        before, add = len(lengths), lengths.append
        for size, row in map(self._pgconn.get_copy_data, calls):
            if not 0 < size < piece:
                break
            buffer += row
            add(size)
        self._received += len(lengths) - before
        if size >= piece:
            self._pass_long_row(row)
        return size

    def _pass_long_row(self, row: memoryview) -> None:
        """Pass a long row on without copying it to the buffer."""
        self._check_length(row)
        if self._buffer:
            self._flush_buffer()
        self._received += 1
        self._on_rows(Rows(row, [len(row)]))

    def _flush_buffer(self) -> None:
        rows = Rows(self._buffer, self._lengths)
        self._buffer, self._lengths = bytearray(), []
        self._on_rows(rows)
