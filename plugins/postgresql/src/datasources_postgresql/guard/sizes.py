"""Estimate, from above, how many bytes a constant takes and what functions make of constants.

The rules are those of PostgreSQL's own functions, by name. A function that no rule names is taken to make
eight times the bytes of its arguments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from datasources_postgresql.guard.tree import Node

_UNKNOWN = 9.4  # decimal digits of the largest int4, which counts are
_NUMERIC_DIGITS = (
    131_072  # before the point: NUMERIC_MAX_PRECISION and dweight in utils/adt/numeric.c
)
_FLOAT_DIGITS = 309.0
FIXED = 64.0  # bytes of a value of a type of fixed length, with its node
_HEADER = 4  # bytes of length before a value of variable length
# Object ids of types in pg_type.dat.
_INT2, _INT4, _INT8, _OID, _TEXT, _INT4_ARRAY = 21, 23, 20, 26, 25, 1007
_FLOAT4, _FLOAT8, _NUMERIC = 700, 701, 1700
_INTEGERS = {_INT2: 5.0, _INT4: _UNKNOWN, _INT8: 19.0, _OID: 9.7}
_FIXED_TYPES = frozenset({
    16, 18, 19, _INT8, _INT2, _INT4, 24, _OID, 27, 28, 29, 600, 601, 603, 628, 650, _FLOAT4, _FLOAT8, 718,
    774, 790, 829, 869, 1082, 1083, 1114, 1184, 1186, 1266, 2202, 2203, 2204, 2205, 2206, 2278, 2950,
    3220, 3734, 3769, 4089, 4096, 4191, 5069,
})  # fmt: skip
"""Types of at most 64 bytes."""
_WIDTH = re.compile(rb"%(?:\d+\$)?-?(\d+)")  # in the text of `format`
_ADDING = re.compile(r"(?:int|float)[248]+(?:pl|mi)|numeric_(?:add|sub)")
_MULTIPLYING = re.compile(r"(?:int|float)[248]+mul|numeric_mul")
_DIVIDING = re.compile(r"int[248]+div")
_SAME_NUMBER = re.compile(
    r"int[248]|numeric|float[48]|oid|i8tooid|abs|round|trunc|ceil|ceiling|floor|sign|mod|sqrt|ln|log|log10"
    r"|(?:int[248]|float[48]|numeric_)(?:um|up|abs|uminus|uplus|mod|sqrt|ln)"
)
_LENGTHS = frozenset({
    "array_length", "array_lower", "array_ndims", "array_upper", "bit_length", "cardinality",
    "char_length", "character_length", "length", "octet_length", "position", "strpos",
})  # fmt: skip


class Value(NamedTuple):
    """Upper bounds of a constant."""

    bytes: float
    digits: float = _UNKNOWN
    """Decimal digits before the point of a number, or of the number that a text may spell; the
    logarithm of the number of elements for an array that gives dimensions."""

    @property
    def number(self) -> float:
        """The largest number of so many digits, up to 10 to the 12th."""
        return math.pow(10.0, min(self.digits, 12.0))


def largest(values: Sequence[Value]) -> Value | None:
    """Return bounds for a value that is one of several; None if there is none."""
    if not values:
        return None
    return Value(max(v.bytes for v in values), max(v.digits for v in values))


def together(values: Sequence[Value]) -> Value:
    """Return bounds for a value that holds several, such as a row."""
    return Value(sum(v.bytes for v in values), max((v.digits for v in values), default=0.0))


def _bytes_of(constant: Node) -> bytes:
    """Return the bytes of a constant, as the server's machine has them: little-endian."""
    value = constant["constvalue"]
    if not isinstance(value, str):
        return b""
    return bytes(int(number) & 0xFF for number in value.strip("[]").split())


