"""A preview shows the server's values: as Python's where Python has them, otherwise as text."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from tests.postgresql.conftest import Admin, Source

DEEP = "repeat('[', {0}) || repeat(']', {0})"

AS_TEXT = [
    ("'infinity'::interval", "infinity"),
    ("'-infinity'::interval", "-infinity"),
    ("'1 mon'::interval", "1 mon"),
    ("'6 mons 6 days'::interval", "6 mons 6 days"),
    ("'-1 year 2 days'::interval", "-1 years +2 days"),
    ("'1000000000 days'::interval", "1000000000 days"),
    ("'[0:1]={1,2}'::int[]", "[0:1]={1,2}"),
    ("'[2:3][0:1]={{1,2},{3,4}}'::text[]", "[2:3][0:1]={{1,2},{3,4}}"),
    ("'null'::jsonb", "null"),
    ("'null'::json", "null"),
    ("""'{"a": 1, "a": 2}'::json""", '{"a": 1, "a": 2}'),
    ("""'[{"a": {"b": 1, "b": 1}}]'::json""", '[{"a": {"b": 1, "b": 1}}]'),
    ("""'["\\ud800"]'::json""", '["\\ud800"]'),
    ("repeat('1', 5000)::json", "1" * 5000),
    ("('[' || repeat('1', 5000) || ']')::jsonb", "[" + "1" * 5000 + "]"),
    (f"({DEEP.format(1200)})::jsonb", "[" * 1200 + "]" * 1200),
    (f"({DEEP.format(5000)})::json", "[" * 5000 + "]" * 5000),
    ("'infinity'::date", "infinity"),
    ("'24:00:00'::time", "24:00:00"),
    ("'0044-03-15 BC'::timestamp", "0044-03-15 00:00:00 BC"),
]
AS_VALUES: list[tuple[str, Any]] = [
    ("'3 days 04:05:06.789'::interval", dt.timedelta(3, 14706, 789_000)),
    ("'-00:00:01'::interval", dt.timedelta(seconds=-1)),
    ("'{1 day,NULL,1 mon}'::interval[]", [dt.timedelta(1), None, "1 mon"]),
    ("'{{1,2},{3,4}}'::int[]", [[1, 2], [3, 4]]),
    ("'{}'::int[]", []),
    ("'12345678901234567890.123'::jsonb", Decimal("12345678901234567890.123")),
    ("'0.1'::jsonb", 0.1),
    ("'1.50'::json", 1.5),
    ("'1e400'::json", Decimal("1e400")),
    (
        """'{"a": [1.5, 0.12345678901234567890]}'::json""",
        {"a": [1.5, Decimal("0.12345678901234567890")]},
    ),
    ("'123456789012345678901234567890'::jsonb", 123456789012345678901234567890),
    ("""'[null, true, "x"]'::jsonb""", [None, True, "x"]),
    ("""'{"a": "[[[[", "b": "\\ud83d\\ude00"}'::json""", {"a": "[[[[", "b": "😀"}),
    ("""('["' || repeat('[', 500) || '"]')::json""", ["[" * 500]),
    ("'\"null\"'::jsonb", "null"),
    ("NULL::jsonb", None),
    ("ARRAY['null'::jsonb, NULL, '1e400'::jsonb]", ["null", None, 10**400]),
    (f"({DEEP.format(50)})::jsonb IS NOT NULL", True),
]


@pytest.mark.parametrize(("expression", "expected"), [*AS_TEXT, *AS_VALUES])
async def test_value_is_the_servers(
    admin: Admin, source: Source, expression: str, expected: Any
) -> None:
    ((value,),) = (await (await source()).preview(f"SELECT {expression}")).rows
    assert value == expected
    assert type(value) is type(expected)


async def test_every_other_value_of_a_row_stays_what_it_is(admin: Admin, source: Source) -> None:
    query = "SELECT 1, 'infinity'::interval, repeat('1', 5000)::json, '1.0'::numeric, NULL, '{1}'::int[]"
    (row,) = (await (await source()).preview(query)).rows
    assert row == (1, "infinity", "1" * 5000, Decimal("1.0"), None, [1])
