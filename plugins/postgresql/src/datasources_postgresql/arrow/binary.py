"""Rows of a binary COPY as Arrow arrays, a column of a block at a time.  Needs numpy and pyarrow.

What the values look like: `…_send` in https://github.com/postgres/postgres/tree/master/src/backend/utils/adt.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasources import DataFetchError
from datasources_postgresql.copying import Rows

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)  # before the first row
_TRAILER = 2  # bytes; a row with a column has more

_EPOCH = 10_957  # days from 1970 to 2000, which the server counts from
_FIRST, _LAST = -730_119, 2_921_939  # days from 2000 to 0001-01-01 and to 9999-12-31
_DAY = 86_400_000_000  # microseconds
_CYCLE = 146_097  # days of 400 years
_INFINITE = {-(1 << 31), (1 << 31) - 1, -(1 << 63), (1 << 63) - 1}

_NEGATIVE = 0x4000  # the sign of a numeric; those above are no numbers
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
MOST_DIGITS = 18
"""Of a numeric that `decimals` takes."""
_POWERS = 10 ** np.arange(19, dtype=np.int64)
_LAST_GROUPS = np.array([0, (1 << 16) - 1, (1 << 32) - 1, (1 << 48) - 1, -1], np.int64)
"""Masks of that many of four groups."""

_HAS_JEMALLOC = "jemalloc" in pa.supported_memory_backends()
MEMORY = pa.jemalloc_memory_pool() if _HAS_JEMALLOC else pa.default_memory_pool()
"""What each row group leaves behind breaks up the memory of others, so that it grows."""

Decode = Callable[["Cells"], Any]


class Cells:
    """One column of a block: where its values are.

    Args:
        data: The block.
        starts: Where each value begins.
        lengths: How many bytes each has; 0 for a NULL.
        nulls: Which are NULL; None if none is.
    """

    def __init__(self, data: Any, starts: Any, lengths: Any, nulls: Any = None) -> None:
        self.data, self.starts, self.lengths, self.nulls = data, starts, lengths, nulls

    def __len__(self) -> int:
        return len(self.starts)

    def numbers(self, kind: str, at: Any = None) -> Any:
        """Return the big-endian numbers that stand `at` in each value, first if None; 0 for a NULL.

        What stands outside of the block may be any number.
        """
        every = _every(self.data, kind)
        places = self.starts if at is None else self.starts + at
        if at is not None or self.nulls is not None:
            places = np.clip(places, 0, len(every) - 1)
        found = every[places].astype(every.dtype.newbyteorder("="))
        if self.nulls is not None:
            found[self.nulls] = 0
        return found

    def array(self, type_: Any, *buffers: Any) -> Any:
        """Return an Arrow array of these buffers, in which the NULLs are null."""
        if self.nulls is None:
            return pa.Array.from_buffers(type_, len(self), [None, *buffers], 0)
        valid = pa.py_buffer(np.packbits(~self.nulls, bitorder="little"))
        return pa.Array.from_buffers(type_, len(self), [valid, *buffers])


class _Strided(Cells):
    """The same of rows that are all alike, where nothing needs looking up."""

    def __init__(self, data: Any, first: int, stride: int, rows: int) -> None:
        super().__init__(data, range(rows), None)
        self._first, self._stride = first, stride

    def numbers(self, kind: str, at: Any = None) -> Any:
        shape, type_ = (len(self),), np.dtype(kind)
        every = np.ndarray(shape, type_, self.data, self._first + (at or 0), (self._stride,))
        return every.astype(type_.newbyteorder("="))


def cells(rows: Rows, widths: Sequence[int | None]) -> list[Cells]:
    """Return the columns of a block; none where it has no rows.

    Args:
        rows: The block; the trailer may be its last row.
        widths: How many bytes the values of each column have; None where that differs.
    """
    lengths = rows.lengths[:-1] if rows.lengths[-1] == _TRAILER else rows.lengths
    begin = len(_HEADER) if bytes(rows.data[: len(_HEADER)]) == _HEADER else 0
    if not lengths or begin == lengths[0] - _TRAILER:
        return []
    return _alike(rows.data, begin, len(lengths), widths) or _walked(
        rows.data, begin, lengths, len(widths)
    )


def _alike(data: Any, begin: int, rows: int, widths: Sequence[int | None]) -> list[Cells] | None:
    """Return the columns of rows of fixed width without any NULL; None for other rows."""
    if None in widths:
        return None
    sizes = [width for width in widths if width is not None]
    stride = 2 + sum(sizes) + 4 * len(sizes)
    if len(data) - begin - rows * stride not in {0, _TRAILER}:
        return None
    found: list[Cells] = []
    place = begin + 2
    for width in sizes:
        if (_Strided(data, place, stride, rows).numbers(">i4") != width).any():
            return None
        found.append(_Strided(data, place + 4, stride, rows))
        place += 4 + width
    return found


def _walked(data: Any, begin: int, lengths: Sequence[int], columns: int) -> list[Cells]:
    """Go through rows from column to column, all rows at once."""
    ends = np.cumsum(np.array(lengths, np.int32), dtype=np.int32)
    places = np.concatenate([np.array([begin], np.int32), ends[:-1]]) + np.int32(2)
    every = _every(data, ">i4")
    found = []
    for _ in range(columns):
        sizes = every[places].astype(np.int32)
        nulls = sizes < 0 if sizes.min() < 0 else None
        if nulls is not None:
            sizes[nulls] = 0
        starts = places + np.int32(4)
        found.append(Cells(data, starts, sizes, nulls))
        places = starts + sizes
    if not np.array_equal(places, ends):
        raise DataFetchError("the server's rows are not as long as their columns")
    return found


def _every(data: Any, kind: str) -> Any:
    """Return the numbers that begin at each byte."""
    type_ = np.dtype(kind)
    if len(data) < type_.itemsize:
        data = bytes(data) + bytes(type_.itemsize)
    return np.ndarray((len(data) - type_.itemsize + 1,), type_, data, strides=(1,))


def plain(type_: Any, kind: str) -> Decode:
    """Decode what Arrow keeps as it is, but for the order of bytes."""
    return lambda column: column.array(type_, pa.py_buffer(column.numbers(kind)))


def booleans(column: Cells) -> Any:
    bits = np.packbits(column.numbers("u1"), bitorder="little")
    return column.array(pa.bool_(), pa.py_buffer(bits))


def dates(column: Cells) -> Any:
    days = _within(column.numbers(">i4"), _FIRST, _LAST, _date)
    return column.array(pa.date32(), pa.py_buffer(days + np.int32(_EPOCH)))


def times(column: Cells) -> Any:
    values = _within(column.numbers(">i8"), 0, _DAY - 1, lambda _: "24:00:00")
    return column.array(pa.time64("us"), pa.py_buffer(values))


def timestamps(type_: Any) -> Decode:
    def decode(column: Cells) -> Any:
        first, last = _FIRST * _DAY, (_LAST + 1) * _DAY - 1
        values = _within(column.numbers(">i8"), first, last, _timestamp)
        return column.array(type_, pa.py_buffer(values + _EPOCH * _DAY))

    return decode


def blobs(column: Cells) -> Any:
    """Decode bytes, whatever they are."""
    count = len(column)
    bounds = np.empty((count, 2), np.int32)
    bounds[:, 0] = column.starts
    np.add(column.starts, column.lengths, out=bounds[:, 1])
    # Every other element is a value, and the rest is what stands between them.
    offsets, data = pa.py_buffer(bounds), pa.py_buffer(column.data)
    both = pa.Array.from_buffers(pa.binary(), 2 * count - 1, [None, offsets, data], 0)
    even = pa.py_buffer(np.arange(0, 2 * count, 2, dtype=np.int32))
    wanted = pa.Array.from_buffers(pa.int32(), count, [None, even], 0)
    values = pc.take(both, wanted, boundscheck=False, memory_pool=MEMORY)
    return column.array(pa.binary(), *values.buffers()[1:])


def texts(column: Cells) -> Any:
    """Decode UTF-8, which is checked."""
    return blobs(column).cast(pa.string())


def decimals(type_: Any) -> Decode:
    """Decode numerics of up to 18 digits: groups of four, the most significant first."""
    scale = type_.scale
    heaviest = max(0, (type_.precision - scale - 1) // 4)
    rest = _POWERS[-scale % 4]  # what the last group has too much

    def decode(column: Cells) -> Any:
        # How many groups, the weight of the first, the sign, and digits after the point.
        head = column.numbers(">i8")
        groups, weights, signs = head >> 48, head << 16 >> 48, head >> 16 & 0xFFFF
        _within(signs, 0, _NEGATIVE, lambda sign: _SPECIAL.get(sign, ""))
        _within(head & 0xFFFF, 0, scale, lambda _: "")
        _within(weights, -len(_POWERS), heaviest, lambda _: "")
        # From the end, where what is read before the first group can be told by their number.
        high, last = _groups(column.numbers(">i8", column.lengths - 8), groups)
        if groups.max() > 4:
            more = _groups(column.numbers(">i8", column.lengths - 16), groups - 4)
            high += (more[0] * 10_000 + more[1]) * 10**12
        power = 4 * (weights - groups + 1) + scale
        low = np.where(power < 0, last // rest, last * _POWERS[np.clip(power, 0, 18)])
        total = high * _POWERS[np.clip(power + 4, 0, 18)] + low
        _within(total, 0, int(_POWERS[type_.precision]) - 1, lambda _: "")
        halves = np.empty((len(column), 2), np.int64)
        halves[:, 0] = np.where(signs == _NEGATIVE, -total, total)
        halves[:, 1] = halves[:, 0] >> 63
        return column.array(type_, pa.py_buffer(halves))

    return decode


def _groups(words: Any, count: Any) -> tuple[Any, Any]:
    """Return the number of the first three groups of words of four, and the last group."""
    words &= _LAST_GROUPS[np.clip(count, 0, 4)]
    high = ((words >> 48) * 10_000 + (words >> 32 & 0xFFFF)) * 10_000 + (words >> 16 & 0xFFFF)
    return high, words & 0xFFFF


def _within(values: Any, low: int, high: int, text: Callable[[int], str]) -> Any:
    """Return values, all of which must be in a range; NULLs are 0 here."""
    if values.min() < low or values.max() > high:
        wrong = values[((values < low) | (values > high)).argmax()]
        raise ValueError(f"value '{text(int(wrong))}'")
    return values


def _date(days: int) -> str:
    """Return a date as the server writes it, also one that Python lacks."""
    return _infinity(days) or "".join(_calendar(days))


def _timestamp(value: int) -> str:
    days, rest = divmod(value, _DAY)
    day, era = _calendar(days)
    seconds, rest = divmod(rest, 1_000_000)
    time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    fraction = f".{rest:06}".rstrip("0").rstrip(".")
    return _infinity(value) or f"{day} {time}{fraction}{era}"


def _infinity(value: int) -> str:
    return ("infinity" if value > 0 else "-infinity") if value in _INFINITE else ""


def _calendar(days: int) -> tuple[str, str]:
    cycles, day = divmod(days - _FIRST, _CYCLE)
    date = dt.date.fromordinal(day + 1)
    year = date.year + 400 * cycles
    return f"{year if year > 0 else 1 - year:04}-{date:%m-%d}", "" if year > 0 else " BC"