def constant_of(node: Node) -> Value:
    """Return the bounds of a constant of a tree."""
    content, type_ = _bytes_of(node), node.number("consttype")
    if type_ in _INTEGERS:
        value = abs(int.from_bytes(content, "little", signed=True))
        return Value(FIXED, math.log10(value + 1))
    if type_ in _FIXED_TYPES:
        return Value(FIXED, _FLOAT_DIGITS)
    content = content[_HEADER:]
    if type_ == _NUMERIC:
        return Value(len(content) + 16.0, _digits_of_numeric(content))
    if type_ == _INT4_ARRAY and len(content) >= 12:
        start = 12 + 8 * int.from_bytes(content[:4], "little")
        sizes = (content[i : i + 4] for i in range(start, len(content), 4))
        digits = (math.log10(abs(int.from_bytes(n, "little", signed=True)) + 1) for n in sizes)
        return Value(float(len(content)), sum(digits))
    return Value(float(len(content)), float(len(content)))


def _digits_of_numeric(content: bytes) -> float:
    """Return the digits before or after the point, whichever are more.

    The format is that of NumericChoice in utils/adt/numeric.c.
    """
    if len(content) < 2:
        return 1.0
    header = int.from_bytes(content[:2], "little")
    if header & 0xC000 == 0x8000:  # short
        weight = (header & 0x3F) - (header & 0x40)
        scale, digits = (header & 0x1F80) >> 7, content[2:4]
    else:
        weight = int.from_bytes(content[2:4], "little", signed=True)
        scale, digits = header & 0x3FFF, content[4:6]
    first = int.from_bytes(digits, "little")  # of base 10,000
    return max(float(scale), 4.0 * weight + math.log10(first + 1), 0.0)


def composed(node: Node, parts: Sequence[Value]) -> Value:
    """Return the value of what is no call, from its parts, all of which are constants."""
    inside = together(parts)
    match node.label:
        case "ARRAYEXPR":
            return Value(inside.bytes + 32, sum(part.digits for part in parts))
        case "ARRAYCOERCEEXPR":  # an array, and what each element becomes
            return Value(parts[0].bytes * (8 + parts[-1].bytes), inside.digits)
        case "COERCEVIAIO":
            return _of_type(node.number("resulttype"), 8 * inside.bytes + 64, inside.digits)
    return inside


def _of_type(type_: int, size: float, digits: float) -> Value:
    """Return the bounds of a value of some type that was read from a text of `size` bytes."""
    if type_ in _FIXED_TYPES:
        return Value(FIXED, min(digits, _INTEGERS.get(type_, _FLOAT_DIGITS)))
    if type_ == _NUMERIC:
        return Value(size, _NUMERIC_DIGITS)
    return Value(size, size)


def value_of_call(name: str, node: Node, parts: Sequence[Value]) -> Value:
    """Return the value of a function of constants; of an unknown function for an empty name."""
    type_ = node.number("funcresulttype") or node.number("opresulttype")
    if node.label in {"DISTINCTEXPR", "SCALARARRAYOPEXPR"}:
        return Value(FIXED)
    if type_ in _FIXED_TYPES:
        most = _INTEGERS.get(type_, _FLOAT_DIGITS)
        return Value(FIXED, min(_digits_of_call(name, parts), most))
    if type_ == _NUMERIC:
        digits = min(_digits_of_call(name, parts), _NUMERIC_DIGITS)
        places = 0.0
        if name in {"round", "trunc"} and len(parts) > 1:
            places = min(parts[1].number, 16_383.0)  # NUMERIC_MAX_DISPLAY_SCALE and what is stored
        return Value(together(parts).bytes + digits + places + 64, digits)
    size = _size_of_format(node, parts) if name == "format" else _size_of_call(name, parts)
    return Value(size, size)


def _digits_of_call(name: str, parts: Sequence[Value]) -> float:
    """Return the decimal digits before the point of a number that a function returns."""
    digits = [part.digits for part in parts]
    if not digits:
        return 2.0  # pi() and the like
    if _ADDING.fullmatch(name):
        return max(digits) + 0.31
    if _MULTIPLYING.fullmatch(name):
        return sum(digits)
    if _DIVIDING.fullmatch(name):
        return digits[0]
    if _SAME_NUMBER.fullmatch(name):
        return max(digits) + 0.1
    if name == "numeric_div":
        return sum(digits) + 20
    if name in {"numeric_power", "pow", "power"} and len(parts) == 2:
        return digits[0] * parts[1].number + 20
    if name in {"exp", "numeric_exp"}:
        return 0.44 * parts[0].number + 20
    if name in _LENGTHS:
        return math.log10(8 * parts[0].bytes + 1)
    return _NUMERIC_DIGITS


