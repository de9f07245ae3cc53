"""What is wrong with a connection string is said in its own words, and without its secrets."""

from __future__ import annotations

import pytest

from datasources import OptionError
from datasources_postgresql import PostgreSQLOptions
from tests.postgresql.conftest import PASSWORD, Admin, Source
from tests.servers import Database

SECRET = "top-secret-word"
FOREIGN = (
    "pgbouncer schema connection_limit pool_timeout prepareThreshold statement_timeout currentSchema "
    "sslfactory loginTimeout prepared_statements server_side_binding async_fallback reWriteBatchedInserts"
)


def refusal(dsn: str) -> str:
    with pytest.raises(OptionError) as raised:
        PostgreSQLOptions.load({"dsn": dsn})
    assert "secret" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", FOREIGN.split())
@pytest.mark.parametrize(
    "form",
    [
        "postgresql://u:top-secret-word@h/d?{}=true",
        "postgres://u:top-secret-word@h:5432/d?sslmode=require&{}=5",
        "postgresql://u:top%2Fsecret@h/d?{}=a@b",
        "host=h dbname=d user=u {}=true password=top-secret-word",
        "{} = 'a b' host=h dbname=d user=u password=top-secret-word",
    ],
)
def test_parameter_that_libpq_does_not_have_is_named(form: str, name: str) -> None:
    message = refusal(form.format(name))
    assert f"its parameter '{name}' is not supported; supported: application_name" in message


def test_every_parameter_that_libpq_does_not_have_is_named() -> None:
    message = refusal("postgresql://u:p@h/d?pgbouncer=true&sslmode=require&schema=public&ssl=false")
    assert "its parameters 'pgbouncer', 'schema', 'ssl' are not supported" in message


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql+psycopg2://u:{SECRET}@h/d",
        f"postgresql+asyncpg://u:{SECRET}@h/d?x=a@b",
        f"jdbc:postgresql://h:5432/d?user=u&password={SECRET}",
        f"POSTGRES+psycopg://u:{SECRET}@h/d",
        f"cockroachdb://u:{SECRET}@h/d",
        f" postgres+psycopg://u:{SECRET}@h/d",
    ],
)
def test_url_of_another_driver_is_told_its_scheme(dsn: str) -> None:
    assert "a URL begins with 'postgresql://'" in refusal(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        f"Server=h;Port=5432;Database=d;User Id=u;Password={SECRET};",
        f"Host=h;Username=u;Password={SECRET};Database=d",
    ],
)
def test_semicolons_are_named(dsn: str) -> None:
    assert "it has ';' between its parameters" in refusal(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:p@h/d?ssl=false",
        "host=h dbname=d user=u ssl=true",
        "host=h ssl=false user=u",
    ],
)
def test_ssl_of_jdbc_is_named_where_libpq_does_not_take_it(dsn: str) -> None:
    """In a URL libpq takes `ssl=true`, for `sslmode=require`."""
    with pytest.raises(OptionError, match="its parameter 'ssl' is not supported"):
        PostgreSQLOptions.load({"dsn": dsn})
    url = PostgreSQLOptions.load({"dsn": "postgresql://u:p@h/d?ssl=true"})
    assert url.conninfo()["sslmode"] == "require"


@pytest.mark.parametrize(
    "form", ["postgresql://u:secret@h/d?{}={}", "host=h dbname=d user=u {}={}"]
)
@pytest.mark.parametrize(
    ("name", "value", "possible"),
    [
        ("sslmode", "required", "its sslmode is none of 'disable', 'allow', 'prefer', "),
        ("sslmode", "REQUIRE", "its sslmode is none of 'disable'"),
        ("gssencmode", "off", "its gssencmode is none of 'disable', 'prefer', 'require'"),
        ("channel_binding", "on", "its channel_binding is none of 'disable', 'prefer', 'require'"),
        ("target_session_attrs", "master", "its target_session_attrs is none of 'any', 'read-wr"),
        ("load_balance_hosts", "yes", "its load_balance_hosts is none of 'disable', 'random'"),
        ("port", "99999", "its port is not a number from 1 to 65535"),
        ("port", "0", "its port is not a number from 1 to 65535"),
        ("port", "5432,70000", "its port is not a number from 1 to 65535"),
        ("port", "9" * 50, "its port is not a number from 1 to 65535"),
    ],
)
def test_value_that_libpq_does_not_have_is_refused_with_the_possible_ones(
    form: str, name: str, value: str, possible: str
) -> None:
    assert possible in refusal(form.format(name, value))


