"""Translate errors of psycopg to those of this project, in one place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from datasources import (
    AuthenticationError,
    ConnectError,
    DataFetchError,
    DataSourceError,
    ItemNotFoundError,
    LimitExceededError,
    PermissionDeniedError,
    PolicyError,
    redact_text,
)
from datasources_postgresql.options import PostgreSQLOptions

# By SQLSTATE, the longest prefix wins: https://www.postgresql.org/docs/current/errcodes-appendix.html
_CLASS_BY_SQLSTATE: dict[str, type[DataSourceError]] = {
    "": DataFetchError,
    "08": ConnectError,
    "25006": PolicyError,  # read_only_sql_transaction
    "25001": PolicyError,  # active_sql_transaction: an attempt to leave read-only
    "28": AuthenticationError,
    "3D000": ConnectError,
    "42501": PermissionDeniedError,
    "42P01": ItemNotFoundError,
    "53300": ConnectError,
    "57014": LimitExceededError,
    "57P": ConnectError,  # admin_shutdown, crash_shutdown, cannot_connect_now, …
}

# libpq gives no SQLSTATE for a failed connection, only the message of the server.
_SQLSTATE_BY_WORDS = [
    (re.compile(pattern), sqlstate)
    for pattern, sqlstate in (
        (r"password authentication failed|no password supplied|SCRAM|SASL", "28P01"),
        (r"no pg_hba\.conf entry|pg_hba\.conf rejects|authentication failed", "28000"),
        (r'role ".*" (does not exist|is not permitted to log in)', "28000"),
        (r"authentication method|certificate required|requires a valid client cert", "28000"),
        (r'database ".*" (does not exist|is not currently accepting connections)', "3D000"),
        (r"permission denied for database", "42501"),
        (r"too many (clients|connections)|remaining connection slots", "53300"),
        (r"the database system is ", "57P03"),
        # Messages of libpq itself, with the codes that the SQL standard has for them:
        # connection_failure, sqlclient_unable_to_establish_sqlconnection.
        (r"closed the connection|consuming input failed|connection is (lost|closed)", "08006"),
        (r"^connection (failed|is bad)|failed to resolve host|connection timeout", "08001"),
    )
]


@contextmanager
def mapped(options: PostgreSQLOptions, item: str | None = None) -> Iterator[None]:
    """Raise an error of this project for an error of psycopg.

    Args:
        options: The options whose secrets are masked in the message.
        item: The table that is read; without one, a missing table is an error in a query.
    """
    try:
        yield
    except psycopg.Error as exc:
        text = _message(exc)
        clean = redact_text(text, options.secret_values())
        # The cause is printed with the traceback, so it is left out if its message has a secret.
        raise _translated(exc, clean, item) from (exc if text == clean else None)


def _translated(exc: psycopg.Error, text: str, item: str | None = None) -> DataSourceError:
    """Return the error of this project for an error of psycopg, with the message `text`."""
    sqlstate = exc.sqlstate or _sqlstate_by_words(exc)
    cls = next(
        error_class
        for length in (5, 3, 2, 0)
        if (error_class := _CLASS_BY_SQLSTATE.get((sqlstate or "")[:length])) is not None
    )
    if cls is DataFetchError and sqlstate is None and isinstance(exc, psycopg.OperationalError):
        cls = ConnectError
    if cls is LimitExceededError and "statement timeout" not in text:
        cls = DataFetchError  # cancelled by another session
    if cls is ItemNotFoundError and item is None:
        cls = DataFetchError
    where = f" [{sqlstate}]" if sqlstate else ""
    if issubclass(cls, PolicyError):
        return PolicyError(f"the source is read-only: {text}{where}")
    message = f"no table or view {item!r}: {text}" if cls is ItemNotFoundError else text
    return cls(message + where, code=sqlstate)  # type: ignore[call-arg]  # all are ConnectorError


def _sqlstate_by_words(exc: psycopg.Error) -> str | None:
    text = str(exc)
    return next((state for pattern, state in _SQLSTATE_BY_WORDS if pattern.search(text)), None)


def _message(exc: psycopg.Error) -> str:
    """Return the server's message on one line, with detail and hint."""
    diag = exc.diag
    if diag.message_primary:
        parts = [diag.message_primary, diag.message_detail, diag.message_hint]
        return "; ".join(" ".join(part.split()) for part in parts if part)
    text = " ".join(str(exc).split())
    return re.sub(r"^connection (failed|is bad): |fe_sendauth: ", "", text) or type(exc).__name__
