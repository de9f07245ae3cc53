"""Open connections whose errors have an SQLSTATE, untouched by the host's environment.

psycopg connects by polling libpq: `PQconnectStart`, then `PQconnectPoll` each time the socket is
ready. `_connect_gen` repeats psycopg's loop (psycopg/generators.py) to change two things:

- libpq returns no SQLSTATE of a failed connection, and the server's message is in the server's
  language. With `PQERRORS_VERBOSE`, libpq writes the SQLSTATE into the message:
  `FATAL:  28P01: Passwort-Authentifizierung …`. psycopg does not wrap `PQsetErrorVerbosity`, but
  documents `pgconn_ptr` for calling functions of libpq with ctypes. Where that is impossible, the
  errors have no SQLSTATE.
- libpq takes three settings of the session from environment variables, without a connection
  parameter that could override them (`EnvironmentOptions` in src/interfaces/libpq/fe-connect.c).
  It takes the value `default` for none, so the variables have that value during each poll.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, Self

from psycopg import AsyncConnection, Connection, errors, pq
from psycopg.abc import RV, PQGen, PQGenConn
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.misc import find_libpq_full_path
from psycopg.waiting import Wait

# PQERRORS_DEFAULT and PQERRORS_VERBOSE in src/interfaces/libpq/libpq-fe.h
_DEFAULT_VERBOSITY, _VERBOSE = 1, 2
# Severity in the server's language, SQLSTATE and message, as pqBuildErrorMessage3 writes them in
# src/interfaces/libpq/fe-protocol3.c; then the line of the server's source code, again translated.
_SQLSTATE = re.compile(r"(?<=:  )([0-9A-Z]{5}): ")
_SOURCE_LOCATION = re.compile(r"^.*:  \w+, \w+\.\w+:\d+\n?", re.MULTILINE)

_ENVIRONMENT_SETTINGS = ("PGTZ", "PGDATESTYLE", "PGGEQO")
_environment_lock = threading.Lock()

_started: ContextVar[list[pq.abc.PGconn] | None] = ContextVar("_started", default=None)
"""Collects the connections that an asynchronous `connect` starts."""


class _NeutralConnect:
    """Connects without the host's environment, and with SQLSTATEs in errors.

    A mixin of psycopg's connection classes.
    """

    check_address: Callable[[str], None] = staticmethod(lambda _: None)
    """Raises PolicyError if a connection to an address, or to the path of a socket, is not allowed."""

    @classmethod
    def _connect_gen(cls, conninfo: str = "", *, timeout: float = 0.0) -> PQGenConn[Any]:
        # psycopg has resolved the host, and libpq connects to `hostaddr` if there is one.
        parameters = conninfo_to_dict(conninfo)
        address = parameters.get("hostaddr") or parameters.get("host")
        cls.check_address(str(address or "/"))  # without a host, libpq takes a socket's directory
        # psycopg before 3.3 passes its timeout here, later versions keep it to themselves.
        deadline = time.monotonic() + timeout if timeout else math.inf
        pgconn = pq.PGconn.connect_start(conninfo.encode())
        if (started := _started.get()) is not None:
            started.append(pgconn)
        _set_error_verbosity(pgconn, _VERBOSE)
        while pgconn.status != pq.ConnStatus.BAD:
            with _neutral_environment():
                status = pgconn.connect_poll()
            if status == pq.PollingStatus.OK:
                _set_error_verbosity(pgconn, _DEFAULT_VERBOSITY)
                pgconn.nonblocking = 1
                return cls(pgconn)  # type: ignore[call-arg]  # a connection class of psycopg
            if status == pq.PollingStatus.FAILED:
                break
            wait = Wait.R if status == pq.PollingStatus.READING else Wait.W
            while not (yield pgconn.socket, wait):
                if time.monotonic() > deadline:
                    raise errors.ConnectionTimeout("connection timeout expired")
        raise _connection_error(pgconn)


class ServerConnection(_NeutralConnect, AsyncConnection[tuple[Any, ...]]):
    """A connection of the connector, with the time limits of what it waits for."""

    answer_timeout: float = math.inf
    """Seconds without a byte from the server after which the connection is given up."""
    statement_timeout: float = math.inf
    """Seconds after which the server ends a statement."""
    statement_began: float = 0.0
    """Time of `time.monotonic` when the last statement was sent."""
    idle_since: float = 0.0
    """Time of `time.monotonic` when the connection was last returned to the pool."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.system_functions: dict[int, tuple[Any, ...]] = {}
        """Rows of the catalog about functions of PostgreSQL's own, by id: they do not change."""

    @classmethod
    async def connect(cls, *args: Any, **options: Any) -> Self:
        """Connect; close the socket if that fails or is cancelled.

        psycopg leaves the socket of a cancelled attempt to the garbage collector. Until then the
        server waits for the rest of the log-in, and `DROP DATABASE` waits for the server.
        """
        started: list[pq.abc.PGconn] = []
        token = _started.set(started)
        try:
            return await super().connect(*args, **options)
        except BaseException:
            for pgconn in started:
                pgconn.finish()
            raise
        finally:
            _started.reset(token)


