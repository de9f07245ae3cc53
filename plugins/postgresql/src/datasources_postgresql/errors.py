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
from datasources_postgresql.libpq import StatementTimeoutError
from datasources_postgresql.options import PostgreSQLOptions

# By SQLSTATE, the longest prefix wins:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
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

# The code of a failed connection is in its message (`connecting.py`). A pooler such as PgBouncer
# sends 08P01 (protocol_violation) for most of its own errors, and libpq has no code for those that
# it finds itself, such as a password that is missing: these are told apart by their English words.
_SQLSTATE_BY_WORDS = [
    (re.compile(pattern), sqlstate)
    for pattern, sqlstate in (
        (r"password authentication failed|no password supplied|SCRAM|SASL", "28P01"),
        (r"no pg_hba\.conf entry|pg_hba\.conf rejects|authentication failed", "28000"),
        (r'role ".*" (does not exist|is not permitted to log in)', "28000"),
        (r"authentication method|certificate required|requires a valid client cert", "28000"),
        (r'database ".*" (does not exist|is not currently accepting connections)', "3D000"),
        (r"no such user", "28000"),
        (r"no such database", "3D000"),
        (r"permission denied for database", "42501"),
        (r"too many (clients|connections)|remaining connection slots", "53300"),
        (r"the database system is ", "57P03"),
    )
]
_NO_CODE = {None, "08P01"}
_CODE_IN_TEXT = re.compile(r"\[([0-9A-Z]{5})\]")


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
    sqlstate = _sqlstate(exc)
    cls = next(
        error_class
        for length in (5, 3, 2, 0)
        if (error_class := _CLASS_BY_SQLSTATE.get((sqlstate or "")[:length])) is not None
    )
    if cls is LimitExceededError and not isinstance(exc, StatementTimeoutError):
        cls = DataFetchError  # cancelled by another session
    if cls is ItemNotFoundError and item is None:
        cls = DataFetchError
    if cls is DataFetchError and exc.pgconn is not None:
        cls = ConnectError  # nothing was fetched yet
    where = f" [{sqlstate}]" if sqlstate and f"[{sqlstate}]" not in text else ""
    if issubclass(cls, PolicyError):
        return PolicyError(f"the source is read-only: {text}{where}")
    message = f"no table or view {item!r}: {text}" if cls is ItemNotFoundError else text
    return cls(message + where, code=sqlstate)  # type: ignore[call-arg]  # all are ConnectorError


def _sqlstate(exc: psycopg.Error) -> str | None:
    """Return the SQLSTATE of an error, or the one that it should have."""
    # psycopg joins the messages of all hosts: refused credentials count, whichever host was last.
    codes = _CODE_IN_TEXT.findall(str(exc)) if exc.pgconn is not None else []
    refused = next((code for code in codes if code.startswith("28")), None)
    sqlstate = refused or exc.sqlstate or (codes[-1] if codes else None)
    if sqlstate not in _NO_CODE or not isinstance(exc, psycopg.OperationalError):
        return sqlstate
    if exc.pgconn is not None and getattr(exc.pgconn, "needs_password", False):
        return "28P01"
    text = str(exc)
    for pattern, code in _SQLSTATE_BY_WORDS:
        if pattern.search(text):
            return code
    if sqlstate is not None:
        return sqlstate
    # The codes of the SQL standard for a connection that cannot be made, and one that broke.
    connecting = exc.pgconn is not None or isinstance(exc, psycopg.errors.ConnectionTimeout)
    return "08001" if connecting or "failed to resolve host" in text else "08006"


def _message(exc: psycopg.Error) -> str:
    """Return the server's message on one line, with detail, hint, and the notes of this package."""
    diag = exc.diag
    if diag.message_primary:
        notes = getattr(exc, "__notes__", [])
        parts = [diag.message_primary, diag.message_detail, diag.message_hint, *notes]
        return "; ".join(" ".join(part.split()) for part in parts if part)
    text = " ".join(str(exc).split())
    if "definition of service" in text:  # libpq looks for it before it takes any parameter
        text = f"{text}; PGSERVICE in the environment of this process names it"
    return re.sub(r"^connection (failed|is bad): |fe_sendauth: ", "", text) or type(exc).__name__
