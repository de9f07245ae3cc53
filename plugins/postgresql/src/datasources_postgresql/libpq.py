"""Commands on the level of libpq, where the extended protocol and COPY are at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from psycopg import AsyncConnection, OperationalError, errors, pq

from datasources import LimitExceededError
from datasources_postgresql.copying import (
    Meter,
    RowReceiver,
    Take,
    TextReceiver,
    TooLongError,
    Write,
)

Connection: TypeAlias = "AsyncConnection[tuple[Any, ...]]"

MAX_ANSWER = 64 << 20
"""Bytes of an answer that is read into memory whole."""


async def copy_out(
    connection: Connection,
    command: bytes,
    write: Write,
    max_rows: int | None = None,
    max_row: int | None = None,
) -> tuple[int, bool]:
    """Run `COPY … TO STDOUT (HEADER true)` and write its text.

    Returns how many rows were written, and whether there were more.

    Args:
        connection: An idle one.
        command: The statement.
        write: Takes the text, piece by piece.
        max_rows: How many rows to write.
        max_row: How many bytes a row may have.

    Raises:
        psycopg.Error: What the server says.
        LimitExceededError: A row is too long.
    """
    return await _copy(
        connection, command, lambda pgconn: TextReceiver(pgconn, write, max_rows, max_row), max_row
    )


async def copy_rows(
    connection: Connection,
    command: bytes,
    take: Take,
    block: int,
    max_rows: int | None,
    max_row: int | None,
) -> tuple[int, bool]:
    """Do the same for `COPY … TO STDOUT (FORMAT binary)`, about `block` bytes at once.

    `take` is called in a worker thread.
    """
    return await _copy(
        connection,
        command,
        lambda pgconn: RowReceiver(pgconn, take, max_rows, max_row, block),
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
    _raise_for(await _result(connection), pq.ExecStatus.COPY_OUT, connection)
    receiver = receive(connection.pgconn)
    try:
        await receiver.run()
    except TooLongError:
        await connection.close()  # a cancelled server would still send the row to its end
        raise LimitExceededError(
            f"one row has {max_row} bytes or more, the limit of a fetch"
        ) from None
    _raise_for(await _result(connection), pq.ExecStatus.COMMAND_OK, connection)
    while await _result(connection) is not None:
        pass
    return receiver.rows, receiver.truncated


async def describe(connection: Connection, text: str) -> pq.abc.PGresult:
    """Have the server parse a text alone, as one statement, and tell its columns.

    Raises:
        psycopg.Error: It is not one statement, or names what is not there.
    """
    pgconn = connection.pgconn
    pgconn.send_prepare(b"", text.encode())
    await _only_result(connection, pq.ExecStatus.COMMAND_OK)
    pgconn.send_describe_prepared(b"")
    return await _only_result(connection, pq.ExecStatus.COMMAND_OK)


async def query(connection: Connection, command: bytes) -> pq.abc.PGresult:
    """Run one statement by the extended protocol, which takes no second one.

    Raises:
        psycopg.Error: What the server says.
        LimitExceededError: The answer is larger than `MAX_ANSWER`.
    """
    connection.pgconn.send_query_params(command, None)
    meter = Meter(connection.pgconn.socket, MAX_ANSWER)
    try:
        return await _only_result(connection, pq.ExecStatus.TUPLES_OK, meter)
    except TooLongError:
        await connection.close()
        raise LimitExceededError(
            f"the answer has more than {MAX_ANSWER >> 20} MiB, too much to hold in memory"
        ) from None
    finally:
        meter.close()


async def cancel(connection: Connection) -> None:
    """End the running query on the server and read what is left of its answer."""
    await connection.cancel_safe(timeout=5)
    while (result := await _result(connection)) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            try:
                await TextReceiver(connection.pgconn, lambda _: None, 0, None).run()
            except OperationalError:
                if connection.closed:
                    raise


async def _only_result(
    connection: Connection, wanted: pq.ExecStatus, meter: Meter | None = None
) -> pq.abc.PGresult:
    await _flush(connection)
    result = await _result(connection, meter)
    _raise_for(result, wanted, connection)
    assert result is not None
    while await _result(connection) is not None:
        pass
    return result


async def _flush(connection: Connection) -> None:
    while connection.pgconn.flush():
        await _ready(connection, write=True)


async def _result(connection: Connection, meter: Meter | None = None) -> pq.abc.PGresult | None:
    """Return the next result once it has arrived."""
    pgconn = connection.pgconn
    while pgconn.is_busy():
        await _ready(connection)
        pgconn.consume_input()
        if meter is not None:
            meter.check()
    return pgconn.get_result()


async def _ready(connection: Connection, *, write: bool = False) -> None:
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


def _raise_for(
    result: pq.abc.PGresult | None, wanted: pq.ExecStatus, connection: Connection
) -> None:
    if result is None:
        raise OperationalError("the server ended the command without an answer")
    if result.status == wanted:
        return
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise errors.error_from_result(result, encoding=connection.info.encoding)
    raise OperationalError(f"the server gave {pq.ExecStatus(result.status).name} for {wanted.name}")
