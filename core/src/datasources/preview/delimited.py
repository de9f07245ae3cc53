"""Guess the delimiter and the header of delimited text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
"""The delimiters that extensions stand for."""
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_RARE = ("^", "~", "\u00a6")  # delimiters that are taken where no other one fits
_ORDINARY = (":", " ")  # delimiters that single values often have inside
UNTOLD = ("", ".txt", ".text", ".dat", ".asc")
"""Extensions of files that are tables as often as prose; `""` is a name without one."""
_SAMPLE = 64 * 1024  # characters that a guess looks at
_RECORDS = 100  # records that a guess looks at
_SHARE = 0.9  # of the records that have as many columns as the first one, for a delimiter to fit
_MIN_DIVIDED = 0.5  # of the records that a delimiter must divide, if none fits
_MAX_NUMBER = 64  # characters; the pattern below takes quadratic time
_MAX_NAME = 64  # characters of a column's name, where a sentence may stand instead
_NUMBER = re.compile(r"\s*[-+]?[\d.,' \u00a0]*\d[\d.,]*\s*(?:[eE][-+]?\d+)?\s*%?\s*")
_DECIMAL_COMMA = re.compile(r"\s*[-+]?[\d.' \u00a0]*,\d+\s*%?\s*")
_YEAR = re.compile(r"\s*(?:19|20)\d\d\s*")
# A quotation mark after a backslash, where it does not end a value.
_ESCAPED_QUOTE = re.compile(r'(?<!\\)\\"[^",;|\t\r\n]')
_MARKUP = re.compile(r"\s*<(?:!doctype|html|\?xml)\b", re.IGNORECASE)
_SEPARATOR_LINE = re.compile(r"sep=([^\"\r\n])(?:\r\n?|\n|$)", re.IGNORECASE)

Record = list[str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The delimiter, quotes and header that delimited text is to be read with."""

    delimiter: str
    start: int = 0
    """Characters before the first record: a line `sep=;`, as Excel writes it."""
    guessed: bool = False
    """True if neither the extension nor the file says so."""
    note: str = ""
    """A doubt, as a sentence; empty if there is none."""


def choose_dialect(
    text: str, extension: str, *, complete: bool, delimiter: str | None = None
) -> tuple[Dialect | None, str]:
    """Return the dialect of a text, or None if its lines are to be shown as they are.

    The second value tells why a text that is expected to be a table, or resembles one, is none.
    With a `delimiter`, the text is a table that has this one, unless it cannot be a table.
    """
    if delimiter is None and extension in UNTOLD:
        return find_table(text, complete=complete)
    if delimiter is None and extension not in DELIMITERS:
        return None, ""
    if extension in DELIMITERS and (reason := _why_no_table(text)):
        return None, reason
    if delimiter is not None:
        separator_line = _SEPARATOR_LINE.match(text)
        return Dialect(delimiter, separator_line.end() if separator_line else 0), ""
    return find_dialect(text, extension, complete=complete), ""


def find_table(text: str, *, complete: bool) -> tuple[Dialect | None, str]:
    """Return the dialect of a text whose name does not tell that it is delimited, if it is one.

    Tabs, vertical bars or semicolons divide all its records into as many columns then, two at
    least, and the first record could be their names. Commas may as well be those of sentences. The
    second value tells why a text that resembles a table is not shown as one; it is empty for any
    other text.
    """
    if text.lstrip()[:1] in ("{", "[", "<"):  # JSON, settings, XML
        return None, ""
    sample = text[:_SAMPLE]
    reason = ""
    for delimiter in ("\t", "|", ";", ","):  # the rarer ones in prose first
        records = _records(sample, delimiter, complete and len(sample) == len(text))
        name = NAMES[delimiter]
        if len(records) < 2:
            continue
        if len(records[0]) > 1 and len({len(record) for record in records}) == 1:
            if delimiter != "," and _are_names(records[0]):
                return Dialect(delimiter, guessed=True), ""
            reason = reason or f"the lines may be rows of columns that are separated by {name}"
        divided = sum(len(record) > 1 for record in records)
        if delimiter in ("\t", "|") and divided > _MIN_DIVIDED * len(records):
            reason = reason or f"the lines have different numbers of {name}: they are no columns"
    return None, reason


def _are_names(record: Record) -> bool:
    """Return True if the values of a record could be names of columns, and not parts of a sentence."""
    return len(set(record)) == len(record) and all(
        value.strip() and len(value) <= _MAX_NAME for value in record
    )


def find_dialect(text: str, extension: str, *, complete: bool) -> Dialect:
    """Return the dialect in which the text of a delimited file is to be read.

    The delimiter of the extension is taken if it fits: if the first record has several columns, and
    nearly all others have as many. In a `.csv` file, where several delimiters fit, the first one is
    taken that leaves no other delimiter inside the values, other than the commas of numbers.
    """
    if match := _SEPARATOR_LINE.match(text):
        return Dialect(match[1], match.end())
    default = DELIMITERS[extension]
    sample = text[:_SAMPLE]
    tables = {
        delimiter: _records(sample, delimiter, complete and len(sample) == len(text))
        for delimiter in dict.fromkeys((default, *NAMES))
    }
    fitting = [delimiter for delimiter, records in tables.items() if _fits(records)]
    if not fitting and _is_column_of_decimals(tables[","]):
        note = "commas are taken for those of decimal numbers in one column"
        return Dialect(";", guessed=True, note=note)
    if not fitting:
        rare = {other: _records(sample, other, complete) for other in (*_RARE, *_ORDINARY)}
        return _ragged(tables, default, [other for other in rare if _fits(rare[other])])
    if extension != ".csv" and default in fitting:
        return Dialect(default)
    clean = [
        delimiter for delimiter in fitting if not _other_delimiters(tables[delimiter], delimiter)
    ]
    delimiter = (clean or fitting)[0]
    others = [NAMES.get(other, repr(other)) for other in fitting if other != delimiter]
    note = f"the columns may be separated by {' or '.join(others)} instead" if others else ""
    return Dialect(delimiter, guessed=delimiter != default or bool(others), note=note)


