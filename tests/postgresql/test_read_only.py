"""Nothing a caller writes reaches the server as anything but one read.

Effects are looked for from outside: by another session, in the server's directory, in sessions of
the same role that must go on undisturbed.
"""

from __future__ import annotations

import csv
import io
import itertools
import random
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from datasources import (
    DataFetchError,
    DataSourceError,
    ItemNotFoundError,
    Limits,
    PolicyError,
    PoolConfig,
    Workspace,
)
from datasources_postgresql import PostgreSQLConnector, libpq
from datasources_postgresql.guard import parse_one, parse_read, plain_select
from datasources_postgresql.identifiers import table_name
from datasources_postgresql.libpq import Connection
from datasources_postgresql.reading import begin, limited
from tests.postgresql.conftest import PASSWORD, Admin, Report, configured, readable, rows_of
from tests.postgresql.statements import (
    BREAK_OUTS,
    DANGEROUS,
    LEGITIMATE,
    LIARS,
    NOT_READS,
    OWN_FUNCTIONS,
    SERVER_FUNCTIONS,
    SETUP,
    SEVERAL,
    WRITING_INSIDE,
)
from tests.servers import Database, PostgresServer

EFFECT = Path("/tmp/datasources-effect")

STATE = """
SELECT
    (SELECT string_agg(i::text, ',' ORDER BY id) FROM items i),
    (SELECT string_agg(what, ',') FROM log),
    (SELECT count(*) FROM guarded),
    (SELECT concat(last_value, is_called) FROM numbers),
    (SELECT md5(string_agg(concat(c.oid, relname, relowner, relacl::text, relkind, relnatts,
        relfilenode, relrowsecurity), ',' ORDER BY c.oid)) FROM pg_class c WHERE c.oid >= 16384),
    (SELECT md5(string_agg(p.oid::text || proname, ',' ORDER BY p.oid)) FROM pg_proc p),
    (SELECT md5(string_agg(t.oid::text || typname, ',' ORDER BY t.oid)) FROM pg_type t),
    (SELECT md5(string_agg(concat(n.oid, nspname, nspacl::text), ',' ORDER BY n.oid))
        FROM pg_namespace n WHERE nspname NOT LIKE 'pg_toast_temp%' AND nspname NOT LIKE 'pg_temp%'),
    (SELECT md5(string_agg(a::text, ',' ORDER BY a.oid)) FROM pg_authid a),
    (SELECT string_agg(s::text, ',' ORDER BY s.setrole) FROM pg_db_role_setting s),
    (SELECT string_agg(datname, ',' ORDER BY oid) FROM pg_database),
    (SELECT md5(string_agg(concat(loid, data), ',' ORDER BY loid)) FROM pg_largeobject),
    (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_largeobject_metadata),
    (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_replication_origin),
    (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_description),
    (SELECT count(*) FROM pg_policy), (SELECT count(*) FROM pg_rewrite),
    (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_default_acl),
    (SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM pg_extension),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""


@dataclass
class Outside:
    """Who looks on: a superuser's session, a listener, and two bystanders of each role."""

    database: Database
    admin: Admin
    listener: Admin
    idle: dict[str, Admin]
    busy: dict[str, Admin]

    def login(self, role: str) -> Admin:
        """Return a new session of a role."""
        return psycopg.connect(
            host=self.database.host,
            port=self.database.port,
            dbname=self.database.name,
            user=role,
            password=PASSWORD,
            autocommit=True,
        )

    def state(self) -> list:
        return [
            self.admin.execute(STATE).fetchone(),
            EFFECT.exists(),
            list(self.listener.notifies(timeout=0)),
            {role: _responds(c) for role, c in self.idle.items()},
            {role: _still_sleeping(c) for role, c in self.busy.items()},
        ]

    def fill(self, statement: str, role: str) -> str:
        dsn = (
            f"host={self.database.host} port={self.database.port} user={role}"
            f" dbname={self.database.name} password={PASSWORD}"
        )
        return (
            statement.replace("{pid}", str(self.idle[role].info.backend_pid))
            .replace("{busy}", str(self.busy[role].info.backend_pid))
            .replace("{dsn}", dsn)
        )


