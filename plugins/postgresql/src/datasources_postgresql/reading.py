"""Read in one transaction that cannot write: authorize a statement, then run it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from psycopg import errors, sql

from datasources import DataFetchError, WorkspaceFile
from datasources_postgresql import catalog, libpq
from datasources_postgresql.copying import RowsCallback
from datasources_postgresql.guard import SNAPSHOT, Guard, Statement
from datasources_postgresql.libpq import Connection
from datasources_postgresql.options import PostgreSQLOptions
from datasources_postgresql.values import load_rows, register_lenient_loaders

# READ ONLY can be turned off until the transaction has taken a snapshot. Each SELECT takes one, so
# no later statement can turn it off.
# READ COMMITTED, so that each statement takes a snapshot of its own: one that is older than
# the lock on a table sees no row of a table that was truncated or rewritten while the lock was
# waited for (https://www.postgresql.org/docs/current/mvcc-caveats.html).
_READ_COMMITTED = sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED READ {}; ")
# Set for the transaction alone, whatever the defaults of the role or the database are: how the
# server reads strings and writes values. The queries of this package run without JIT: their
# estimated cost on the catalog is high, so the server would compile them for seconds, each time.
_SETTINGS = (
    "SET LOCAL standard_conforming_strings = on; SET LOCAL datestyle = 'ISO'; "
    "SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1; "
    "SET LOCAL bytea_output = 'hex'; SET LOCAL jit = off; "
    # Names are quoted only where they must be, as the identifiers of this package are.
    "SET LOCAL quote_all_identifiers = off; "
    # Nobody reads notices, and libpq receives them all before the first row.
    "SET LOCAL client_min_messages = 'error'; "
)
# Nothing that somebody else has made can have a name that the queries of this package use: tables
# and types of the session's own come last, and functions and operators are PostgreSQL's alone.
_OWN_PATH = "SET LOCAL search_path = pg_catalog, pg_temp; "
# The settings of the role, the database or the connection string, for the caller's own statement.
_CALLERS_SETTINGS = "SET LOCAL jit TO DEFAULT; SET LOCAL quote_all_identifiers TO DEFAULT; "
_OWN_SETTINGS = f"SET LOCAL jit = off; SET LOCAL quote_all_identifiers = off; {_OWN_PATH}"
# The server sends the tree of a statement that it parses, after views and policies are expanded, and
# writes it to its log. The trees of these commands themselves are none: the setting comes last.
# Without `transform_null_equals`, a NULL in place of a literal is understood as the literal is.
_SHOW_TREE = (
    "SET LOCAL transform_null_equals = off; SET LOCAL debug_pretty_print = off; "
    "SET LOCAL client_min_messages = log; SET LOCAL debug_print_rewritten = on"
)
_HIDE_TREE = (
    "SET LOCAL debug_print_rewritten = off; SET LOCAL client_min_messages = error; "
    "SET LOCAL transform_null_equals TO DEFAULT; "
)
_Settings = Literal["own", "caller's", "tree"]
"""Those of this package's queries, those of a caller's statement, and those that show its tree."""
_SNAPSHOT = f"SELECT 'snapshot', {SNAPSHOT.decode()}; "
# A database without an encoding holds bytes of any. In SQL_ASCII the server sends names and comments
# as they are, and what is no UTF-8 is replaced here; in UTF8 it refuses the whole answer.
_RAW_ENCODING = "SET LOCAL client_encoding = 'SQL_ASCII'; "
_CALLERS_ENCODING = "SET LOCAL client_encoding = 'UTF8'; "
# Milliseconds: the statement timeout of the role, the database or the connection string, unless
# there is none or it is longer than the option. Every unit that the server writes is one of interval.
_LOWER_TIMEOUT = (
    "least(nullif(pg_catalog.date_part('epoch',"
    " pg_catalog.current_setting('statement_timeout')::pg_catalog.interval) * 1000, 0), {})"
)
# A backend that computes does not notice that its client was killed, unless it looks. A server on
# another system than Linux may refuse the setting; one before PostgreSQL 14 does not have it.
_SET_TIMEOUT = (
    "SELECT milliseconds,"
    " pg_catalog.set_config('statement_timeout', milliseconds::pg_catalog.text, true),"
    " CASE WHEN pg_catalog.strpos(pg_catalog.version(), 'linux') > 0"
    " AND pg_catalog.current_setting('client_connection_check_interval', true) = '0'"
    " THEN pg_catalog.set_config('client_connection_check_interval', '2000', true) END"
    " FROM (SELECT {timeout}::pg_catalog.int4) AS limits(milliseconds)"
)
_SEARCH_PATH = (
    "SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_schemas(true), "
    "current_user; "
)
_NAME = re.compile(r'"(?:[^"]|"")*"|[^",\s]+')
# Seconds beyond the statement timeout in which the server's error must have arrived.
_GRACE = 5.0
# The output function of a type may be declared for another type, as that of refcursor is for text;
# SQL cannot call it with a value of the type then. A pseudo-type such as anyarray stands for many.
_OUTPUT_FUNCTIONS = b"""
SELECT CASE WHEN pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
    AND (p.proargtypes[0] = t.oid OR argument.typtype = 'p')
    THEN pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname) END