@pytest.mark.parametrize("value", ["sslmode=verify-full", "port=5432,5433", "port=65535", "port=,"])
def test_value_that_libpq_has_is_accepted(value: str) -> None:
    PostgreSQLOptions.load({"dsn": f"host=h,i dbname=d user=u {value}"})


@pytest.mark.parametrize(
    "dsn",
    ["host=h dbname=d user=u\0 sslmode=verify-full", "postgresql://u:p@h/d\0?sslmode=verify-full"],
)
def test_parameters_after_a_nul_are_not_lost(dsn: str) -> None:
    with pytest.raises(OptionError, match="it holds a NUL character"):
        PostgreSQLOptions.load({"dsn": dsn})


@pytest.mark.parametrize(
    "dsn",
    [
        "reader:pw@host/conn", "u:on@begin/connect#host", "host", "conn",
        "postgresql:/u:pw@host/conn", "postgresql//u:pw@host/conn", "postgres:u@h",
    ],
)  # fmt: skip
def test_pieces_of_a_malformed_string_mask_no_word_of_the_message(dsn: str) -> None:
    with pytest.raises(
        OptionError, match="not a connection string or URL that libpq can read"
    ) as caught:
        PostgreSQLOptions.load({"dsn": dsn})
    assert "REDACTED" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h dbname=d user=u password=top secret=word",
        "host=h password=top secret.word=1 dbname=d",
        "postgresql://h/d?user=u&password=top&secret=word",
        "postgresql://u:top/x?secret=word@h/d",
        "postgresql://u:top/secret@h/d?application_name=a@b",
        "postgresql://u:top@secret@h/d?application_name=a@b",
        "host=h password='top-secret-word",
        "top-secret-wordpassword=x",
    ],
)
def test_piece_of_a_password_is_never_taken_for_a_parameter(dsn: str) -> None:
    refusal(dsn)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:p@h/d?application_name=a@b", {"application_name": "a@b"}),
        ("postgresql://h/d?user=u&password=p@x", {"password": "p@x"}),
        ("postgresql://u:p?x@h/d", {"password": "p?x"}),
        ("  postgresql://u:p@h/d", {"dbname": "d", "host": "h"}),
        ("postgresql://u:p@h/d\n", {"dbname": "d"}),
        ("\r\n postgres://u:p@h/d \r\n", {"dbname": "d"}),
        ("host=h dbname=d user=u password='p '", {"password": "p "}),
        ("host=h dbname=d user=u password=x://a@b/c@d", {"password": "x://a@b/c@d"}),
        (" host=h dbname=d user=u\n", {"user": "u"}),
    ],
)
def test_string_that_has_a_meaning_is_read(dsn: str, expected: dict[str, str]) -> None:
    assert expected.items() <= PostgreSQLOptions.load({"dsn": dsn}).conninfo().items()


@pytest.mark.parametrize("timeout", ["0", "-1", "-5"])
async def test_connection_string_without_a_limit_has_that_of_the_pool(
    admin: Admin, pg_database: Database, source: Source, timeout: str
) -> None:
    url = f"postgresql://reader:{PASSWORD}@{pg_database.host}:{pg_database.port}/{pg_database.name}"
    for dsn in (f"{url}?connect_timeout={timeout}", f"connect_timeout={timeout}"):
        connector = await source(dsn=dsn)
        assert (await connector.preview("SELECT 1")).rows == [(1,)]


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        ("1" * 1_000_000, "it has more than 8192 characters"),
        ("postgresql://u:p@h/d?" + "1=1&" * 10_000, "it has more than 8192 characters"),
        ("host=h dbname=d user=u connect_timeout=" + "1" * 5000, "its connect_timeout is not a"),
        ("host=h dbname=d user=u port=" + "1" * 5000, "its port is not a number from 1 to 65535"),
    ],
)
def test_string_of_thousands_of_characters_is_a_clear_error(dsn: str, reason: str) -> None:
    with pytest.raises(OptionError, match=f"option 'dsn': {reason}"):
        PostgreSQLOptions.load({"dsn": dsn})
