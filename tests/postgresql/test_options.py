from __future__ import annotations

import json
import logging
import random
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, strategies as st
from psycopg import pq

from datasources import (
    DataSourceError,
    OptionError,
)
from datasources_postgresql import PostgreSQLOptions
from tests.postgresql.conftest import PASSWORD, Admin, Report, configured
from tests.servers import Database

BASE = {"host": "db.example.com", "database": "sales", "user": "reader"}


@pytest.mark.parametrize("alias", ["dbname", "database"])
def test_database_has_an_alias(alias: str) -> None:
    options = PostgreSQLOptions.load({"host": "h", "user": "u", alias: "sales"})
    assert options.database == "sales"


@pytest.mark.parametrize("missing", ["host", "database", "user"])
def test_missing_option_is_named(missing: str) -> None:
    values = {name: value for name, value in BASE.items() if name != missing}
    with pytest.raises(OptionError, match=f"option '{missing}' is missing"):
        PostgreSQLOptions.load(values)


def test_unknown_option_is_named_with_those_there_are() -> None:
    with pytest.raises(OptionError, match=r"unknown option 'hots'; options: host, port"):
        PostgreSQLOptions.load({**BASE, "hots": "x"})


def test_fields_override_the_connection_string() -> None:
    options = PostgreSQLOptions.load(
        {"dsn": "postgresql://a:secret1@one:1111/first", "host": "two", "password": "secret2"}
    )
    conninfo = options.conninfo()
    assert conninfo["host"] == "two"
    assert conninfo["port"] == "1111"
    assert conninfo["user"] == "a"
    assert conninfo["password"] == "secret2"
    assert sorted(options.secret_values()) == [
        "postgresql://a:secret1@one:1111/first",
        "secret1",
        "secret2",
    ]


@pytest.mark.parametrize(
    ("values", "hosts"),
    [
        ({}, ["db.example.com"]),
        ({"host": "one,two"}, ["one", "two"]),
        ({"host": None, "dsn": "postgresql://one:1,two:2/x"}, ["one", "two"]),
        ({"host": None, "dsn": "host=name hostaddr=10.0.0.7"}, ["10.0.0.7", "name"]),
        ({"dsn": "host=name hostaddr=10.0.0.7"}, ["db.example.com"]),
        ({"host": "/var/run/postgresql"}, ["/var/run/postgresql"]),
    ],
)
def test_policy_sees_every_host(values: dict[str, Any], hosts: list[str]) -> None:
    given_values = {k: v for k, v in {**BASE, **values}.items() if v is not None}
    assert list(PostgreSQLOptions.load(given_values).hosts()) == hosts


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:top/secret#word@[host/db",
        "host=h password='top-secret-word",
        "postgresql://u:top-secret-word@host:port:port/db?x",
        "postgresql://u:p@top-secret-word@host/db",
        "postgresql://u:1/secret-word@host/db",
        "top-secret-word",
        "password=top-secret-word =",
    ],
)
def test_malformed_connection_string_is_never_repeated(dsn: str) -> None:
    with pytest.raises(OptionError, match="option 'dsn': ") as caught:
        PostgreSQLOptions.load({**BASE, "dsn": dsn})
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "keyword",
    [
        "service=x",
        "passfile=/etc/passwd",
        "sslkeylogfile=/tmp/x",
        "replication=database",
        "krbsrvname=x",
        "requirepeer=x",
    ],
)
def test_connection_string_reaches_no_file_or_protocol_of_the_host(keyword: str) -> None:
    with pytest.raises(OptionError, match="is not supported"):
        PostgreSQLOptions.load({**BASE, "dsn": keyword})


def test_reference_in_place_of_the_connection_string_passes_the_check() -> None:
    assert PostgreSQLOptions.check({"dsn": "${env:SALES_DSN}"}) is None


def test_every_option_is_described_with_an_example() -> None:
    for name, field in PostgreSQLOptions.fields():
        assert field.description, name
        assert field.examples, name


