"""Run statements through libpq: with the extended protocol, and with COPY.

The functions use the connection's `pgconn` directly, so nobody else may use the connection until
they return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from psycopg import AsyncConnection, OperationalError, errors, pq

from datasources import LimitExceededError
from datasources_postgresql.copying import (
    AnswerTooLongError,
    Meter,
    RowReceiver,
    RowsCallback,
    TextReceiver,
    WriteCallback,
)

Connection: TypeAlias = "AsyncConnection[tuple[Any, ...]]"

MAX_ANSWER = 64 << 20
"""Bytes that the answer to `query` may have: it is held in memory."""


async def copy_out(
    connection: Connection,
    command: bytes,
    write: WriteCallback,
    max_rows: int | None = None,
    max_row: int | None = None,
) -> tuple[int, bool]:
    """Run `COPY … TO STDOUT (HEADER true)` and write its text.

    Returns the number of rows written, and True if there were more.

    Args:
        connection: A connection that runs no statement.
        command: The statement.
        write: Called with the text, piece by piece, on the event loop.
        max_rows: Number of rows to write; None for all.
        max_row: Bytes that one row may have; None for no limit.

    Raises:
        psycopg.Error: The server refused or ended the statement, or the connection broke.
        LimitExceededError: A row has more than `max_row` bytes.
    """
    return await _copy(
        connection, command, lambda pgconn: TextReceiver(pgconn, write, max_rows, max_row), max_row
    )


async def copy_rows(
    connection: Connection,
    command: bytes,
    on_rows: RowsCallback,
    block: int,
    max_rows: int | None,
    max_row: int | None,
) -> tuple[int, bool]:
    """Run `COPY … TO STDOUT (FORMAT binary)` and pass its rows on; otherwise as `copy_out`.

    `on_rows` is called in a worker thread, with blocks of about `block` bytes.
    """
    return await _copy(
        connection,
        command,
        lambda pgconn: RowReceiver(pgconn, on_rows, max_rows, max_row, block),
        max_row,
    )


async def _copy(
    connection: Connection,
    command: bytes,
    receive: Callable[[pq.abc.PGconn], TextReceiver | RowReceiver],
    max_row: int | None,
) -> tuple[int, bool]:
    connection.pgconn.send_query(command)
    await _flush(connection)
    _check_status(await _next_result(connection), pq.ExecStatus.COPY_OUT, connection)
    receiver = receive(connection.pgconn)
    try:
        await receiver.run()
    except AnswerTooLongError:
        # Not cancelled: the server would still send the rest of the row.
        await connection.close()
        raise LimitExceededError(
            f"one row has {max_row} bytes or more, the limit of a fetch"
        ) from None
    _check_status(await _next_result(connection), pq.ExecStatus.COMMAND_OK, connection)
    while await _next_result(connection) is not None:
        pass
    return receiver.rows, receiver.truncated


async def describe(connection: Connection, text: str) -> pq.abc.PGresult:
    """Return the server's description of a statement, which is parsed but does not run.

    Raises:
        psycopg.Error: The text is not one statement, or names something that does not exist.
    """
    pgconn = connection.pgconn
    pgconn.send_prepare(b"", text.encode())
    await _single_result(connection, pq.ExecStatus.COMMAND_OK)
    pgconn.send_describe_prepared(b"")
    return await _single_result(connection, pq.ExecStatus.COMMAND_OK)


async def query(connection: Connection, command: bytes) -> pq.abc.PGresult:
    """Run one statement by the extended protocol, which refuses a text of two statements.

    Raises:
        psycopg.Error: The server refused or ended the statement, or the connection broke.
        LimitExceededError: The answer is larger than `MAX_ANSWER`.
    """
    connection.pgconn.send_query_params(command, None)
    meter = Meter(connection.pgconn.socket, MAX_ANSWER)
    try:
        return await _single_result(connection, pq.ExecStatus.TUPLES_OK, meter)
    except AnswerTooLongError:
        await connection.close()
        raise LimitExceededError(
            f"the answer has more than {MAX_ANSWER >> 20} MiB, too much to hold in memory"
        ) from None
    finally:
        meter.close()


async def cancel(connection: Connection) -> None:
    """Cancel the running statement on the server, and receive the rest of its answer."""
    await connection.cancel_safe(timeout=5)
    while (result := await _next_result(connection)) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            try:
                await TextReceiver(connection.pgconn, lambda _: None, 0, None).run()
            except OperationalError:
                if connection.closed:
                    raise


async def _single_result(
    connection: Connection, expected_status: pq.ExecStatus, meter: Meter | None = None
) -> pq.abc.PGresult:
    await _flush(connection)
    result = await _next_result(connection, meter)
    _check_status(result, expected_status, connection)
    assert result is not None
    while await _next_result(connection) is not None:
        pass
    return result


async def _flush(connection: Connection) -> None:
    while connection.pgconn.flush():
        await _wait_until_ready(connection, write=True)


async def _next_result(
    connection: Connection, meter: Meter | None = None
) -> pq.abc.PGresult | None:
    """Wait for the next result; None if the statement has no more."""
    pgconn = connection.pgconn
    while pgconn.is_busy():
        await _wait_until_ready(connection)
        pgconn.consume_input()
        if meter is not None:
            meter.check()
    return pgconn.get_result()


async def _wait_until_ready(connection: Connection, *, write: bool = False) -> None:
    loop = asyncio.get_running_loop()
    socket = connection.pgconn.socket
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if write else loop.add_reader)(socket, wake)
    try:
        await ready
    finally:
        (loop.remove_writer if write else loop.remove_reader)(socket)


def _check_status(
    result: pq.abc.PGresult | None, expected_status: pq.ExecStatus, connection: Connection
) -> None:
    if result is None:
        raise OperationalError("the server ended the command without an answer")
    if result.status == expected_status:
        return
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise errors.error_from_result(result, encoding=connection.info.encoding)
    raise OperationalError(
        f"the server gave {pq.ExecStatus(result.status).name} for {expected_status.name}"
    )
