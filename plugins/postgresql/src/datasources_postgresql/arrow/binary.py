"""Decode a block of binary COPY rows to Arrow arrays, one column at a time, with numpy.

A block is the bytes of complete rows. Of each row: the number of columns as int16, then for each
column the size of its value as int32, -1 for NULL, and the value
(https://www.postgresql.org/docs/current/sql-copy.html). The format of a value is that of the
`…_send` function of its type in
https://github.com/postgres/postgres/tree/master/src/backend/utils/adt; that of an array, in
`array_send`, is a header, then the size and the value of each element, as in a row.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasources import DataFetchError
from datasources_postgresql.copying import Rows

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)  # signature, flags, length of the extension
_TRAILER = 2  # bytes of the last message; a row with a column has more

# Of an array: dimensions, 1 if an element may be NULL, type; of its dimension: elements, first index.
_ARRAY = struct.Struct(">iiIii")
_LEAPS = 6  # over 1, 2, 4, 8, 16 and 32 elements

_EPOCH_DAYS = 10_957  # days from 1970 to 2000, which the server counts from
_FIRST_DAY, _LAST_DAY = -730_119, 2_921_939  # days from 2000 to 0001-01-01 and to 9999-12-31
_DAY_MICROSECONDS = 86_400_000_000
_CYCLE_DAYS = 146_097  # 400 years, after which the calendar repeats
# The values of date and timestamp that stand for -infinity and infinity.
_INFINITE = {-(1 << 31), (1 << 31) - 1, -(1 << 63), (1 << 63) - 1}

_NEGATIVE = 0x4000  # sign of a numeric; a greater one is a key of _SPECIAL
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
MAX_DIGITS = 18
"""Precision of the numerics that `decimals` decodes: their digits fit in an int64."""
_POWERS = 10 ** np.arange(19, dtype=np.int64)
_LAST_GROUPS = np.array([0, (1 << 16) - 1, (1 << 32) - 1, (1 << 48) - 1, -1], np.int64)
"""Masks of the last 0 to 4 groups of an int64 that holds four groups of 16 bits."""

_HAS_JEMALLOC = "jemalloc" in pa.supported_memory_backends()
MEMORY = pa.jemalloc_memory_pool() if _HAS_JEMALLOC else pa.default_memory_pool()
"""Decoded row groups fragment the default allocator, so memory grows; jemalloc keeps it flat."""

Decode = Callable[["Cells"], Any]


class Cells:
    """The values of one column of a block.

    Args:
        data: The bytes of the block.
        starts: Offset of each value in the block.
        lengths: Bytes of each value; 0 for a NULL.
        nulls: True for each value that is NULL; None if no value is.
    """

    def __init__(self, data: Any, starts: Any, lengths: Any, nulls: Any = None) -> None:
        self.data, self.starts, self.lengths, self.nulls = data, starts, lengths, nulls

    def __len__(self) -> int:
        return len(self.starts)

    def numbers(self, wire_type: str, at: Any = None) -> Any:
        """Return one big-endian number of each value, as an array in native byte order.

        Args:
            wire_type: numpy type of the number.
            at: Offset of the number in each value; 0 if None.

        The number is 0 for a NULL, and undefined where its offset is outside of the block.
        """
        view = _view_at_each_byte(self.data, wire_type)
        positions = self.starts if at is None else self.starts + at
        if at is not None or self.nulls is not None:
            positions = np.clip(positions, 0, len(view) - 1)
        numbers = view[positions].astype(view.dtype.newbyteorder("="))
        if self.nulls is not None:
            numbers[self.nulls] = 0
        return numbers

    def array(self, type_: Any, *buffers: Any) -> Any:
        """Return an Arrow array of these buffers, with the NULLs of the column."""
        if self.nulls is None:
            return pa.Array.from_buffers(type_, len(self), [None, *buffers], 0)
        valid = pa.py_buffer(np.packbits(~self.nulls, bitorder="little"))
        return pa.Array.from_buffers(type_, len(self), [valid, *buffers])


class _StridedCells(Cells):
    """The values of one column without NULLs in rows of one fixed width."""

    def __init__(self, data: Any, first: int, stride: int, rows: int) -> None:
        super().__init__(data, range(rows), None)
        self._first, self._stride = first, stride

    def numbers(self, wire_type: str, at: Any = None) -> Any:
        shape, type_ = (len(self),), np.dtype(wire_type)
        view = np.ndarray(shape, type_, self.data, self._first + (at or 0), (self._stride,))
        return view.astype(type_.newbyteorder("="))


def cells(rows: Rows, widths: Sequence[int | None]) -> list[Cells]:
    """Return the columns of a block; an empty list if the block has no rows or no columns.

    Args:
        rows: The block; its last message may be the trailer.
        widths: Bytes of each value of each column; None where they differ.
    """
    lengths = rows.lengths[:-1] if rows.lengths[-1] == _TRAILER else rows.lengths
    first_byte = len(_HEADER) if bytes(rows.data[: len(_HEADER)]) == _HEADER else 0
    if not lengths or first_byte == lengths[0] - _TRAILER:
        return []
    return _fixed_width_cells(rows.data, first_byte, len(lengths), widths) or _variable_width_cells(
        rows.data, first_byte, lengths, len(widths)
    )


def _fixed_width_cells(
    data: Any, first_byte: int, rows: int, widths: Sequence[int | None]
) -> list[Cells] | None:
    """Return the columns if all rows have one width and no NULL, otherwise None."""
    if None in widths:
        return None
    sizes = [width for width in widths if width is not None]
    stride = 2 + sum(sizes) + 4 * len(sizes)
    if len(data) - first_byte - rows * stride not in {0, _TRAILER}:
        return None
    columns: list[Cells] = []
    position = first_byte + 2
    for width in sizes:
        if (_StridedCells(data, position, stride, rows).numbers(">i4") != width).any():
            return None
        columns.append(_StridedCells(data, position + 4, stride, rows))
        position += 4 + width
    return columns


def _variable_width_cells(
    data: Any, first_byte: int, lengths: Sequence[int], column_count: int
) -> list[Cells]:
    """Return the columns of any rows: find the values of each column after those of the one before."""
    ends = np.cumsum(np.array(lengths, np.int32), dtype=np.int32)
    positions = np.concatenate([np.array([first_byte], np.int32), ends[:-1]]) + np.int32(2)
    size_fields = _view_at_each_byte(data, ">i4")
    columns = []
    for _ in range(column_count):
        sizes = size_fields[positions].astype(np.int32)
        nulls = sizes < 0 if sizes.min() < 0 else None
        if nulls is not None:
            sizes[nulls] = 0
        starts = positions + np.int32(4)
        columns.append(Cells(data, starts, sizes, nulls))
        positions = starts + sizes
    if not np.array_equal(positions, ends):
        raise DataFetchError("the server's rows are not as long as their columns")
    return columns


def elements(column: Cells, row: int, width: int) -> Cells:
    """Return the elements of one array of one dimension, whose values have `width` bytes each.

    Args:
        column: A column of arrays, none of which is NULL.
        row: The number of the array.
        width: Bytes of each element that is not NULL.

    Raises:
        DataFetchError: The array is another one.
    """
    start, length = int(column.starts[row]), int(column.lengths[row])
    _, may_have_nulls, _, count, _ = _ARRAY.unpack_from(column.data, start)
    first = start + _ARRAY.size
    if may_have_nulls:
        starts, sizes = _element_starts(column.data, first, start + length, width, count)
        cells = Cells(column.data, starts, np.maximum(sizes, 0), sizes < 0)
    else:
        sizes = _StridedCells(column.data, first, 4 + width, count).numbers(">i4")
        cells = _StridedCells(column.data, first + 4, 4 + width, count)
    if _ARRAY.size + 4 * count + width * np.count_nonzero(sizes == width) != length:
        raise DataFetchError("the server's arrays are not as long as their elements")
    return cells


def _element_starts(data: Any, first: int, end: int, width: int, count: int) -> tuple[Any, Any]:
    """Return the offset of each element's value, and its size, -1 for NULL.

    Where an element begins depends on all before it. So for each offset at which one might begin,
    that of the next one is computed, of the second, the fourth and so on after it. A loop then finds
    each 64th element, from there each 32nd is looked up, and so on.
    """
    unit = math.gcd(4, width)
    sizes = np.ndarray(((end - first - 4) // unit + 1,), ">i4", data, first, (unit,))
    following = np.arange(len(sizes), dtype=np.int32)
    following += np.where(sizes == width, 4 + width, 4).astype(np.int32) // np.int32(unit)
    np.minimum(following, len(sizes) - 1, out=following)
    leaps = []
    for _ in range(_LEAPS):
        leaps.append(following)
        following = following[following]
    starts = [0]
    while len(starts) << _LEAPS < count:
        starts.append(following.item(starts[-1]))
    offsets = np.array(starts, np.int32)
    for leap in reversed(leaps):
        offsets = np.stack([offsets, leap[offsets]], axis=1).ravel()
    offsets = offsets[:count]
    return first + 4 + offsets * unit, sizes[offsets].astype(np.int32)


def _view_at_each_byte(data: Any, wire_type: str) -> Any:
    """Return an array of the numbers that begin at each byte, which overlap."""
    type_ = np.dtype(wire_type)
    if len(data) < type_.itemsize:
        data = bytes(data) + bytes(type_.itemsize)
    return np.ndarray((len(data) - type_.itemsize + 1,), type_, data, strides=(1,))


def plain(type_: Any, wire_type: str) -> Decode:
    """Return a decoder for values that differ from Arrow's in the byte order alone."""
    return lambda column: column.array(type_, pa.py_buffer(column.numbers(wire_type)))


