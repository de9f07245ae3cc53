"""Previews of Parquet: types that Python has not, damaged files, and what is read."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pytest

from datasources import DataFetchError, PermissionDeniedError, preview_file, preview_parquet

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

NS = 1_700_000_000_123_456_789


def stored(table: Any, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    file.seek(0)
    return file


def column(values: Any) -> list[Any]:
    return [row[0] for row in preview_file(stored(pa.table({"x": values})), "a.parquet").rows]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([NS], pa.timestamp("ns")), ["2023-11-14 22:13:20.123456789"]),
        (
            pa.array([NS // 1000 * 1000, None], pa.timestamp("ns")),
            [dt.datetime(2023, 11, 14, 22, 13, 20, 123456), None],  # noqa: DTZ001  (as stored)
        ),
        (pa.array([NS], pa.timestamp("ns", "UTC")), ["2023-11-14 22:13:20.123456789Z"]),
        (pa.array([1, None], pa.time64("ns")), ["00:00:00.000000001", None]),
        (pa.array([1000], pa.duration("ns")), [dt.timedelta(microseconds=1)]),
        (pa.array([2_932_897], pa.date32()), ["10000-01-01"]),
        (pa.array([2**60], pa.timestamp("us")), [f"<value out of range: {2**60}>"]),
        (pa.array([[NS]], pa.list_(pa.timestamp("ns"))), [["2023-11-14 22:13:20.123456789"]]),
        (
            pa.array([{"t": NS, "n": 1}], pa.struct([("t", pa.timestamp("ns")), ("n", pa.int8())])),
            [{"t": "2023-11-14 22:13:20.123456789", "n": 1}],
        ),
    ],
)
def test_values_that_python_has_no_type_for_are_text(values: Any, expected: list[Any]) -> None:
    assert column(values) == expected


def test_text_that_is_not_utf_8_is_shown_with_replacements() -> None:
    raw = pa.array([b"M\xfcller", b"ok", None])
    broken = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    assert column(broken) == ["M\ufffdller", "ok", None]


def test_parquet_is_recognized_by_its_first_bytes() -> None:
    preview = preview_file(stored(pa.table({"x": [1, 2]})), "data", 1)
    assert (preview.columns, list(preview.rows), preview.truncated) == (("x",), [(1,)], True)


@pytest.mark.parametrize("name", ["a.parquet", "a.pq", "a.PARQ"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"x,y\n" * 1000])
def test_file_that_is_no_parquet_is_a_clear_error(name: str, content: bytes) -> None:
    with pytest.raises(DataFetchError, match=f"'{name}' cannot be read as Parquet"):
        preview_file(io.BytesIO(content), name)


def test_every_damaged_byte_gives_rows_or_a_clear_error() -> None:
    content = stored(pa.table({"x": ["a", "b"] * 20, "n": list(range(40))})).getvalue()
    failures = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        try:
            preview_parquet(io.BytesIO(damaged), "a.parquet", 5)
        except DataFetchError as exc:
            assert "'a.parquet' cannot be read as Parquet" in str(exc)  # noqa: PT017
            failures += 1
    assert failures > 10


def test_encrypted_file_is_a_clear_error() -> None:
    with pytest.raises(DataFetchError, match="cannot be read as Parquet"):
        preview_file(io.BytesIO(b"PARE" + bytes(100) + b"\x10\0\0\0PARE"), "a")


def test_errors_of_reading_the_file_stay_as_they_are() -> None:
    class Refusing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise PermissionDeniedError("may not be read")

    with pytest.raises(PermissionDeniedError):
        preview_parquet(Refusing(bytes(100)), "a.parquet")


def test_rows_come_from_the_first_row_groups_that_have_some() -> None:
    file = stored(pa.table({"x": list(range(10))}), row_group_size=2)
    preview = preview_file(file, "a.parquet", 5)
    assert [row[0] for row in preview.rows] == [0, 1, 2, 3, 4]
    assert preview.truncated


@pytest.mark.parametrize(("columns", "most"), [(3, 1), (1000, 2)])
def test_ranges_to_read_are_told_together(columns: int, most: int) -> None:
    told: list[Any] = []
    file = stored(pa.table({f"c{n}": range(25) for n in range(columns)}))
    preview_parquet(file, "a.parquet", prefetch=told.extend)
    assert 1 <= len(told) <= most
    assert all(start < stop for start, stop in told)