@pytest.fixture(scope="module")
def outside(pg_roles: PostgresServer) -> Iterator[Outside]:
    database = pg_roles.at("read_only")
    EFFECT.unlink(missing_ok=True)
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE read_only")
    try:
        with psycopg.connect(database.dsn(), autocommit=True) as admin:
            readable(admin)
            admin.execute(SETUP)
            yield from _watched(database, admin)
    finally:
        with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE read_only WITH (FORCE)")


def _watched(database: Database, admin: Admin) -> Iterator[Outside]:
    listener = psycopg.connect(database.dsn(), autocommit=True)
    listener.execute("LISTEN channel")
    outside = Outside(database, admin, listener, {}, {})
    for role in ("reader", "owner"):
        outside.idle[role] = outside.login(role)
        outside.busy[role] = connection = outside.login(role)
        connection.pgconn.send_query(b"SELECT pg_sleep(3600)")
        connection.pgconn.flush()
    yield outside
    for connection in outside.busy.values():
        admin.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    for connection in (*outside.idle.values(), *outside.busy.values(), listener):
        connection.close()


def _responds(connection: Admin) -> bool:
    return connection.execute("SELECT true").fetchone() == (True,)


def _still_sleeping(connection: Admin) -> bool:
    return not select.select([connection.fileno()], [], [], 0)[0]


@pytest.fixture(params=["reader", "owner"])
async def role_source(
    request: pytest.FixtureRequest, outside: Outside
) -> AsyncIterator[tuple[str, PostgreSQLConnector]]:
    connector = configured(outside.database, user=request.param)
    connector.pool_config = PoolConfig(max_size=1)
    await connector.connect()
    yield request.param, connector
    await connector.disconnect()


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.soak)])
async def test_dangerous_statements_are_errors_without_effect(
    role_source: tuple[str, PostgreSQLConnector],
    outside: Outside,
    workspace: Workspace,
    step: int,
) -> None:
    """Try each statement as the owner, who may do more, and one of `step` as the reader."""
    role, connector = role_source
    statements = DANGEROUS if role == "owner" else DANGEROUS[::step]
    before, session = outside.state(), await _session(connector)
    tried: list[str] = []
    for statement in statements:
        text = outside.fill(statement, role)
        await _assert_refused(statement, connector.fetch_data(text, workspace))
        await _assert_refused(statement, connector.preview(text))
        for call in (connector.statistics(text), connector.get_metadata(text, exact_rows=True)):
            with suppress(DataSourceError):  # neither need call what a query would
                await call
        tried.append(statement)
        if len(tried) == 10 or statement == statements[-1]:
            assert outside.state() == before, tried
            tried.clear()
    after = await _session(connector)
    assert [(a, b) for a, b in zip(after, session, strict=True) if a != b] == []
    assert list(Path(workspace).glob("*")) == []


async def _assert_refused(statement: str, call: Awaitable[object]) -> None:
    try:
        await call
    except (PolicyError, DataFetchError, ItemNotFoundError):
        return
    pytest.fail(f"accepted: {statement}")


@pytest.mark.parametrize("statement", [*NOT_READS, *WRITING_INSIDE, *SEVERAL, *BREAK_OUTS])
def test_grammar_alone_refuses_what_is_no_read(statement: str) -> None:
    # CHECKPOINT could be a table's name, and a parameter is found out by the server.
    if table_name(statement) is None and not statement.endswith("= $1"):
        with pytest.raises((PolicyError, DataFetchError)):
            parse_read(statement)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("WITH d AS (DELETE FROM items RETURNING *) SELECT * FROM d", "DELETE is not a read"),
        ("WITH i AS (INSERT INTO log VALUES ('x')) SELECT 1", "INSERT is not a read"),
        ("SELECT * INTO made FROM items", "SELECT INTO is not a read"),
        ("SELECT * FROM items FOR UPDATE", "FOR UPDATE or FOR SHARE is not a read"),
        ("SELECT 1; SELECT 2", "a query is one statement; this one has 2"),
        ("COPY items TO STDOUT", "COPY is not a read"),
        ("DO $$ BEGIN END $$", "DO is not a read"),
        ("CALL act()", "CALL is not a read"),
        ("SET work_mem = '64kB'", "SET or RESET is not a read"),
        ("LISTEN channel", "LISTEN is not a read"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN with ANALYZE is not a read"),
        ("SELECT 1) TO PROGRAM 'x' --", "syntax error at or near"),
        ("SELECT 1\0; DROP TABLE items", "NUL"),
        ("SELECT '" + "x" * 60_000 + "'", "longer than 50000 characters"),
    ],
)
def test_refusal_says_why(statement: str, reason: str) -> None:
    with pytest.raises((PolicyError, DataFetchError), match=re.escape(reason)):
        parse_read(statement)