def booleans(column: Cells) -> Any:
    bits = np.packbits(column.numbers("u1"), bitorder="little")
    return column.array(pa.bool_(), pa.py_buffer(bits))


def dates(column: Cells) -> Any:
    days = _check_range(column.numbers(">i4"), _FIRST_DAY, _LAST_DAY, _date_text)
    return column.array(pa.date32(), pa.py_buffer(days + np.int32(_EPOCH_DAYS)))


def times(column: Cells) -> Any:
    values = _check_range(column.numbers(">i8"), 0, _DAY_MICROSECONDS - 1, lambda _: "24:00:00")
    return column.array(pa.time64("us"), pa.py_buffer(values))


def timestamps(type_: Any) -> Decode:
    def decode(column: Cells) -> Any:
        first, last = _FIRST_DAY * _DAY_MICROSECONDS, (_LAST_DAY + 1) * _DAY_MICROSECONDS - 1
        values = _check_range(column.numbers(">i8"), first, last, _timestamp_text)
        return column.array(type_, pa.py_buffer(values + _EPOCH_DAYS * _DAY_MICROSECONDS))

    return decode


def blobs(column: Cells) -> Any:
    """Decode a column of bytea."""
    count = len(column)
    bounds = np.empty((count, 2), np.int32)
    bounds[:, 0] = column.starts
    np.add(column.starts, column.lengths, out=bounds[:, 1])
    # As an array of binary, every other element is a value; those between are skipped by `take`.
    offsets, data = pa.py_buffer(bounds), pa.py_buffer(column.data)
    both = pa.Array.from_buffers(pa.binary(), 2 * count - 1, [None, offsets, data], 0)
    even = pa.py_buffer(np.arange(0, 2 * count, 2, dtype=np.int32))
    indices = pa.Array.from_buffers(pa.int32(), count, [None, even], 0)
    values = pc.take(both, indices, boundscheck=False, memory_pool=MEMORY)
    return column.array(pa.binary(), *values.buffers()[1:])