def test_secrets_are_in_no_representation() -> None:
    options = PostgreSQLOptions.load(
        {"dsn": "postgresql://a:secret1@one/first", "password": "secret2"}
    )
    shown = [
        repr(options),
        str(options),
        options.model_dump_json(),
        json.dumps(
            PostgreSQLOptions.redact({"dsn": "postgresql://a:secret1@one/first", "password": "s"})
        ),
    ]
    assert not any("secret1" in text or "secret2" in text for text in shown)


@given(st.dictionaries(st.sampled_from(list(PostgreSQLOptions.model_fields)), st.text()))
def test_any_texts_load_or_are_an_option_error(values: dict[str, str]) -> None:
    with suppress(OptionError):
        PostgreSQLOptions.load(values)


@given(st.text(alphabet="abpostgresql:/@?&=%' \\[],.#0é\n", max_size=60))
def test_any_connection_string_loads_or_is_an_option_error(dsn: str) -> None:
    with suppress(OptionError):
        list(PostgreSQLOptions.load({**BASE, "dsn": dsn}).hosts())


SECRET = "pa55-word"


@pytest.mark.soak
def test_a_hundred_thousand_connection_strings_load_or_are_an_error_without_secrets(
    report: Report,
) -> None:
    chance = random.Random(6)
    starts = ["postgresql://", "postgres://", "host=h ", "", "postgresql:/", "dbname=", "://"]
    pieces = ["u", ":", "@", "/", "?", "&", "=", "#", "%", "%2f", "%00", " ", "'", "\\", "[::1]", "[",
              "h", ",", "5432", "sslmode=", "require", "password=", SECRET, "host=", "user=", "\0",
              "é", "\n", "options=", "-c x=y", "service=", "\ud800", "dbname="]  # fmt: skip
    _fuzz_options(
        report,
        "connection strings",
        lambda: {
            **chance.choice([BASE, {}]),
            "dsn": chance.choice(starts)
            + "".join(chance.choices([*pieces, f":{SECRET}@"], k=chance.randint(0, 8))),
        },
    )


@pytest.mark.soak
def test_a_hundred_thousand_options_load_or_are_an_error_without_secrets(report: Report) -> None:
    chance = random.Random(7)
    names = [*PostgreSQLOptions.model_fields, "dbname", "username", "unknown", "", "\ud800"]
    values = ["", "x", " ", "1", "-1", "0", "65536", "1e999", "nan", "true", "a,b", "/sock", "\0", "é",
              "\ud800", "h,h", "verify-full", None, 0, 1, -1, 1.5, True, [], ["a"], [1], {}, {"a": 1},
              b"x", 10**30, "${env:X}", "x" * 10_000]  # fmt: skip
    _fuzz_options(
        report,
        "options",
        lambda: {
            **chance.choice([BASE, {}]),
            **{chance.choice(names): chance.choice(values) for _ in range(chance.randint(0, 4))},
            "password": SECRET,
        },
    )


def _fuzz_options(report: Report, what: str, made: Callable[[], dict[str, Any]]) -> None:
    loaded = 0
    for _ in range(100_000):
        values = made()
        try:
            options = PostgreSQLOptions.load(values)
            told = repr(options)
            list(options.hosts()), list(options.paths()), options.conninfo()
            loaded += 1
        except OptionError as exc:
            told = f"{exc} {exc.__cause__}"
        assert SECRET not in told, values
    report(f"100000 {what}, {loaded} of them valid")
    assert loaded > 100


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGOPTIONS", "-c nonsense=1 --"),
        ("PGHOSTADDR", "127.0.0.2"),
        ("PGSSLMODE", "verify-full"),
        ("PGCHANNELBINDING", "require"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGREQUIREAUTH", "none"),
        ("PGCONNECT_TIMEOUT", "nonsense"),
        ("PGMINPROTOCOLVERSION", "9.9"),
        ("PGGSSENCMODE", "require"),
        ("PGCLIENTENCODING", "nonsense"),
    ],
)
async def test_environment_of_the_host_does_not_matter(
    admin: Admin, pg_database: Database, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    connector = configured(pg_database)
    with monkeypatch.context() as host:
        host.setenv(variable, value)
        with pytest.raises(psycopg.Error):  # what the variable does to others
            psycopg.connect(pg_database.dsn()).close()
        await connector.connect()
        preview = await connector.preview("SELECT current_user, current_database()")
        assert preview.rows == [("reader", pg_database.name)]
        await connector.disconnect()


def test_every_parameter_that_libpq_would_take_from_the_environment_is_set() -> None:
    parameters = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    unset = parameters - PostgreSQLOptions.load({**BASE, "password": "x"}).conninfo().keys()
    # A service's values are all overridden, psycopg has a timeout of its own, GSSAPI is off.
    assert unset <= {"service", "servicefile", "connect_timeout", "gsslib"}


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "application_name"])
def test_empty_value_is_none_and_not_a_file_of_the_home_directory(name: str) -> None:
    """To libpq an empty file name is the one in `~/.postgresql`."""
    without = PostgreSQLOptions.load({**BASE, "password": "x"})
    as_option = PostgreSQLOptions.load({**BASE, "password": "x", name: ""})
    in_dsn = PostgreSQLOptions.load({**BASE, "password": "x", "dsn": f"{name}=''"})
    assert as_option.conninfo() == in_dsn.conninfo() == without.conninfo()
    assert list(as_option.paths()) == list(in_dsn.paths()) == []