async def test_host_adjusts_which_functions_may_be_called(
    outside: Outside, workspace: Workspace
) -> None:
    options = {
        "allowed_functions": "pg_sleep, public.body, query_to_xml",
        "denied_functions": "upper, public.harmless",
    }
    connector = configured(outside.database, **options)
    await connector.connect()
    for query in ("SELECT pg_sleep(0)", "SELECT 1 WHERE query_to_xml('', true, true, '') IS NULL"):
        with suppress(DataFetchError):  # what it does is its own business
            await connector.fetch_data(query, workspace)
    for query, name in (
        ("SELECT upper('a')", "upper"),
        ("SELECT harmless(1)", "public.harmless"),
        ("SELECT name FROM plain", "upper"),
    ):
        with pytest.raises(
            PolicyError, match=rf"the function {name}(\(\w+\).*)? may not be called"
        ):
            await connector.fetch_data(query, workspace)
    await connector.disconnect()


async def test_tree_alone_refuses_functions_that_may_change_something(
    role_source: tuple[str, PostgreSQLConnector], outside: Outside
) -> None:
    role, connector = role_source
    before = outside.state()
    for statement in (*SERVER_FUNCTIONS, *OWN_FUNCTIONS):
        text = outside.fill(statement, role)
        if table_name(text) is not None:
            text = f"TABLE {text}"
        async with _connection(connector) as connection:
            reading = await begin(connection, connector.options)
            try:
                await reading.authorize(parse_read(text))
                await reading.fetch_all(text)
            except (PolicyError, psycopg.Error):
                continue
            pytest.fail(f"accepted: {text}")
    assert outside.state() == before


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 WHERE 1 IN (SELECT 'a'::text)",
        "SELECT CASE 1 WHEN 'a'::text THEN 1 END",
        "SELECT 1 BETWEEN 'a'::text AND 'b'::text",
        "SELECT 1 NOT BETWEEN SYMMETRIC 'a'::text AND 'b'::text",
        "SELECT NULLIF(1, 'a'::text)",
        "SELECT 1 IS DISTINCT FROM 'a'::text",
        "SELECT 1 = ANY (ARRAY['a'])",
    ],
)
async def test_operator_that_nobody_wrote_is_looked_up(
    admin: Admin, reader: PostgreSQLConnector, workspace: Workspace, query: str
) -> None:
    admin.execute(
        "CREATE FUNCTION spy(int, text) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'called'; END $$;"
        + ";".join(
            f"CREATE OPERATOR {name} (LEFTARG = int, RIGHTARG = text, FUNCTION = spy)"
            for name in ("=", "<", "<=", ">", ">=", "<>")
        )
    )
    with pytest.raises(
        PolicyError, match=r"the function public\.spy\(integer, text\) .*is volatile"
    ):
        await reader.fetch_data(query, workspace)


