"""Errors are told apart by their SQLSTATE, whatever language the server speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    DataFetchError,
    DataSourceConfig,
    DataSourceError,
    DataSourceType,
    LimitExceededError,
    PermissionDeniedError,
    PoolConfig,
)
from datasources_postgresql import PostgreSQLConnector, libpq
from datasources_postgresql.store import PostgreSQLStore
from tests.postgresql.conftest import Admin, Source, active
from tests.waiting import wait_until

# Severity and message as servers with these locales send them.
GERMAN = "FATAL", "Passwort-Authentifizierung für Benutzer »reader« fehlgeschlagen"
RUSSIAN = "ВАЖНО", 'пользователь "reader" не прошёл проверку подлинности (по паролю)'
JAPANESE = "致命的エラー", 'ユーザー"reader"のパスワード認証に失敗しました'
FRENCH = "FATAL", "authentification par mot de passe échouée pour l'utilisateur « reader »"


class RefusingServer:
    """A server that refuses every connection with one error, and counts them."""

    def __init__(self, severity: str, code: str, message: str, encoding: str = "utf-8") -> None:
        fields = {"S": severity, "V": "FATAL", "C": code, "M": message, "F": "auth.c", "L": "321"}
        fields["R"] = "auth_failed"
        body = b"".join(k.encode() + v.encode(encoding) + b"\0" for k, v in fields.items()) + b"\0"
        self._answer = b"E" + (len(body) + 4).to_bytes(4) + body
        self.connections = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self._refuse, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.read(1024)
        writer.write(self._answer)
        writer.close()


def connector_of(port: int | None, **options: object) -> PostgreSQLConnector:
    values: dict[str, object] = {
        "host": "127.0.0.1",
        "port": port,
        "database": "d",
        "user": "reader",
    }
    values |= {"password": "secret", "sslmode": "disable", **options}
    values = {name: value for name, value in values.items() if value is not None}
    return PostgreSQLConnector(DataSourceConfig("pg", DataSourceType.POSTGRESQL, "Test", values))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("28P01", AuthenticationError),
        ("28000", AuthenticationError),
        ("3D000", ConnectError),
        ("42501", PermissionDeniedError),
        ("53300", ConnectError),
        ("57P03", ConnectError),
        ("XX000", ConnectError),
        ("ZZ999", ConnectError),
    ],
)
@pytest.mark.parametrize("language", [GERMAN, FRENCH, RUSSIAN, JAPANESE])
async def test_refused_connection_is_the_error_of_its_sqlstate(
    language: tuple[str, str], code: str, error: type[DataSourceError]
) -> None:
    severity, message = language
    async with RefusingServer(severity, code, message).serve() as port:
        with pytest.raises(DataSourceError) as raised:
            await connector_of(port).connect()
    assert type(raised.value) is error
    assert getattr(raised.value, "code", None) == code
    assert message in str(raised.value)
    assert str(raised.value).count(code) == 1
    assert "auth.c" not in str(raised.value)


async def test_message_in_another_encoding_does_not_hide_the_sqlstate() -> None:
    server = RefusingServer(*GERMAN[:1], "28P01", GERMAN[1], encoding="latin-1")
    async with server.serve() as port:
        with pytest.raises(AuthenticationError):
            await connector_of(port).connect()


async def test_credentials_refused_in_german_are_tried_once() -> None:
    server = RefusingServer(GERMAN[0], "28P01", GERMAN[1])
    async with server.serve() as port:
        connector = connector_of(port)
        connector.pool_config = PoolConfig(connect_attempts=3)
        with pytest.raises(AuthenticationError):
            await connector.connect()
    assert server.connections == 1


@pytest.mark.parametrize("refusing_first", [True, False])
async def test_refused_credentials_count_whichever_host_is_down(refusing_first: bool) -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as closed:
        free_port = closed.sockets[0].getsockname()[1]
    async with RefusingServer(GERMAN[0], "28P01", GERMAN[1]).serve() as port:
        ports = [port, free_port] if refusing_first else [free_port, port]
        dsn = f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]}"
        connector = connector_of(None, host=None, dsn=dsn)
        with pytest.raises(AuthenticationError) as raised:
            await connector.connect()
    assert raised.value.code == "28P01"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("password authentication failed", AuthenticationError),
        ("no such user: reader", AuthenticationError),
        ("no such database: d", ConnectError),
        ("query_wait_timeout", ConnectError),
    ],
)
async def test_pooler_that_sends_one_code_for_everything_is_understood(
    message: str, error: type[DataSourceError]
) -> None:
    async with RefusingServer("FATAL", "08P01", message).serve() as port:
        with pytest.raises(error):
            await connector_of(port).connect()


async def test_connection_that_no_server_answers_has_the_code_of_the_standard() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as closed:
        port = closed.sockets[0].getsockname()[1]
    with pytest.raises(ConnectError) as raised:
        await connector_of(port).connect()
    assert raised.value.code == "08001"


async def test_store_reports_the_sqlstate_of_a_refused_connection() -> None:
    async with RefusingServer(GERMAN[0], "28P01", GERMAN[1]).serve() as port:
        url = f"postgresql://reader:secret@127.0.0.1:{port}/d?sslmode=disable"
        with pytest.raises(DataSourceError, match=r"fehlgeschlagen \[28P01\]"):
            await asyncio.to_thread(PostgreSQLStore, url)


# Repeats the cancellation of its sleep in German, as a server with that locale says it.
SLEEP = """
CREATE FUNCTION sleep(seconds float8) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(seconds);
    RETURN 1;
EXCEPTION WHEN query_canceled THEN
    RAISE EXCEPTION 'storniere Anfrage' USING ERRCODE = 'query_canceled';
END $$
"""


@pytest.mark.parametrize("format_", ["preview", "csv", "read_table"])
async def test_statement_that_runs_for_its_timeout_exceeds_a_limit_in_any_language(
    admin: Admin, source: Source, workspace: object, format_: str
) -> None:
    admin.execute(SLEEP)
    connector = await source(statement_timeout=1)
    read = {
        "preview": lambda: connector.preview("SELECT sleep(60)"),
        "csv": lambda: connector.fetch_data("SELECT sleep(60)", str(workspace)),
        "read_table": lambda: connector.read_table("SELECT sleep(60)"),
    }[format_]
    with pytest.raises(LimitExceededError, match=r"storniere Anfrage.*'statement_timeout'"):
        await read()


async def test_statement_that_another_session_cancels_exceeds_no_limit_in_any_language(
    admin: Admin, source: Source
) -> None:
    admin.execute(SLEEP)
    connector = await source(statement_timeout=60)
    reading = asyncio.create_task(connector.preview("SELECT sleep(50)"))
    running = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    await wait_until(lambda: active(admin, "sleep(50)") and admin.execute(running).rowcount)
    with pytest.raises(DataFetchError, match="storniere Anfrage") as raised:
        await reading
    assert raised.value.code == "57014"


async def test_reason_of_a_session_that_the_server_ends_is_kept(
    admin: Admin, source: Source
) -> None:
    connector = await source()
    assert connector._connections is not None
    async with connector._connections.lease() as connection:
        sleeping = asyncio.create_task(libpq.query(connection, b"SELECT pg_sleep(50)"))
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await wait_until(lambda: admin.execute(end).rowcount)
        with pytest.raises(psycopg.errors.AdminShutdown):
            await sleeping
