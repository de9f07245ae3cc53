"""No function that may change something is reached, whatever leads to it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from datasources import DataFetchError, LimitExceededError, PolicyError, Workspace
from datasources_postgresql import PostgreSQLConnector
from datasources_postgresql.guard import parse_read
from tests.postgresql.conftest import PASSWORD, Admin, Source, configured
from tests.postgresql.guard.conftest import Harmful

REACHING = [
    # Attribute notation calls a function of any argument's type.
    "SELECT (4242::bigint).pg_advisory_lock",
    "SELECT x.pg_sleep FROM unnest(ARRAY[1.0::float8]) x",
    "SELECT ('SELECT s.h(1)::text::tsvector'::text).ts_stat",
    # Input functions with the type as a number.
    "SELECT domain_in('5', 's.d'::regtype, -1) IS NULL",
    "SELECT array_in('{5}', 's.d'::regtype, -1) IS NULL",
    "SELECT record_in('(5,x)', 's.row'::regtype, -1) IS NULL",
    "SELECT range_in('[1,5]', 's.span'::regtype, -1) IS NULL",
    "SELECT fmgr_sql_validator('s.two'::regproc)",
    "SELECT pg_input_is_valid('5', 's.d')",
    "SELECT pg_input_is_valid('{5}', lower('S.D[]'))",
    # Columns of functions.
    "SELECT * FROM s.two()",
    "SELECT (s.two()).a",
    "SELECT * FROM s.many()",
    # Casts.
    "SELECT 5::point",
    "SELECT id::point FROM s.t",
    "SELECT '[5]'::jsonb::inet",
    "SELECT ARRAY[5]::point[]",
    "SELECT array_agg(t)::text FROM s.t t",
    # Negators.
    "SELECT NOT (id OPERATOR(s.~~~) 3) FROM s.t",
    "SELECT NOT (id OPERATOR(s.~~~) ANY (ARRAY[3])) FROM s.t",
    "SELECT * FROM s.negated",
    # Checks of domains, and literals that the server converts while it analyses.
    "SELECT 5::s.d",
    "SELECT s.d '5'",
    "SELECT '(5,x)'::s.row",
    "SELECT s.row '(5,x)'",
    "SELECT '{5}'::s.d[]",
    "SELECT '[1,5]'::s.span",
    "SELECT ROW(5, 'x')::s.row",
    "SELECT many = '{5}' FROM s.held",
    "SELECT many IS DISTINCT FROM '{5}' FROM s.held",
    "SELECT many IN ('{5}') FROM s.held",
    "SELECT CASE many WHEN '{5}' THEN 1 END FROM s.held",
    "SELECT coalesce(whole, $$(5,x)$$) FROM s.held",
    "SELECT many || E'{5}' FROM s.held",
    "SELECT many FROM s.held UNION ALL SELECT U&'{5}'",
    "SELECT * FROM json_to_record('{\"a\": 5}') AS t(a s.d)",
    "SELECT jsonb_populate_record(NULL::s.row, '{\"v\": 5}')",
    "EXPLAIN SELECT '(5,x)'::s.row",
    "EXPLAIN (COSTS OFF, ANALYZE FALSE) SELECT * FROM s.held WHERE many = '{5}'",
    # Operator classes, casts to JSON, aggregates, policies, views, bodies and defaults.
    "SELECT id FROM s.indexed WHERE id = 5",
    "SELECT id FROM s.divided WHERE id = 5",
    "SELECT json_agg(v) FROM s.odds",
    "SELECT to_jsonb(o) FROM s.odds o",
    "SELECT s.agg(id) FROM s.t",
    "SELECT * FROM s.v",
    "s.v",
    "SELECT s.by_default()",
    "SELECT s.body()",
    # The same code under another name.
    "SELECT * FROM s.stat('SELECT s.h(1)::text::tsvector')",
    # The handler of a sampling method.
    "SELECT id FROM s.t TABLESAMPLE s.pick (50)",
]


@pytest.mark.parametrize("statement", REACHING)
async def test_harmful_function_is_not_reached(
    any_role: PostgreSQLConnector, workspace: Workspace, statement: str
) -> None:
    with pytest.raises(PolicyError):
        await any_role.fetch_data(statement, workspace)
    with pytest.raises(PolicyError):
        await any_role.preview(statement)
    assert list(Path(workspace).glob("*")) == []


async def test_policy_is_not_run(harmful: Harmful, workspace: Workspace) -> None:
    connector = configured(harmful.database)
    await connector.connect()
    with pytest.raises(PolicyError, match="in a row security policy of the table guarded"):
        await connector.fetch_data("s.guarded", workspace)
    await connector.disconnect()


async def test_session_of_the_role_is_not_ended(
    any_role: PostgreSQLConnector, harmful: Harmful
) -> None:
    superuser = any_role.options.user == "postgres"
    victim = psycopg.connect(
        host=harmful.database.host,
        port=harmful.database.port,
        dbname=harmful.database.name,
        user=any_role.options.user,
        password=harmful.database.password if superuser else PASSWORD,
        autocommit=True,
    )
    with victim:
        for statement in ("({}).pg_terminate_backend", "({}).pg_cancel_backend"):
            with pytest.raises(PolicyError, match=r"the function pg_\w+_backend\(integer"):
                await any_role.preview("SELECT " + statement.format(victim.info.backend_pid))
        assert victim.execute("SELECT true").fetchone() == (True,)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT 1, s.h(2)", r"s\.h\(integer\) at character 11 is volatile"),
        ("SELECT *, s.h(2) FROM s.t", r"s\.h\(integer\) at character 11 is volatile"),
        ("SELECT * FROM s.v", r"s\.h\(integer\), in the view v is volatile"),
        ("SELECT 5::s.d", r"s\.h\(integer\), in a check of the domain s\.d is volatile"),
        ("SELECT ts_stat('SELECT 1')", "the function ts_stat may not be called"),
        ("SELECT ('x'::text).ts_stat", r"ts_stat\(text\) at character 9 may not be called"),
    ],
)
async def test_refusal_names_function_arguments_and_place(
    harmful: Harmful, workspace: Workspace, statement: str, message: str
) -> None:
    connector = configured(harmful.database)
    await connector.connect()
    with pytest.raises(PolicyError, match=message):
        await connector.fetch_data(statement, workspace)
    with pytest.raises(PolicyError, match=message):
        await connector.preview(statement)
    await connector.disconnect()


@pytest.mark.parametrize(
    ("options", "statement", "admitted"),
    [
        ({"allowed_functions": "s.agg(integer)"}, "SELECT s.agg(id) FROM s.t", True),
        ({"allowed_functions": "agg(int4)"}, "SELECT s.agg(id) FROM s.t", True),
        ({"allowed_functions": "s.agg(text)"}, "SELECT s.agg(id) FROM s.t", False),
        ({"allowed_functions": "pg_sleep(double precision)"}, "SELECT pg_sleep(0)", True),
        ({"allowed_functions": "pg_sleep(integer)"}, "SELECT pg_sleep(0)", False),
        ({"denied_functions": "round(numeric, integer)"}, "SELECT round(1.5, 1)", False),
        ({"denied_functions": "round(numeric, integer)"}, "SELECT round(1.5)", True),
        ({"denied_functions": ["round(numeric,integer)"]}, "SELECT (1.5).round", True),
    ],
)
async def test_signature_allows_and_denies_one_overload(
    harmful: Harmful, options: dict, statement: str, admitted: bool
) -> None:
    connector = configured(harmful.database, **options)
    await connector.connect()
    refused = False
    try:
        await connector.preview(statement)
    except PolicyError:
        refused = True
    except DataFetchError:  # what an allowed function does is its own business
        pass
    await connector.disconnect()
    assert refused is not admitted


async def test_metadata_neither_runs_a_view_nor_refuses_to_describe_it(harmful: Harmful) -> None:
    connector = configured(harmful.database)
    await connector.connect()
    assert [c["name"] for c in (await connector.get_metadata("s.v"))["columns"]] == ["x"]
    assert "s.v" in {item.path for item in await connector.list_items()}
    with pytest.raises(PolicyError):
        await connector.get_metadata("s.v", exact_rows=True)
    await connector.disconnect()


def _doubling(levels: int) -> str:
    tables = "".join(
        f", a{i} AS NOT MATERIALIZED (SELECT * FROM a{i - 1} UNION ALL SELECT * FROM a{i - 1})"
        for i in range(1, levels + 1)
    )
    return f"WITH a0 AS (SELECT 1 x){tables} SELECT count(*) FROM a{levels}"


def _adding(levels: int) -> str:
    query = "SELECT 1 AS x FROM s.t"
    for _ in range(levels):
        query = f"SELECT x + x AS x FROM ({query}) q"
    return query


@pytest.mark.parametrize(
    "statement",
    [
        _doubling(12),
        _doubling(24),
        _adding(24),
        "SELECT 1 FROM s.t GROUP BY " + ", ".join(["CUBE (id, note, id + 1, id + 2)"] * 3),
        "SELECT (jsonb_populate_record(NULL::s.t, " + "'{}' || " * 400 + "'{}')).*",
    ],
    ids=["12 levels", "24 levels", "sums", "grouping sets", "rows"],
)
async def test_query_that_unfolds_to_too_much_is_refused(
    harmful: Harmful, workspace: Workspace, statement: str
) -> None:
    connector = configured(harmful.database, statement_timeout=20)
    await connector.connect()
    with pytest.raises((PolicyError, LimitExceededError)) as caught:
        await connector.fetch_data(statement, workspace)
    assert isinstance(caught.value, PolicyError)
    await connector.disconnect()


def test_query_of_any_depth_is_parsed_or_refused() -> None:
    for depth in range(300, 600, 3):  # about where the stack of Python ends
        nested = "'{}' || " * depth + "'{}'"
        with pytest.raises(PolicyError, match=r"repeats a long expression|nested too deeply"):
            parse_read(f"SELECT (jsonb_populate_record(NULL::s.t, {nested})).*")


async def test_nested_sums_are_refused_although_all_names_are_clear(
    admin: Admin, source: Source
) -> None:
    admin.execute("CREATE SCHEMA s; CREATE TABLE s.t (n int); GRANT USAGE ON SCHEMA s TO reader")
    admin.execute("GRANT SELECT ON s.t TO reader")
    connector = await source(guard="names-first")
    assert (await connector.preview(_adding(1))).columns == ("x",)
    with pytest.raises(PolicyError, match="unfolds to"):
        await connector.preview(_adding(20))


async def test_views_that_unfold_to_too_much_are_refused(
    harmful: Harmful, workspace: Workspace
) -> None:
    harmful.admin.execute("CREATE SCHEMA deep; CREATE VIEW deep.v0 AS SELECT 1 AS x")
    for i in range(1, 13):
        harmful.admin.execute(
            f"CREATE VIEW deep.v{i} AS TABLE deep.v{i - 1} UNION ALL TABLE deep.v{i - 1}"
        )
    harmful.admin.execute(
        "GRANT USAGE ON SCHEMA deep TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA deep TO reader"
    )
    connector = configured(harmful.database)
    await connector.connect()
    assert (await connector.preview("deep.v5")).rows != []
    with pytest.raises(PolicyError, match="views of the query unfold"):
        await connector.fetch_data("deep.v12", workspace)
    await connector.disconnect()