async def test_password_of_the_host_is_not_used_for_a_source(
    admin: Admin, pg_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:*:{PASSWORD}\n")
    passfile.chmod(0o600)
    (Path.home() / ".pgpass").write_text(f"*:*:*:*:{PASSWORD}\n")
    (Path.home() / ".pgpass").chmod(0o600)
    with monkeypatch.context() as host:
        host.setenv("PGPASSWORD", PASSWORD)
        host.setenv("PGPASSFILE", str(passfile))
        with pytest.raises(DataSourceError, match="no password supplied"):
            await configured(pg_database, password=None).connect()


async def test_secret_is_in_no_log_and_no_error(
    admin: Admin, pg_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    for options in (
        {"password": "wrong-secret-word"},
        {"host": None, "port": 1, "dsn": "host=127.0.0.1 password=other-secret-word"},
        {"user": "secret-word", "password": "secret-word"},
    ):
        with pytest.raises(DataSourceError) as caught:
            await configured(pg_database, **options).connect()
        texts.append(str(caught.value) + str(caught.value.__cause__))
    assert not any("secret-word" in text for text in [*texts, caplog.text])


def test_certificate_authority_is_needed_to_verify_one() -> None:
    with pytest.raises(OptionError, match="'sslrootcert' is missing"):
        PostgreSQLOptions.load({**BASE, "sslmode": "verify-ca"})
    assert PostgreSQLOptions.load({**BASE, "sslmode": "verify-full"}).conninfo()["sslrootcert"] == (
        "system"
    )


LOGIN = {"database": "d", "user": "u", "password": "p"}


@pytest.mark.parametrize(
    ("options", "ambient"),
    [
        (PostgreSQLOptions.load({"host": "h", **LOGIN}), False),
        (PostgreSQLOptions.load({"host": "/run/postgresql", **LOGIN}), True),
        (PostgreSQLOptions.load({"host": "h,@abstract", **LOGIN}), True),
        (PostgreSQLOptions.load({"dsn": "host=/tmp user=u dbname=d"}), True),
        (PostgreSQLOptions.load({"dsn": "host=h user=u dbname=d gssencmode=prefer"}), True),
        (PostgreSQLOptions.load({"dsn": "host=h user=u dbname=d gssencmode=disable"}), False),
    ],
)
def test_identities_of_the_machine_are_named(options: PostgreSQLOptions, ambient: bool) -> None:
    assert options.ambient() is ambient


def test_tilde_in_a_path_of_a_certificate_is_the_home_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for values in (
        {**BASE, "sslrootcert": "~/ca.pem", "sslkey": "keys/~me"},
        {**BASE, "dsn": "sslrootcert=~/ca.pem sslkey=keys/~me"},
    ):
        options = PostgreSQLOptions.load(values)
        assert options.conninfo()["sslrootcert"] == "/home/me/ca.pem"
        assert list(options.paths()) == ["/home/me/ca.pem", "keys/~me"]
