"""Write the sheets of a workbook as lines of JSON, and read such lines without trusting them.

The first line is an object with all but the rows and with their number, or with the text of an
error. Each other line is a row. A date or time is an object with one member.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from datasources.preview.sheets import Row, Sheets

_MAX_ROWS = 1_048_576  # of a sheet, in each format of workbooks
_MAX_INTEGER = 2**63
_CELLS = frozenset({str, int, float, bool, type(None), date, datetime, time, timedelta})
_MOMENTS: dict[str, Callable[[str], date | time]] = {
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "time": time.fromisoformat,
}
_UNIT = timedelta(microseconds=1)


def to_lines(answer: Sheets | str) -> Iterator[bytes]:
    """Yield the lines of sheets, or of the text of an error."""
    if isinstance(answer, str):
        yield _line({"error": answer})
        return
    yield _line(vars(answer) | {"rows": len(answer.rows)})
    for row in answer.rows:
        yield _line(row)


def from_lines(lines: Iterator[bytes], max_rows: int | None = None) -> Sheets | str:
    """Return the sheets or the text of an error that `to_lines` has written.

    Raises:
        ValueError: They are damaged or incomplete.
    """
    try:
        head = dict(_parse(next(lines, b"")))
        if "error" in head:
            return str(head["error"])
        number = min(head.pop("rows"), _MAX_ROWS if max_rows is None else max_rows)
        for name in ("names", "hidden", "columns"):
            if type(head[name]) is not list or any(type(text) is not str for text in head[name]):
                raise ValueError(f"{name} are not texts")
        sheets = Sheets(**head)
        sheets.rows = [_parse_row(next(lines, b"")) for _ in range(number)]
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as exc:
        raise ValueError("the answer of its reader is damaged") from exc
    return sheets


def _parse_row(line: bytes) -> Row:
    row = _parse(line)
    if type(row) is not list or not _CELLS.issuperset(map(type, row)):
        raise ValueError("not a row")
    return row


def _parse(line: bytes) -> Any:
    if b"\\u" in line:  # an escape may stand for half of a character, which no file can hold
        line = json.dumps(json.loads(line.decode()), ensure_ascii=False).encode()
    return json.loads(line.decode(), object_hook=_value, parse_int=_integer)


def _integer(digits: str) -> int:
    value = int(digits)
    if not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise ValueError("a number is too large")
    return value


def _value(members: dict[str, Any]) -> Any:
    """Return the date or time that an object stands for; the object of the first line as it is."""
    if len(members) != 1 or "error" in members:
        return members
    ((kind, value),) = members.items()
    if kind == "timedelta":
        return value * _UNIT
    moment = _MOMENTS[kind](value)
    if getattr(moment, "tzinfo", None) is not None:
        raise ValueError("cells have no time zone")
    return moment


def _line(value: Any) -> bytes:
    return _encode(value).encode() + b"\n"


def _tagged(value: Any) -> dict[str, Any]:
    if isinstance(value, timedelta):
        return {"timedelta": value // _UNIT}
    return {type(value).__name__: value.isoformat()}


_encode = json.JSONEncoder(ensure_ascii=False, default=_tagged).encode