_Sizes = Sequence[Value]
_GROWING: Mapping[str, Callable[[_Sizes], float]] = {
    "repeat": lambda p: p[0].bytes * p[1].number,
    "lpad": lambda p: 4 * p[1].number,
    "rpad": lambda p: 4 * p[1].number,
    "array_fill": lambda p: (p[0].bytes + 8) * p[1].number,
    "bpchar": lambda p: p[0].bytes + (p[1].number if len(p) > 1 else 0),
    "bit": lambda p: p[0].bytes + (p[1].number if len(p) > 1 else 0),
    "varbit": lambda p: p[0].bytes,
    "replace": lambda p: p[0].bytes * (p[2].bytes + 1),
    "regexp_replace": lambda p: (p[0].bytes + 1) * (2 * p[2].bytes + 1),
    "array_to_string": lambda p: 8 * p[0].bytes * (1 + sum(part.bytes for part in p[1:])),
    "concat_ws": lambda p: sum(q.bytes for q in p) + p[0].bytes * sum(q.bytes + 1 for q in p[1:]),
    "ts_headline": lambda p: 2 * math.prod(part.bytes + 1 for part in p[-3:]),
    "upper": lambda p: 3 * p[0].bytes,
    "lower": lambda p: 3 * p[0].bytes,
    "initcap": lambda p: 3 * p[0].bytes,
    "translate": lambda p: 4 * p[0].bytes,
    "normalize": lambda p: 18 * p[0].bytes,
    "to_char": lambda p: 16 * sum(part.bytes for part in p) + sum(part.digits for part in p[:1]),
}
"""For functions whose results grow beyond what they are given: bytes of the result, from above."""
# Functions whose results have at most as many bytes as their arguments together.
_NOT_GROWING = frozenset({
    "anytextcat", "array_append", "array_cat", "array_prepend", "array_remove", "array_reverse",
    "array_sort", "bitcat", "btrim", "byteacat", "bytea", "concat", "daterange", "int4range", "int8range",
    "json_array_element", "json_array_element_text", "json_extract_path", "json_extract_path_text",
    "json_object_field", "json_object_field_text", "jsonb_array_element", "jsonb_array_element_text",
    "jsonb_concat", "jsonb_extract_path", "jsonb_extract_path_text", "jsonb_object_field",
    "jsonb_object_field_text", "left", "ltrim", "md5", "numrange", "overlay", "reverse", "right", "rtrim",
    "split_part", "substr", "substring", "text", "textanycat", "textcat", "trim_array", "tsrange",
    "tstzrange", "varchar",
})  # fmt: skip


def _size_of_call(name: str, parts: _Sizes) -> float:
    """Return the bytes of a text, array or document that a function returns."""
    if name in _GROWING:
        return _GROWING[name](parts) + 64
    return (1 if name in _NOT_GROWING else 8) * together(parts).bytes + 64


def _size_of_format(node: Node, parts: _Sizes) -> float:
    """Return the bytes of what `format` makes, with the widths that its text gives."""
    text = node.nodes("args")[0]
    others = together(parts[1:])
    if text.label == "CONST":
        template = _bytes_of(text)[_HEADER:]
        widths = float(sum(min(int(width), 1 << 31) for width in _WIDTH.findall(template)))
        count, stars = template.count(b"%"), template.count(b"*")
    else:
        widths = 10.0 ** min(max(parts[0].bytes - 2, 0.0), 12.0)
        count = stars = int(min(parts[0].bytes, 1e9))
    if stars and parts[1:]:
        widths += stars * 10.0 ** min(others.digits, 12.0)
    return parts[0].bytes + 4 * widths + 2 * count * others.bytes + 64
