"""Run statements through libpq: with the extended protocol, and with COPY.

The functions use the connection's `pgconn` directly, so nobody else may use the connection until
they return.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

from psycopg import OperationalError, errors, pq
from psycopg.adapt import PyFormat, Transformer

from datasources import LimitExceededError
from datasources_postgresql.connecting import ServerConnection
from datasources_postgresql.copying import (
    AnswerTooLongError,
    Meter,
    RowReceiver,
    RowsCallback,
    ServerSilentError,
    TextReceiver,
    WriteCallback,
)

Connection: TypeAlias = ServerConnection

MAX_ANSWER = 64 << 20
"""Bytes that the answer to `query` may have: it is held in memory."""
# What can be done about an error, added to the server's message as a note of the exception.
_NO_ENCODING = (
    "the database has no encoding (SQL_ASCII), and files are UTF-8; a query reads bytes of LATIN1 by "
    "convert_from(convert(column::bytea, 'LATIN1', 'UTF8'), 'UTF8')"
)
_RECOVERY_CONFLICT = (
    "on a standby, a longer max_standby_streaming_delay or hot_standby_feedback lets reads end"
)
_LONGEST_TIMER = 86_400 * 7.0  # seconds; event loops take no infinite time


class StatementTimeoutError(errors.QueryCanceled):
    """The server cancelled a statement because of its statement timeout."""


async def execute(connection: Connection, command: bytes) -> list[tuple[Any, ...]]:
    """Run one or more statements without parameters; return the rows of the last one.

    Raises:
        psycopg.Error: As `execute_all`.
    """
    return (await execute_all(connection, command))[-1]


async def execute_all(connection: Connection, command: bytes) -> list[list[tuple[Any, ...]]]:
    """Run one or more statements without parameters; return the rows of each.

    Raises:
        psycopg.Error: The server refused or ended a statement, or the connection broke.
    """
    _note_start(connection)
    connection.pgconn.send_query(command)
    return [_rows(connection, result) for result in await _results(connection)]


async def execute_query(
    connection: Connection, query: bytes, parameters: Sequence[object]
) -> list[tuple[Any, ...]]:
    """Run one statement with parameters and return its rows.

    Args:
        connection: A connection that runs no statement.
        query: The statement, with `%s` for each parameter and `%%` for a percent sign.
        parameters: The parameters, which the server receives apart from the statement.

    Raises:
        psycopg.Error: The server refused or ended the statement, or the connection broke.
    """
    transformer = Transformer(connection)
    values = transformer.dump_sequence(parameters, [PyFormat.TEXT] * len(parameters))
    _note_start(connection)
    connection.pgconn.send_query_params(
        _numbered(query), values, transformer.types, transformer.formats
    )
    return _rows(connection, await _last_result(connection))


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
    _note_start(connection)
    connection.pgconn.send_query(command)
    await _flush(connection)
    _check_status(await _next_result(connection), pq.ExecStatus.COPY_OUT, connection)
    receiver = receive(connection.pgconn)
    try:
        await receiver.run(connection.answer_timeout)
    except AnswerTooLongError:
        # Not cancelled: the server would still send the rest of the row.
        await connection.close()
        raise LimitExceededError(
            f"one row has {max_row} bytes or more, with the server's messages before it; that is "
            "the limit of a fetch"
        ) from None
    except ServerSilentError:
        await connection.close()
        raise
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
    _note_start(connection)
    pgconn.send_prepare(b"", text.encode())
    await _last_result(connection)
    _note_start(connection)
    pgconn.send_describe_prepared(b"")
    return await _last_result(connection)


async def analyse(connection: Connection, text: str) -> list[str]:
    """Have the server parse one statement, which does not run; return the details of its notices.

    Raises:
        psycopg.Error: The text is not one statement, or names something that does not exist.
    """
    details: list[str] = []
    pgconn = connection.pgconn

    def collect(notice: pq.abc.PGresult) -> None:
        detail = notice.error_field(pq.DiagnosticField.MESSAGE_DETAIL)
        if detail is not None:
            details.append(detail.decode(errors="replace"))

    handler, pgconn.notice_handler = pgconn.notice_handler, collect
    try:
        _note_start(connection)
        pgconn.send_prepare(b"", text.encode())
        await _last_result(connection)
    finally:
        pgconn.notice_handler = handler
    return details


async def query(connection: Connection, command: bytes) -> pq.abc.PGresult:
    """Run one statement by the extended protocol, which refuses a text of two statements.

    Raises:
        psycopg.Error: The server refused or ended the statement, or the connection broke.
        LimitExceededError: The answer is larger than `MAX_ANSWER`.
    """
    _note_start(connection)
    connection.pgconn.send_query_params(command, None)
    meter = Meter(connection.pgconn.socket, MAX_ANSWER)
    try:
        result = await _last_result(connection, meter)
    except AnswerTooLongError:
        await connection.close()
        raise LimitExceededError(
            f"the answer has more than {MAX_ANSWER >> 20} MiB, too much to hold in memory"
        ) from None
    finally:
        meter.close()
    _check_status(result, pq.ExecStatus.TUPLES_OK, connection)
    return result


async def cancel(connection: Connection) -> None:
    """Cancel the running statement on the server, and receive the rest of its answer.

    Nothing bounds the time that this takes but the caller, and `answer_timeout`.
    """
    await connection.cancel_safe(timeout=0)
    while (result := await _next_result(connection)) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            receiver = TextReceiver(connection.pgconn, lambda _: None, 0, None)
            try:
                await receiver.run(connection.answer_timeout)
            except OperationalError:
                if connection.closed:
                    raise


def _note_start(connection: Connection) -> None:
    connection.statement_began = time.monotonic()


async def _last_result(connection: Connection, meter: Meter | None = None) -> pq.abc.PGresult:
    """Receive the results as `_results` does, and return the last."""
    return (await _results(connection, meter))[-1]


async def _results(connection: Connection, meter: Meter | None = None) -> list[pq.abc.PGresult]:
    """Send what is buffered, receive all results, and return them or raise the first error.

    A server that ends the session sends its reason as an error, then it closes the connection.
    """
    await _flush(connection)
    results: list[pq.abc.PGresult] = []
    error: errors.Error | None = None
    try:
        while (result := await _next_result(connection, meter)) is not None:
            results.append(result)
            if result.status == pq.ExecStatus.FATAL_ERROR and error is None:
                error = _error_of(result, connection)
            if result.status in {pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_IN}:
                break  # the results of a COPY end only when it has been received
    except OperationalError:
        if error is None:
            raise
    if error is not None:
        raise error
    if not results:
        raise OperationalError("the server ended the command without an answer")
    return results


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
    """Wait until the socket is ready, for at most `answer_timeout` seconds.

    Raises:
        ServerSilentError: It did not become ready. The connection is closed: a statement may run.
    """
    loop = asyncio.get_running_loop()
    socket = connection.pgconn.socket
    ready: asyncio.Future[bool] = loop.create_future()

    def end(is_ready: bool) -> None:
        if not ready.done():
            ready.set_result(is_ready)

    (loop.add_writer if write else loop.add_reader)(socket, end, True)
    # A loop that was blocked handles the socket before it handles its timers, so an answer that
    # arrived meanwhile counts.
    timer = loop.call_later(min(connection.answer_timeout, _LONGEST_TIMER), end, False)
    try:
        if not await ready:
            await connection.close()
            raise ServerSilentError(connection.answer_timeout)
    finally:
        timer.cancel()
        (loop.remove_writer if write else loop.remove_reader)(socket)


def _check_status(
    result: pq.abc.PGresult | None, expected_status: pq.ExecStatus, connection: Connection
) -> None:
    if result is None:
        raise OperationalError("the server ended the command without an answer")
    if result.status == expected_status:
        return
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise _error_of(result, connection)
    status = pq.ExecStatus(result.status).name
    raise OperationalError(f"the server gave {status} for {expected_status.name}")


def _error_of(result: pq.abc.PGresult, connection: Connection) -> errors.Error:
    """Return the error of a result.

    PostgreSQL cancels a statement with one SQLSTATE for every reason, and gives the reason in the
    server's language. A statement that ran for the statement timeout was cancelled by that.
    """
    encoding = connection.info.encoding
    error = errors.error_from_result(result, encoding=encoding)
    elapsed = time.monotonic() - connection.statement_began
    if isinstance(error, errors.QueryCanceled) and elapsed >= connection.statement_timeout:
        error = StatementTimeoutError(*error.args, info=result, encoding=encoding)
        seconds = connection.statement_timeout
        error.add_note(f"the option 'statement_timeout' allows {seconds:g} seconds")
    elif isinstance(error, errors.CharacterNotInRepertoire) and has_no_encoding(connection):
        error.add_note(_NO_ENCODING)
    elif isinstance(error, errors.SerializationFailure):
        error.add_note(_RECOVERY_CONFLICT)
    return error


def has_no_encoding(connection: Connection) -> bool:
    """Return True if the database holds bytes of any encoding."""
    return connection.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII"


def _rows(connection: Connection, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
    transformer = Transformer(connection)
    transformer.set_pgresult(result)
    rows = transformer.load_rows(0, result.ntuples, tuple)
    if not has_no_encoding(connection):
        return rows
    return [tuple(map(_decoded, row)) for row in rows]


def _decoded(value: Any) -> Any:
    """Decode a text of a database without encoding, which psycopg leaves as bytes, or an array."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@cache
def _numbered(query: bytes) -> bytes:
    """Replace each `%s` by `$1`, `$2` and so on, and `%%` by `%`."""
    count = 0

    def placeholder(match: re.Match[bytes]) -> bytes:
        nonlocal count
        if match[0] == b"%%":
            return b"%"
        count += 1
        return b"$%d" % count

    return re.sub(rb"%[s%]", placeholder, query)