FROM pg_catalog.unnest(%s::pg_catalog.oid[]) WITH ORDINALITY AS c(type, position)
JOIN pg_catalog.pg_type t ON t.oid = c.type
JOIN pg_catalog.pg_proc p ON p.oid = t.typoutput
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_type argument ON argument.oid = p.proargtypes[0]
ORDER BY c.position
"""
_LOCKS = b"""
SELECT c.oid, n.nspname, c.relname, c.relkind::text,
    pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.pid = pg_catalog.pg_backend_pid() AND l.granted
    AND d.datname = pg_catalog.current_database()
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'pg_catalog'
ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result."""

    name: str
    type: int
    """Object id of the type; of its base type for a domain."""
    modifier: int
    table: int = 0
    """Object id of the table or view that the column is read from; 0 for an expression."""


async def begin(
    connection: Connection, options: PostgreSQLOptions, snapshot: Snapshot | None = None
) -> Transaction:
    """Begin a transaction, which is read-only unless the option `read_only` is off.

    With a snapshot it is read-only in any case, and every statement sees the state of the snapshot.
    """
    start = _READ_COMMITTED.format(sql.SQL("ONLY" if options.read_only else "WRITE"))
    if snapshot is not None:
        await snapshot.begin(connection)
        start = sql.SQL("").format()
    statements = start + _first_statements(options)
    results = await libpq.execute_all(connection, statements.as_bytes())
    (path,) = next(rows for rows in results if rows)
    ((milliseconds, *_),) = results[-1]
    connection.statement_timeout = milliseconds / 1000
    connection.answer_timeout = connection.statement_timeout + _GRACE
    if libpq.has_no_encoding(connection):
        await libpq.execute(connection, _RAW_ENCODING.encode())
    register_lenient_loaders(connection)
    return Transaction(connection, options, *path)


class Snapshot(Protocol):
    """A state of the database that a transaction is to see, from before its first statement."""

    async def begin(self, connection: Connection) -> None:
        """Begin a read-only transaction that has this snapshot, or will take it next."""


def _first_statements(options: PostgreSQLOptions) -> sql.Composed:
    path: sql.Composable = sql.SQL("")
    if options.search_path:
        names = sql.SQL(", ").join(map(sql.Identifier, options.search_path))
        path = sql.SQL("SET LOCAL search_path = {}; ").format(names)
    timeout: sql.Composable = sql.Literal(max(1, round(options.statement_timeout * 1000)))
    if "statement_timeout" not in options.model_fields_set:
        timeout = sql.SQL(_LOWER_TIMEOUT).format(timeout)
    return sql.SQL(f"{{path}}{_SEARCH_PATH}{_OWN_PATH}{_SETTINGS}{_SET_TIMEOUT}").format(
        path=path, timeout=timeout
    )


class Transaction:
    """A transaction on a leased connection; `lease` rolls it back if it is not committed.

    The queries of this package run under settings of its own, a caller's statement under those that
    the role has, and its analysis under those that show its tree; `_use` switches, or a command that
    begins with `_switch`, which saves a round trip.

    Args:
        connection: A connection on which the transaction has begun.
        options: The options of the source.
        search_path: The caller's search path, as the setting has it.
        schemas: The schemas on it that exist.
        user: The role, whose name stands for `$user` on the path.
    """

    def __init__(
        self,
        connection: Connection,
        options: PostgreSQLOptions,
        search_path: str,
        schemas: Sequence[str],
        user: str,
    ) -> None:
        self.schemas = schemas
        named = [name.strip('"').replace('""', '"') for name in _NAME.findall(search_path)]
        self.possible_schemas = sorted({*schemas, *named, user})
        """The schemas on the search path, and those that would be on it if they existed."""
        self._connection = connection
        self._options = options
        self._guard = Guard(self, options)
        self._statement: Statement | None = None
        self._callers_path = (
            sql.SQL("SELECT pg_catalog.set_config('search_path', {}, true); ")
            .format(sql.Literal(search_path))
            .as_string()
        )
        # The path before JIT is on, which would compile even the setting of the path.
        self._callers_settings = self._callers_path + _CALLERS_SETTINGS
        self._own_settings = _OWN_SETTINGS
        if libpq.has_no_encoding(connection):
            self._callers_settings += _CALLERS_ENCODING
            self._own_settings += _RAW_ENCODING
        self._search_path = search_path
        self._settings: _Settings | Literal["unknown"] = "own"

    @property
    def system_functions(self) -> dict[int, tuple[Any, ...]]:
        """The rows of PostgreSQL's own functions that the session has read."""
        return self._connection.system_functions

    async def commit(self) -> None:
        """Commit what the statement has changed."""
        await libpq.execute(self._connection, b"COMMIT")

    async def execute(
        self, query: bytes, parameters: Sequence[object] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a query of this package and return its rows."""
        await self._use("own")
        return await libpq.execute_query(self._connection, query, parameters)

    async def snapshot(self, then: _Settings = "own") -> str | None:
        """Return the server's snapshot, which is the same while no transaction ends.

        It is None on a standby.

        Args:
            then: The settings that the next statement needs, set in the same round trip.
        """
        return await self._snapshot_after(self._switch("own"), then)

    async def _snapshot_after(self, command: str, then: _Settings) -> str | None:
        """Run a command after which the settings are this package's, and return the snapshot."""
        command += _SNAPSHOT + self._switch(then)
        results = await libpq.execute_all(self._connection, command.encode())
        # The plan of EXPLAIN, and each of the settings, has one column.
        (snapshot,) = [rows[0][1] for rows in results if rows and len(rows[0]) == 2]
        return cast("str | None", snapshot)

    async def execute_with_callers_names(
        self, query: bytes, parameters: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        """Run a query of this package that writes names as the caller would.

        Args:
            query: The query, whose last parameter is the search path to write them for.
            parameters: The other parameters.
        """
        rows = await self.execute(query, [*parameters, self._search_path])
        self._settings = "unknown"
        return rows

    async def authorize(self, statement: Statement, *, qualified: bool = False) -> list[Column]:
        """Have the server parse a caller's statement, and return its columns; nothing of it runs.

        What the statement may call is checked when it runs. Its literals are checked here, because
        the server converts them while it parses.

        Args:
            statement: The statement.
            qualified: True if no name in it depends on the search path.

        Raises:
            PolicyError: A literal would be checked by a function that may change something.
        """
        self._statement = statement
        if self._options.read_only and statement.query:
            await self._guard.check_before_parsing(statement)
        await self._use("own" if qualified else "caller's")
        return await self._describe(statement.text)

    async def analyse(self, text: str) -> list[str]:
        """Return the trees that the server makes of a statement, which does not run.

        Views and row security policies are expanded in a tree, and their relations are locked.
        """
        await self._use("tree")
        details = await libpq.analyse(self._connection, text)
        return [detail for detail in details if detail.startswith("({QUERY")]

    async def type_id(self, name: str) -> int:
        """Return the id of the type that a name means to the caller, or 0 if it means none."""
        await self._use("caller's")
        query = b"SELECT pg_catalog.to_regtype(%s::pg_catalog.text)::pg_catalog.oid"
        ((oid,),) = await libpq.execute_query(self._connection, query, [name])
        return oid or 0

    async def _describe(self, text: str) -> list[Column]:
        """Return the columns of one statement, and lock the relations that its text names.

        The locks are held until the transaction ends.
        """
        result = await libpq.describe(self._connection, text)
        if result.nparams:
            raise DataFetchError("a query has no parameters, but this one has $1", code="42P02")
        return [
            Column(
                (result.fname(i) or b"").decode(errors="replace"),
                result.ftype(i),
                result.fmod(i),
                result.ftable(i),
            )
            for i in range(result.nfields)
        ]

    @asynccontextmanager
    async def _permitted(self, text: str) -> AsyncIterator[None]:
        """Check what a statement calls, plan it to lock what it reads, and check the evidence.

        The body runs the statement; the evidence is checked right before it and after it. The caller
        must deliver nothing before the block has ended. Planning may already call functions that
        the analysis has admitted.

        Args:
            text: The statement that the body runs: a caller's, or a query around it.

        Raises:
            PolicyError: It would call a function that may change something.
            DataFetchError: Something that it uses was replaced meanwhile.
        """
        statement, permit = self._statement, None
        is_query = statement is None or statement.kind in {"select", "other"}
        if self._options.read_only and statement is not None and statement.query:
            permit = await self._guard.permit(statement, text if is_query else statement.query)
        if is_query:
            snapshot = await self._lock_relations(text)
        else:
            snapshot = await self.snapshot(then="caller's")
        if permit is not None:
            await permit.check(snapshot)
        await self._use("caller's")
        yield
        if permit is not None:
            await permit.check(await self.snapshot())

    async def locks(self) -> list[tuple[Any, ...]]:
        """Return the relations that the transaction has locked, without indexes and the catalog.

        Each is its object id, schema, name, kind, and True if the role may read it itself.
        """
        return await self.execute(_LOCKS)

    async def plan(self, text: str) -> list[tuple[Any, ...]]:
        """Check and plan a described query, and return what the transaction has locked, as `locks`."""
        async with self._permitted(text):
            return await self.locks()

    async def rollback_to(self, savepoint: Literal["figures", "split"]) -> None:
        """Undo what was done since a savepoint; the settings are those of that time."""
        await libpq.execute(self._connection, f"ROLLBACK TO SAVEPOINT {savepoint}".encode())
        self._settings = "unknown"

    async def _use(self, wanted: _Settings) -> None:
        if command := self._switch(wanted):
            await libpq.execute(self._connection, command.encode())

    def _switch(self, wanted: _Settings) -> str:
        """Return what a command has to begin with that needs some settings; it must run next."""
        before, self._settings = self._settings, wanted
        if before == wanted:
            return ""
        # First of all, so that no tree is shown but that of the statement before.
        command = _HIDE_TREE if before in {"tree", "unknown"} else ""
        if wanted == "caller's":
            return command + self._callers_settings
        if before != "own":
            command += self._own_settings
        return command + (self._callers_path + _SHOW_TREE if wanted == "tree" else "")

    async def type_names(self, columns: Sequence[Column]) -> list[str]:
        """Return the types of columns as SQL writes them."""
        types, modifiers = [c.type for c in columns], [c.modifier for c in columns]
        rows = await self.execute_with_callers_names(catalog.TYPE_NAMES, [types, modifiers])
        return [name for (name,) in rows]

    async def output_functions(self, columns: Sequence[Column]) -> list[str | None]:
        """Return the output function of each column's type; None where a query cannot call it."""
        return [
            name for (name,) in await self.execute(_OUTPUT_FUNCTIONS, [[c.type for c in columns]])
        ]

    async def fetch_all(self, text: str, *, jit: bool = True) -> list[tuple[Any, ...]]:
        """Return the rows of one described statement as Python values.

        Args:
            text: The statement, or a query around it.
            jit: False for a query of this package around the caller's, such as a count.
        """
        async with self._permitted(text):
            if not jit:
                await libpq.execute(self._connection, b"SET LOCAL jit = off")
            result = await libpq.query(self._connection, text.encode())
            return load_rows(self._connection, result)

    async def fetch_figures(self, text: str, exact: str) -> tuple[Any, ...]:
        """Return the one row of a query, or that of `exact` if a figure overflows."""
        await self._use("own")
        await libpq.execute(self._connection, b"SAVEPOINT figures")
        try:
            (row,) = await self.fetch_all(text, jit=False)
        except errors.NumericValueOutOfRange:
            await self.rollback_to("figures")
            (row,) = await self.fetch_all(exact, jit=False)
        return row

    async def copy_csv(
        self, text: str, file: WorkspaceFile, max_rows: int | None, max_row: int | None
    ) -> None:
        """Write the rows of a described query to a file as CSV with a header.

        Args:
            text: The query, or one around it.
            file: The file to write; its `rows` and `truncated` are set.
            max_rows: Number of rows to write; None for all.
            max_row: Bytes that one row may have; None for no limit.
        """
        async with self._permitted(text):
            command = f"COPY (\n{text}\n) TO STDOUT (FORMAT csv, HEADER true)"
            file.rows, file.truncated = await libpq.copy_out(
                self._connection, command.encode(), file.write, max_rows, max_row
            )

    async def copy_rows(
        self,
        text: str,
        on_rows: RowsCallback,
        block: int,
        max_rows: int | None,
        max_row: int | None,
    ) -> tuple[int, bool]:
        """Pass the rows of a described query to `on_rows` in the binary format of COPY.

        Returns the number of rows, and True if there were more.

        Args:
            text: The query, or one around it.
            on_rows: Called in a worker thread with blocks of rows.
            block: Bytes of a block, about.
            max_rows: Number of rows to read; None for all.
            max_row: Bytes that one row may have; None for no limit.
        """
        async with self._permitted(text):
            command = f"COPY (\n{text}\n) TO STDOUT (FORMAT binary)"
            return await libpq.copy_rows(
                self._connection, command.encode(), on_rows, block, max_rows, max_row
            )

    async def copy_arrays(self, text: str, on_rows: RowsCallback) -> None:
        """Pass rows of arrays to `on_rows`, as `copy_rows` does, each as soon as it has arrived.

        Args:
            text: A query of this package around a described one, which reads a table by its blocks:
                without TID range scans, it would read the whole table for each range.
            on_rows: Called in a worker thread.
        """
        async with self._permitted(text):
            settings = b"SET LOCAL jit = off; SET LOCAL enable_tidscan = on"
            await libpq.execute(self._connection, settings)
            command = f"COPY (\n{text}\n) TO STDOUT (FORMAT binary)".encode()
            await libpq.copy_rows(self._connection, command, on_rows, 1, None, None)

    async def _lock_relations(self, text: str) -> str | None:
        """Lock every relation that a described statement reads, before it takes its snapshot.

        Returns the server's snapshot after that. The settings are the caller's then.

        Parsing has locked the relations that the text names and those of its views. Partitions and
        inheritance children are locked when a statement is planned: COPY plans after it has taken
        its snapshot (BeginCopyTo in src/backend/commands/copyto.c), and planning skips a child
        that is dropped while its lock is waited for, without looking for the one in its place
        (find_inheritance_children in src/backend/catalog/pg_inherits.c). So the statement is
        planned once in advance; the locks are held until the transaction ends.
        """
        # Like the text of a COPY, this text has been parsed alone as one statement. It is planned
        # under the caller's search path, but while JIT is off: with JIT on, it would be compiled.
        command = self._switch("own") + self._callers_path
        command += f"EXPLAIN (COSTS OFF)\n{text}\n; {self._own_settings}"
        return await self._snapshot_after(command, "caller's")

    async def write_csv(self, text: str, file: WorkspaceFile, max_rows: int | None) -> None:
        """Write the rows of EXPLAIN or SHOW, which COPY does not take, as `copy_csv` does."""
        (names, *rows), file.truncated = await self.fetch_texts(text, max_rows)
        file.rows = len(rows)
        for line in (names, *rows):
            file.write(_csv_line(line))

    async def fetch_texts(
        self, text: str, max_rows: int | None
    ) -> tuple[list[list[bytes | None]], bool]:
        """Return the column names and rows of EXPLAIN or SHOW, and True if there are more rows."""
        async with self._permitted(text):
            result = await libpq.query(self._connection, text.encode())
        rows = result.ntuples if max_rows is None else min(max_rows, result.ntuples)
        columns = range(result.nfields)
        names = [result.fname(i) for i in columns]
        values = [[result.get_value(row, i) for i in columns] for row in range(rows)]
        return [names, *values], rows < result.ntuples


def limited(text: str, rows: int) -> str:
    """Return a query for the first `rows` rows of a query."""
    # The line breaks end a comment at the end of the text. Nothing else can leave the parentheses,
    # because the text has been parsed alone as one statement.
    return f"SELECT * FROM (\n{text}\n) AS q LIMIT {rows}"  # noqa: S608


def counted(text: str) -> str:
    """Return a query that counts the rows of a query."""
    return f"SELECT pg_catalog.count(*) FROM (\n{text}\n) AS q"  # noqa: S608  # as in `limited`


def _csv_line(values: list[bytes | None]) -> bytes:
    return b",".join(map(_csv_field, values)) + b"\n"


def _csv_field(value: bytes | None) -> bytes:
    if value is None:
        return b""
    if not value or any(mark in value for mark in (b",", b'"', b"\n", b"\r")):
        return b'"' + value.replace(b'"', b'""') + b'"'
    return value