def texts(column: Cells) -> Any:
    """Decode UTF-8 text; the cast checks the encoding."""
    return blobs(column).cast(pa.string())


def decimals(type_: Any) -> Decode:
    """Return a decoder for numerics of up to 18 digits: groups of four, most significant first."""
    scale = type_.scale
    heaviest = max(0, (type_.precision - scale - 1) // 4)
    excess = _POWERS[-scale % 4]  # of the digits that the last group has after the scale

    def decode(column: Cells) -> Any:
        # Number of groups, weight of the first group, sign, number of digits after the point.
        head = column.numbers(">i8")
        groups, weights, signs = head >> 48, head << 16 >> 48, head >> 16 & 0xFFFF
        _check_range(signs, 0, _NEGATIVE, lambda sign: _SPECIAL.get(sign, ""))
        _check_range(head & 0xFFFF, 0, scale, lambda _: "")
        _check_range(weights, -len(_POWERS), heaviest, lambda _: "")
        # Read backwards from the end; bytes before the first group are masked by their number.
        high, last = _split_words(column.numbers(">i8", column.lengths - 8), groups)
        if groups.max() > 4:
            more = _split_words(column.numbers(">i8", column.lengths - 16), groups - 4)
            high += (more[0] * 10_000 + more[1]) * 10**12
        power = 4 * (weights - groups + 1) + scale
        low = np.where(power < 0, last // excess, last * _POWERS[np.clip(power, 0, 18)])
        total = high * _POWERS[np.clip(power + 4, 0, 18)] + low
        _check_range(total, 0, int(_POWERS[type_.precision]) - 1, lambda _: "")
        halves = np.empty((len(column), 2), np.int64)
        halves[:, 0] = np.where(signs == _NEGATIVE, -total, total)
        halves[:, 1] = halves[:, 0] >> 63
        return column.array(type_, pa.py_buffer(halves))

    return decode


def _split_words(words: Any, count: Any) -> tuple[Any, Any]:
    """Split int64s of four groups: return the number that the first three make, and the last group."""
    words &= _LAST_GROUPS[np.clip(count, 0, 4)]
    high = ((words >> 48) * 10_000 + (words >> 32 & 0xFFFF)) * 10_000 + (words >> 16 & 0xFFFF)
    return high, words & 0xFFFF


def _check_range(values: Any, low: int, high: int, text: Callable[[int], str]) -> Any:
    """Return the values, in which NULLs are 0.

    Raises:
        ValueError: A value is out of the range; the error holds the text of the first one.
    """
    if values.min() < low or values.max() > high:
        wrong = values[((values < low) | (values > high)).argmax()]
        raise ValueError(f"value '{text(int(wrong))}'")
    return values


def _date_text(days: int) -> str:
    """Return a date as the server writes it, also one that `datetime.date` cannot hold."""
    return _infinity_text(days) or "".join(_date_and_era(days))


def _timestamp_text(value: int) -> str:
    days, rest = divmod(value, _DAY_MICROSECONDS)
    day, era = _date_and_era(days)
    seconds, rest = divmod(rest, 1_000_000)
    time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    fraction = f".{rest:06}".rstrip("0").rstrip(".")
    return _infinity_text(value) or f"{day} {time}{fraction}{era}"


def _infinity_text(value: int) -> str:
    return ("infinity" if value > 0 else "-infinity") if value in _INFINITE else ""


def _date_and_era(days: int) -> tuple[str, str]:
    cycles, day = divmod(days - _FIRST_DAY, _CYCLE_DAYS)
    date = dt.date.fromordinal(day + 1)
    year = date.year + 400 * cycles
    return f"{year if year > 0 else 1 - year:04}-{date:%m-%d}", "" if year > 0 else " BC"