class StoreConnection(_NeutralConnect, Connection[tuple[Any, ...]]):
    """A connection of the store, which is closed when the server says nothing for too long."""

    answer_timeout: float = math.inf
    """Seconds without a byte from the server after which the connection is closed."""

    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        return super().wait(self._give_up_on_silence(gen), *args, **options)

    def _give_up_on_silence(self, gen: PQGen[RV]) -> PQGen[RV]:
        """Run a generator of psycopg, and raise once the socket was not ready for too long.

        psycopg sends 0 to the generator several times a second while the socket is not ready.
        """
        try:
            wait = next(gen)
            answered = time.monotonic()
            while True:
                ready = yield wait
                if ready:
                    answered = time.monotonic()
                elif time.monotonic() - answered > self.answer_timeout:
                    self.pgconn.finish()
                    raise errors.OperationalError(
                        f"no answer from the server within {self.answer_timeout:g} seconds"
                    )
                wait = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result


def _connection_error(pgconn: pq.abc.PGconn) -> errors.Error:
    """Return psycopg's error for the SQLSTATE in libpq's message, which is appended as `[28P01]`."""
    message = pgconn.get_error_message().strip()
    codes = _SQLSTATE.findall(message)
    message = _SOURCE_LOCATION.sub("", _SQLSTATE.sub("", message)).strip()
    error_class: type[errors.Error] = errors.OperationalError
    if codes:
        message = f"{message} [{codes[-1]}]"
        with suppress(KeyError):  # a code of an extension
            error_class = errors.lookup(codes[-1])
    return error_class(f"connection failed: {message}", pgconn=errors.finish_pgconn(pgconn))


def _set_error_verbosity(pgconn: pq.abc.PGconn, verbosity: int) -> None:
    set_verbosity = _libpq_function("PQsetErrorVerbosity")
    address: int | None = getattr(pgconn, "pgconn_ptr", None)  # psycopg's types leave it out
    if set_verbosity is not None and address is not None:
        set_verbosity(ctypes.c_void_p(address), verbosity)


@cache
def _libpq_function(name: str) -> Callable[..., object] | None:
    """Return a function of the libpq that psycopg uses, or None if it cannot be reached.

    The lookup in a library includes the libraries that it was linked with, so psycopg's own
    extension module leads to the copy of libpq that it calls.
    """
    path = sys.modules[pq.PGconn.__module__].__file__
    if pq.__impl__ == "python":
        path = find_libpq_full_path()
    try:
        function: Callable[..., object] = getattr(ctypes.CDLL(path), name)
    except (AttributeError, OSError):
        return None
    return function


@contextmanager
def _neutral_environment() -> Iterator[None]:
    """Give the variables that libpq reads the value `default` while the body runs.

    Only the process's environment changes, by `putenv`; `os.environ` does not. A variable that is
    not set stays so: adding one can move the environment, which other threads may be reading. They
    see `default` for the time of one poll.
    """
    names = [name for name in _ENVIRONMENT_SETTINGS if name in os.environ]
    if not names:
        yield
        return
    with _environment_lock:
        for name in names:
            os.putenv(name, "default")
        try:
            yield
        finally:
            for name in names:
                if (value := os.environ.get(name)) is None:  # deleted meanwhile
                    os.unsetenv(name)
                else:
                    os.putenv(name, value)