def _ragged(tables: dict[str, list[Record]], default: str, rare: Sequence[str]) -> Dialect:
    """Return the dialect of records of different lengths: what divides more than half of them.

    If none does, it is the first of the rare delimiters, which fit.
    """
    shares = {
        delimiter: sum(len(record) > 1 for record in records) / max(len(records), 1)
        for delimiter, records in tables.items()
    }
    delimiter = max(shares, key=shares.__getitem__)  # of equal ones the first, the default
    if shares[delimiter] <= _MIN_DIVIDED:
        if rare and rare[0] in _RARE:
            return Dialect(rare[0], guessed=True)
        delimiter = default
    widths = {len(record) for record in tables[delimiter]}
    note = "the rows have different numbers of columns" if len(widths) > 1 else ""
    if widths == {1} and rare:
        note = f"the columns may be separated by {rare[0]!r} instead"
    return Dialect(delimiter, guessed=delimiter != default, note=note)


def _is_column_of_decimals(records: Sequence[Record]) -> bool:
    """Return True if a name stands above numbers with decimal commas, and nothing else."""
    return (
        len(records) > 1
        and len(records[0]) == 1
        and any(len(record) == 2 for record in records[1:])
        and all(_is_number(",".join(record)) and len(record) < 3 for record in records[1:])
    )


def quoting_doubts(text: str, delimiter: str) -> list[str]:
    """Return sentences about quotation marks that divide the text of a file otherwise than meant."""
    notes = []
    if _ESCAPED_QUOTE.search(text, 0, _SAMPLE):
        notes.append("quotation marks after a backslash may be parts of the values")
    # A record that ends the text, unless a quotation mark is open: there are no NULs in the text.
    reader = csv.reader(io.StringIO(f"{text}\n\0", newline=""), delimiter=delimiter)
    if deque(reader, maxlen=1)[0] != ["\0"]:
        notes.append("a quotation mark is not closed: its value goes on to the end of the file")
    return notes


def _why_no_table(text: str) -> str:
    """Return what the text of a delimited file is instead of a table; empty if it may be one."""
    if _MARKUP.match(text):
        return "the file is HTML or XML, and no table: its lines are shown"
    first = text.lstrip().partition("\n")[0][:_SAMPLE]
    if first[:1] in ("{", "["):
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return ""
        return "the lines are JSON, and no table"
    return ""


def header_doubt(records: Sequence[Record]) -> str:
    """Return a sentence that says why the first record may be no header, or an empty one."""
    if _may_lack_header(records):
        return "the first row looks like data: the file may have no header"
    if _may_be_title(records):
        return "the first row fills less than half of the columns: it may be a title"
    return ""


def _may_be_title(records: Sequence[Record]) -> bool:
    """Return True if the first record names less than half of the columns that others fill."""
    if not records or len(records[0]) < 2:
        return False
    filled = [sum(bool(value.strip()) for value in record) for record in records[:_RECORDS]]
    return filled[0] <= len(records[0]) / 2 and max(filled) > filled[0]


def is_blank(record: Record) -> bool:
    """Return True for a line without anything but blanks, which pandas skips as well."""
    return not record or (len(record) == 1 and not record[0].strip())


def _may_lack_header(records: Sequence[Record]) -> bool:
    """Return True if the first record looks like the ones below it, not like names of columns."""
    if len(records) < 2:
        return False
    first, others = records[0], records[1:_RECORDS]
    numeric = [
        index
        for index in range(len(first))
        if all(index < len(record) and _is_number(record[index]) for record in others)
    ]
    return (
        bool(numeric)
        and all(_is_number(first[index]) for index in numeric)
        and not all(_YEAR.fullmatch(first[index]) for index in numeric)
    )


def _is_number(value: str) -> bool:
    return len(value) <= _MAX_NUMBER and _NUMBER.fullmatch(value) is not None


def _records(sample: str, delimiter: str, complete: bool) -> list[Record]:
    """Return the first records that are not blank; the last one of a cut text is left out."""
    records = []
    try:
        for record in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if not is_blank(record):
                records.append(record)
            if len(records) > _RECORDS:
                return records[:_RECORDS]
    except csv.Error:  # a value over the limit of the csv module
        return records
    return records if complete or len(records) < 2 else records[:-1]


def _fits(records: Sequence[Record]) -> bool:
    if not records or len(records[0]) < 2:
        return False
    same = sum(len(record) == len(records[0]) for record in records)
    return same >= _SHARE * len(records)


def _other_delimiters(records: Sequence[Record], delimiter: str) -> bool:
    """Return True if the header, or each record alike, has another delimiter inside its values."""
    for other in NAMES:
        if other == delimiter:
            continue
        counts = [
            sum(
                value.count(other)
                for value in record
                if not (other == "," and _DECIMAL_COMMA.fullmatch(value))
            )
            for record in records
        ]
        count, times = Counter(counts).most_common(1)[0]
        if counts[0] or (count and times >= _SHARE * len(records)):
            return True
    return False