async def test_name_that_another_encoding_reads_otherwise_is_refused(
    pg_roles: PostgresServer, workspace: Workspace
) -> None:
    database = pg_roles.at("one_byte")
    long = "ä" * 40  # cut after 63 bytes: by the grammar, not by this server
    with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE one_byte ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
            " TEMPLATE template0"
        )
    try:
        with psycopg.connect(database.dsn(), autocommit=True, client_encoding="utf8") as admin:
            readable(admin)
            admin.execute(f"CREATE FUNCTION {long}() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            admin.execute('CREATE TABLE "Ärzte" AS SELECT 1 AS größe')
        connector = configured(database)
        await connector.connect()
        with pytest.raises(PolicyError, match="is volatile"):
            await connector.fetch_data(f"SELECT {long}()", workspace)
        assert (await connector.preview('SELECT größe FROM "Ärzte"')).rows == [(1,)]
        await connector.disconnect()
    finally:
        with psycopg.connect(pg_roles.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE one_byte WITH (FORCE)")


DEEP_OR_LONG = [
    "SELECT " + "1+" * 24_000 + "1",
    "SELECT " + "NOT " * 9_000 + "true",
    "SELECT " + "- " * 9_000 + "1",
    "SELECT " + "(" * 4_000 + "1" + "||1)" * 4_000,
    "SELECT 1" + "::int" * 9_000,
    "SELECT 1" + " UNION SELECT 1" * 3_000,
    "SELECT * FROM a" + " JOIN b ON true" * 3_000,
    "SELECT a" + " COLLATE b" * 4_000,
    "SELECT " + "CASE WHEN true THEN " * 2_000 + "1" + " END" * 2_000,
    "SELECT ARRAY" + "[" * 4_000 + "1" + "]" * 4_000,
    "SELECT '" + "x" * 10_000_000 + "'",
]


def test_deep_or_long_query_is_an_error_and_not_the_end_of_the_process() -> None:
    script = (
        "import sys, threading; from datasources import DataSourceError\n"
        "from datasources_postgresql.guard import parse_read\n"
        "def parse(query):\n"
        "    try: parse_read(query); print('read', flush=True)\n"
        "    except DataSourceError as exc: print(type(exc).__name__, flush=True)\n"
        "threading.stack_size(128 << 10)\n"  # what a thread has on some systems
        "for query in sys.stdin.read().splitlines():\n"
        "    thread = threading.Thread(target=parse, args=(query,)); thread.start(); thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(DEEP_OR_LONG),
        capture_output=True,
        text=True,
        check=False,
    )
    ended = done.stdout.splitlines()  # as many as were read before the process ended
    assert (len(ended), done.returncode, done.stderr) == (len(DEEP_OR_LONG), 0, "")
    assert set(ended) <= {"read", "PolicyError", "DataFetchError"}


# The first is one statement for the server, the second ends at the NUL on its way there.
@pytest.mark.parametrize(
    "statement", [s for s in (*SEVERAL, *BREAK_OUTS) if s[0] != ";" and "\0" not in s]
)
async def test_server_alone_takes_no_second_statement(
    role_source: tuple[str, PostgreSQLConnector], outside: Outside, statement: str
) -> None:
    role, connector = role_source
    before = outside.state()
    async with _connection(connector) as connection:
        with suppress(psycopg.Error, DataSourceError, ValueError):
            await libpq.describe(connection, statement)
            await libpq.query(connection, statement.encode())
            pytest.fail(f"{role} ran: {statement}")
    assert outside.state() == before


async def test_transaction_alone_undoes_or_refuses_writes(
    role_source: tuple[str, PostgreSQLConnector], outside: Outside
) -> None:
    _, connector = role_source
    before = outside.state()
    for statement in [s for s in (*NOT_READS, *WRITING_INSIDE, *LIARS) if "PROGRAM" not in s]:
        async with _connection(connector) as connection:
            await begin(connection, connector.options)
            if not statement.startswith(("COPY", "COMMIT", "END", "ROLLBACK", "ABORT", "BEGIN")):
                with suppress(psycopg.Error):
                    await libpq.query(connection, statement.encode())
        assert outside.state() == before, statement


@pytest.mark.parametrize(
    "statement",
    [
        "SET TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT set_config('transaction_read_only', 'off', true)",
    ],
)
async def test_transaction_cannot_be_made_to_write(
    role_source: tuple[str, PostgreSQLConnector], statement: str
) -> None:
    _, connector = role_source
    async with _connection(connector) as connection:
        await begin(connection, connector.options)
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            await libpq.query(connection, statement.encode())


async def test_guard_belongs_to_the_transaction_not_to_the_connection(
    outside: Outside, workspace: Workspace
) -> None:
    connector = configured(outside.database, user="owner", allowed_functions="writes")
    connector.pool_config = PoolConfig(max_size=1)
    await connector.connect()
    before = outside.state()
    for _ in range(100):
        with pytest.raises(PolicyError, match="read-only") as caught:
            await connector.fetch_data("SELECT writes()", workspace)
        assert "25006" in str(caught.value)
        outside.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'datasources'"
        )
    assert outside.state() == before
    await connector.disconnect()


def test_any_text_is_one_read_or_an_error() -> None:
    _fuzz_grammar(5_000, seed=1)


async def test_mutated_statements_have_no_effect(
    role_source: tuple[str, PostgreSQLConnector], outside: Outside, workspace: Workspace
) -> None:
    await _fuzz_server(300, role_source, outside, workspace)


@pytest.mark.soak
def test_a_hundred_thousand_texts_are_one_read_or_an_error(report: Report) -> None:
    report(f"100000 texts, {_fuzz_grammar(100_000, seed=2)} of them one read")


@pytest.mark.soak
async def test_ten_thousand_mutated_statements_have_no_effect(
    role_source: tuple[str, PostgreSQLConnector],
    outside: Outside,
    workspace: Workspace,
    report: Report,
) -> None:
    report(await _fuzz_server(10_000, role_source, outside, workspace))


def _mutants(count: int, seed: int) -> Iterator[str]:
    """Yield statements put together from pieces of those we have."""
    chance = random.Random(seed)
    corpus = [s for s in (*DANGEROUS, *LEGITIMATE) if "pg_sleep" not in s and "{" not in s]
    joints = ["; ", ") ", "(", "--", "\n", "\r", "/*", "*/", "'", '"', "$$", "\\", " UNION ", "\0",
              " TO STDOUT", " AS q", " FOR UPDATE", " INTO made", " LIMIT 1", "", " ", ","]  # fmt: skip
    for _ in range(count):
        text = chance.choice(corpus)
        for _ in range(chance.randint(1, 3)):
            other = chance.choice(corpus)
            start, end = sorted(chance.sample(range(len(other) + 1), 2))
            piece = chance.choice([other, other[start:end], f"({other})"])
            at = chance.choice([0, len(text), chance.randint(0, len(text))])
            text = text[:at] + chance.choice(joints) + piece + chance.choice(joints) + text[at:]
        yield text


GRAFTS = [
    "{a}", "SELECT * FROM ({a}) q", "({a}) UNION ALL ({b})", "SELECT ({a} LIMIT 1)", "EXPLAIN {a}",
    "WITH w AS ({a}) SELECT * FROM w, ({b}) q", "SELECT 1 WHERE EXISTS ({a})", "SELECT ARRAY({a})",
    "SELECT CASE WHEN EXISTS ({a}) THEN ({b} LIMIT 1) END", "SELECT to_json(q) FROM ({a}) q",
    "SELECT * FROM items i, LATERAL ({a}) l", "SELECT 1 ORDER BY ({a} LIMIT 1)",
    "SELECT count(*) OVER (ORDER BY ({a} LIMIT 1)) FROM ({b}) q",
]  # fmt: skip
CALLS = [
    "writes()", "nextval('numbers')", "pg_terminate_backend({pid})", "pg_advisory_lock(1)", "body()",
    "(SELECT n FROM nested)", "5::checked", "checked(5)", "default_argument()", "(1 ==> 2)",
    "lo_unlink(4242)", "length(set_config('work_mem', '64kB', false))", "claims_stable()", "definer()",
]  # fmt: skip


def _grafted(count: int, seed: int) -> Iterator[str]:
    """Yield statements put together as the grammar has it, calls grafted in place of numbers."""
    chance = random.Random(seed)
    corpus = [s for s in (*DANGEROUS, *LEGITIMATE) if "pg_sleep" not in s and ";" not in s]
    for _ in range(count):
        text = chance.choice(GRAFTS)
        for hole in ("{a}", "{b}"):
            text = text.replace(hole, chance.choice(corpus))
        numbers = [*re.finditer(r"\b\d+\b", text)]
        for match in reversed(chance.sample(numbers, min(len(numbers), chance.randint(0, 1)))):
            text = text[: match.start()] + chance.choice(CALLS) + text[match.end() :]
        yield text


def _fuzz_grammar(count: int, seed: int) -> int:
    accepted = 0
    half = count // 2
    for text in itertools.chain(_mutants(half, seed), _grafted(count - half, seed)):
        try:
            statement = parse_read(text)
        except DataSourceError:
            continue
        accepted += 1
        if statement.kind == "select":  # what is put around it does not change what it is
            tree, _ = parse_one(limited(statement.text, 1))
            assert plain_select(tree), text
            (arm,) = tree["SelectStmt"]["fromClause"]
            assert set(arm) == {"RangeSubselect"}, text
    assert accepted > count / 10
    return accepted


async def _fuzz_server(
    count: int,
    role_source: tuple[str, PostgreSQLConnector],
    outside: Outside,
    workspace: Workspace,
) -> str:
    """Fetch mutants, half of them grammatical; return what became of them."""
    role, connector = role_source
    before, session = outside.state(), await _session(connector)
    small = Workspace(workspace, limits=Limits(max_rows=5, timeout=1))
    ended = Counter[str]()
    mutants = itertools.chain(_mutants(count // 2, seed=3), _grafted(count - count // 2, seed=3))
    for number, text in enumerate(mutants):
        try:
            await connector.fetch_data(outside.fill(text, role), small)
        except DataSourceError as exc:
            ended[type(exc).__name__] += 1
        else:
            ended["file"] += 1
        if number % 50 == 0:
            assert outside.state() == before, text
    assert outside.state() == before
    assert await _session(connector) == session
    assert ended["file"] > count / 50
    return f"{count} statements as {role}: {dict(ended)}; 0 effects"


@asynccontextmanager
async def _connection(connector: PostgreSQLConnector) -> AsyncIterator[Connection]:
    """Lend a connection as a read has it, without what checks the read."""
    assert connector._connections is not None
    async with connector._connections.lease() as connection:
        yield connection


@pytest.mark.parametrize("both_roles", [False, pytest.param(True, marks=pytest.mark.soak)])
async def test_legitimate_statements_give_the_servers_own_text(
    role_source: tuple[str, PostgreSQLConnector],
    outside: Outside,
    workspace: Workspace,
    both_roles: bool,
) -> None:
    """Try each statement as both roles, or each other statement as one role."""
    role, connector = role_source
    statements = LEGITIMATE if both_roles else LEGITIMATE[role == "owner" :: 2]
    steady = 0
    for statement in statements:
        before = _answer(outside.idle[role], statement)
        path = await connector.fetch_data(statement, workspace)
        with outside.login(role) as another:
            after = _answer(another, statement)
        names, *rows = rows_of(path)
        preview = await connector.preview(statement, 20)
        assert list(preview.columns) == names, statement
        metadata = await connector.get_metadata(statement)
        assert [column["name"] for column in metadata["columns"]] == names, statement
        depends = "FROM pg_stat" in statement or statement == "SHOW ALL"
        if before != after or depends:  # on the time or on who asks
            continue
        steady += 1
        assert Path(path).read_bytes() == before, statement
        if "pg_cursors" not in statement:  # a preview has one of its own
            found = (len(preview.rows), preview.truncated)
            assert found == (min(len(rows), 20), len(rows) > 20), statement
    assert steady > 0.8 * len(statements)


def _answer(session: Admin, statement: str) -> bytes:
    """Return what the server says to a session that has nothing to do with the source, as CSV."""
    if statement.startswith(("EXPLAIN", "SHOW")):  # COPY does not take them
        result = session.pgconn.exec_(statement.encode())
        columns = range(result.nfields)
        lines = [[result.fname(column) for column in columns]]
        lines += [
            [result.get_value(n, column) for column in columns] for n in range(result.ntuples)
        ]
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows(
            [(field or b"").decode() for field in line] for line in lines
        )
        return file.getvalue().encode()
    query = f"TABLE {statement}" if table_name(statement) else parse_read(statement).text
    with session.cursor() as cursor:
        copy = sql.SQL(f"COPY ({query}\n) TO STDOUT (FORMAT csv, HEADER)")
        with cursor.copy(copy) as data:
            return b"".join(bytes(piece) for piece in data)


async def _session(connector: PostgreSQLConnector) -> list:
    settings = await connector.preview(
        "SELECT name, setting FROM pg_settings WHERE name NOT LIKE '%.%' ORDER BY 1", 1000
    )
    state = await connector.preview(
        "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors"
        " WHERE name <> ''), (SELECT count(*) FROM pg_listening_channels()), session_user,"
        " current_user, (SELECT count(*) FROM pg_class WHERE relpersistence = 't')"
    )
    return [*settings.rows, *state.rows]
