"""A test of a source tells what its role may do besides reading, and nothing of a right-sized role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datasources import DataSourceRegistry
from tests.postgresql.conftest import Admin, Source, configured
from tests.servers import Database

HARMLESS_NAMES = ("create temporary tables", "have effects in spite of READ ONLY")
"""Rights that every role has unless they are taken from PUBLIC."""


async def rights(source: Source, **options: object) -> list[str]:
    return await (await source(**options)).excess_rights()


def narrowed(sentences: list[str]) -> list[str]:
    """Return the sentences without those about rights of PUBLIC."""
    return [s for s in sentences if not any(name in s for name in HARMLESS_NAMES)]


async def test_role_that_can_only_read_has_none_but_those_of_everybody(
    admin: Admin, source: Source
) -> None:
    admin.execute("CREATE TABLE t (id int)")
    sentences = await rights(source)
    assert narrowed(sentences) == []
    assert any("'reader' may call pg_advisory_lock, pg_cancel_backend" in s for s in sentences)


async def test_right_that_is_taken_from_everybody_is_told_no_more(
    admin: Admin, pg_database: Database, source: Source
) -> None:
    admin.execute(f"REVOKE TEMPORARY ON DATABASE {pg_database.name} FROM PUBLIC")
    admin.execute("REVOKE EXECUTE ON FUNCTION pg_terminate_backend(int, bigint) FROM PUBLIC")
    sentences = await rights(source)
    assert not any("temporary" in s or "pg_terminate_backend" in s for s in sentences)


@pytest.mark.parametrize(
    ("grant", "sentence"),
    [
        ("GRANT INSERT ON t TO reader", "may write to 'public.t'"),
        ("GRANT UPDATE (id) ON t TO reader", "may write to 'public.t'"),
        ("GRANT TRUNCATE ON t, u TO reader", "may write to 2 tables, such as 'public.t'"),
        ("GRANT DELETE ON ALL TABLES IN SCHEMA public TO PUBLIC", "may write to 3 tables"),
        ("ALTER TABLE t OWNER TO reader", "may write to 'public.t'"),
        ("GRANT USAGE ON SEQUENCE n TO reader", "may change 'public.n'"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "may create objects in 'public'"),
        (
            "GRANT EXECUTE ON FUNCTION as_owner() TO reader",
            "may act with the rights of others by calling 'public.as_owner'",
        ),
        ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reader", "pg_read_file, "),
    ],
)
async def test_right_that_no_reader_needs_is_told(
    admin: Admin, source: Source, grant: str, sentence: str
) -> None:
    admin.execute(
        "CREATE TABLE t (id int); CREATE TABLE u (id int); CREATE VIEW v AS TABLE t;"
        "CREATE SEQUENCE n;"
        "CREATE FUNCTION as_owner() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';"
        "REVOKE EXECUTE ON FUNCTION as_owner() FROM PUBLIC"
    )
    assert not any(sentence in s for s in await rights(source))
    admin.execute(grant)
    assert any(sentence in s for s in await rights(source))


async def test_right_on_the_database_is_told(
    admin: Admin, pg_database: Database, source: Source
) -> None:
    admin.execute(f"GRANT CREATE ON DATABASE {pg_database.name} TO reader")
    expected = f"the role 'reader' may create schemas in {pg_database.name!r}"
    assert expected in await rights(source)


@pytest.fixture
def member(admin: Admin) -> Iterator[str]:
    """A role with memberships and attributes, and its name."""
    admin.execute("CREATE ROLE writers CREATEDB; CREATE ROLE member LOGIN CREATEROLE PASSWORD 'x'")
    admin.execute("GRANT writers, pg_write_all_data, pg_monitor TO member")
    yield "member"
    admin.execute("DROP OWNED BY member, writers; DROP ROLE member, writers")


async def test_attributes_and_memberships_are_told(
    admin: Admin, source: Source, member: str
) -> None:
    admin.execute("CREATE TABLE t (id int)")
    assert narrowed(await rights(source, user=member, password="x")) == [
        "the role 'member' has CREATEROLE",
        "the role 'member' may act as 'pg_write_all_data'",
        "the role 'member' may act as 'writers', which has CREATEDB",
        "the role 'member' may write to 'public.t'",
    ]


async def test_superuser_is_told_in_one_sentence(pg_database: Database, source: Source) -> None:
    login = {"user": pg_database.user, "password": pg_database.password}
    assert await rights(source, **login, allow_privileged_role=True) == [
        f"the role {pg_database.user!r} is a superuser, which may do everything"
    ]


async def test_check_of_a_source_has_the_sentences(admin: Admin, pg_database: Database) -> None:
    admin.execute("CREATE TABLE t (id int); GRANT INSERT ON t TO reader")
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(configured(pg_database).config)
        check = await registry.check_connection("pg")
    assert check.ok
    assert "the role 'reader' may write to 'public.t'" in check.warnings


async def test_rights_that_cannot_be_read_do_not_fail_the_check(
    admin: Admin, pg_database: Database
) -> None:
    admin.execute("REVOKE EXECUTE ON FUNCTION pg_has_role(oid, text) FROM PUBLIC")
    connector = configured(pg_database, allow_privileged_role=True)
    async with DataSourceRegistry() as registry:
        await registry.register_data_source(connector.config)
        check = await registry.check_connection("pg")
    assert check.ok
    assert "rights of the account could not be read: permission denied" in check.warnings[0]
