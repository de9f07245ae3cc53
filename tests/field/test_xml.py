"""Queries with XML, which needs a server that is built with libxml."""

from __future__ import annotations

import pytest

from tests.postgresql.conftest import configured
from tests.postgresql.guard import hostile, test_hostile as newer
from tests.servers import PostgresServer

LEGITIMATE = [
    "SELECT xmlelement(name sale, xmlattributes(1 AS id), 'x'), xmlforest(1 AS a, now() AS b)",
    "SELECT xmlagg(xmlelement(name r, relname) ORDER BY relname) FROM pg_class WHERE relkind = 'r'",
    "SELECT * FROM XMLTABLE('/a/b' PASSING XMLPARSE(DOCUMENT '<a><b>1</b></a>') COLUMNS v int PATH '.', n FOR ORDINALITY)",
    "SELECT xpath('/a/text()', XMLPARSE(CONTENT '<a>1</a>')), xml '<a/>' IS DOCUMENT, xmlexists('//a' PASSING xml '<a/>')",
    "SELECT XMLSERIALIZE(CONTENT xmlconcat(xml '<a/>', xml '<b/>') AS text), xmlcomment('x'), xmlpi(name p), xml_is_well_formed('<a/>')",
]  # fmt: skip


async def test_hostile_xml_is_refused_and_would_be_harmful(pg_roles: PostgresServer) -> None:
    for planted in newer.plant(pg_roles, "hostile_xml"):
        await newer.check(planted, "reader", "server")
        assert [s for s in hostile.XML if not planted.is_harmful(s)] == []


@pytest.mark.parametrize("statement", LEGITIMATE)
async def test_legitimate_xml_is_admitted(pg_roles: PostgresServer, statement: str) -> None:
    connector = configured(pg_roles.at(pg_roles.database))
    await connector.connect()
    assert (await connector.preview(statement)).rows
    await connector.disconnect()
