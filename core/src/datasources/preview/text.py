"""Show the first rows of delimited or plain text, and tell what was guessed about it."""

from __future__ import annotations

import csv
import io
import re
from itertools import islice

from datasources.errors import DataFetchError
from datasources.models import Preview, TextFormat
from datasources.preview.compression import SUFFIXES, decompress, inflate
from datasources.preview.delimited import (
    DELIMITERS,
    NAMES,
    Dialect,
    Record,
    choose_dialect,
    header_doubt,
    is_blank,
    quoting_doubts,
)
from datasources.preview.encodings import Decoded, decode

_MAX_CUT_VALUE = 64 * 1024  # characters shown of a value that the end of the bytes read has cut
# Files that consist of bytes, whatever characters these would be, by their first ones.
_BINARY = {
    b"%PDF-": "a PDF file",
    b"\x89PNG": "an image",
    b"GIF8": "an image",
    b"\xff\xd8\xff": "an image",
    b"II*\x00": "an image",
    b"MM\x00*": "an image",
    b"PK\x03\x04": "a ZIP archive, as workbooks of Excel are",
    b"\xd0\xcf\x11\xe0": "an old document of Microsoft Office",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"SQLite format 3": "a SQLite database",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"ARROW1": "an Arrow file",
    b"\x89HDF": "an HDF5 file",
    b"\x7fELF": "a program",
    b"\x80\x04\x95": "a pickle",
    b"wOF": "a font",
}
_ORC = b"ORC"  # three letters that a text may begin with
# Control characters but NUL, and those of texts: white space, and U+001A, the end of a DOS file.
_CONTROL = re.compile(r"[\x01-\x08\x0e-\x19\x1c-\x1f]")
_SAMPLE = 16 * 1024  # characters that are looked at for others


def preview_text(
    name: str,
    head: bytes,
    rows: int = 10,
    *,
    complete: bool,
    more: bool = False,
    content_encoding: str = "",
) -> Preview:
    """Return the first rows of a delimited or plain text file from its first bytes.

    The encoding is found by a byte order mark, UTF-16 and UTF-8 by their form; anything else is
    guessed. Files compressed with gzip, bzip2 or xz are shown decompressed, 4 MiB at most. Names
    that end with `.csv`, `.tsv`, `.tab` or `.psv` are delimited: their first record that is not
    blank gives the columns, and the delimiter is another than the extension's where that one does
    not fit. A name without an extension, or with `.txt`, `.text`, `.dat` or `.asc`, is delimited if
    tabs, vertical bars or semicolons divide all its lines into as many columns, and the first line
    could be their names. Any other text has one column, `line`. Lines end with LF, CR LF or CR.

    `Preview.format` has what was found, and `Preview.notes` what was guessed or left out.

    Args:
        name: The file's name.
        head: The first bytes of the file.
        rows: Rows at most.
        complete: True if `head` is the whole file; otherwise its last row, which may be cut, is
            left out if there is another one, and shown as far as it is there if there is none.
        more: True if the caller can read more of the file; a cut row is left out then.
        content_encoding: HTTP's `Content-Encoding` of the file as it is stored.

    Raises:
        DataFetchError: The file is not text, or its records cannot be read.
    """
    head, complete = inflate(name, head, content_encoding, complete=complete)
    head, compression, complete = decompress(name, head, complete=complete)
    decoded = decode(head, complete=complete)
    _require_text(name, head, decoded)
    text = decoded.text.rstrip("\0\x1a") if complete else decoded.text
    notes = _encoding_notes(decoded)
    if "\0" in text:
        text = text.replace("\0", "")
        notes.append("NUL characters are left out")
    extension = _extension(name)
    records: list[Record]
    dialect, reason = choose_dialect(text, extension, complete=complete)
    notes += [reason] if reason else []
    if dialect is not None:
        records = _read_records(name, text[dialect.start :], dialect.delimiter, rows)
    else:
        records = [["line"], *([line] for line in _lines(text, rows))]
    cut = not complete and len(records) < rows + 3
    if dialect is None and text.endswith(("\n", "\r")):
        cut = False  # delimited text may go on in quotes
    columns, values, cut = _split(records, cut=cut, more=more)
    if cut:
        notes.append("the last row is cut: it is longer than the part of the file that was read")
    guessed = ["encoding"] if decoded.guessed else []
    if dialect is not None:
        notes += _dialect_notes(dialect, extension)
        guessed += ["delimiter"] if dialect.guessed else []
        if doubt := header_doubt(records):
            notes.append(doubt)
            guessed.append("header")
        if complete and len(records) < rows + 3:
            notes += quoting_doubts(text[dialect.start :], dialect.delimiter)
    text_format = TextFormat(
        decoded.encoding, dialect.delimiter if dialect else None, compression, tuple(guessed)
    )
    return Preview(
        tuple(columns),
        [tuple(record) for record in values[:rows]],
        truncated=len(values) > rows or cut or not complete,
        format=text_format,
        notes=tuple(notes),
    )


def find_layout(
    name: str, head: bytes, *, complete: bool, delimiter: str | None = None
) -> tuple[str, Dialect | None, str]:
    """Return the encoding and dialect that `preview_text` reads a file with, which is no archive.

    The dialect is None for text that is not delimited; the third value may tell why it is not.

    Args:
        name: The file's name.
        head: Its first bytes.
        complete: True if `head` is the whole file.
        delimiter: The delimiter, where it is known.

    Raises:
        DataFetchError: The file is not text.
    """
    decoded = decode(head, complete=complete)
    _require_text(name, head, decoded)
    text = (decoded.text.rstrip("\0\x1a") if complete else decoded.text).replace("\0", "")
    dialect, reason = choose_dialect(text, _extension(name), complete=complete, delimiter=delimiter)
    return decoded.encoding, dialect, reason


def is_delimited(name: str) -> bool:
    """Return True if the name of a file tells that its text is delimited."""
    return _extension(name) in DELIMITERS


def _require_text(name: str, head: bytes, decoded: Decoded) -> None:
    """Refuse a file that is known to be something else, or has the control characters of one."""
    for magic, description in _BINARY.items():
        if head.startswith(magic) and (magic != _ORC or b"\0" in head):
            raise DataFetchError(
                f"{name!r} is not a text file but {description}: there is no preview of it"
            )
    sample = decoded.text[:_SAMPLE].rstrip("\0") or decoded.text[:_SAMPLE]
    nuls = sample.count("\0")
    controls = len(_CONTROL.findall(sample))
    # Texts with padded fields have NUL characters, but no other ones then. A twentieth of random
    # bytes are control characters, and they are not UTF-8.
    share = 0 if nuls else 0.02 if decoded.guessed else 0.1
    if controls > share * len(sample) or nuls > 0.5 * len(sample):
        raise DataFetchError(f"{name!r} is not a text file: there is no preview of it")


def _encoding_notes(decoded: Decoded) -> list[str]:
    notes = []
    if decoded.guessed:
        notes.append(f"the encoding is not told and may be another than {decoded.encoding}")
    if decoded.damaged:
        notes.append(f"characters that are not {decoded.encoding} are shown as '\ufffd'")
    return notes


def _dialect_notes(dialect: Dialect, extension: str) -> list[str]:
    notes = [dialect.note] if dialect.note else []
    if dialect.delimiter != DELIMITERS.get(extension):
        separator = NAMES.get(dialect.delimiter, repr(dialect.delimiter))
        notes.insert(0, f"the columns are separated by {separator}")
    return notes


def _extension(name: str) -> str:
    name = name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    name = name.rpartition("/")[2]
    return name[name.rfind(".") :] if "." in name else ""


def _read_records(name: str, text: str, delimiter: str, rows: int) -> list[Record]:
    """Return the header and the rows that are not blank: one more, and one that may be cut."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return list(islice((record for record in reader if not is_blank(record)), rows + 3))
    except csv.Error as exc:
        reason = str(exc)
        if "field limit" in reason:
            limit = csv.field_size_limit()
            reason = f"a field is longer than {limit} characters, or a quotation mark is not closed"
        raise DataFetchError(f"{name!r} cannot be read as delimited text: {reason}") from exc


def _lines(text: str, rows: int) -> list[str]:
    # Not `splitlines`, which also cuts at U+2028, U+0085 and others that texts and JSON contain.
    lines = islice(io.StringIO(text, newline=None), rows + 2)
    return [line.removesuffix("\n") for line in lines]


def _split(records: list[Record], *, cut: bool, more: bool) -> tuple[Record, list[Record], bool]:
    """Return columns and rows, without a last record that is cut unless there is no other.

    The third value is True if what is shown last is cut.
    """
    if not records:
        return [], [], False
    if cut and len(records) > 2:
        records = records[:-1]
        cut = False
    if not cut:
        return records[0], records[1:], False
    if more:
        return ([], [], False) if len(records) == 1 else (records[0], [], False)
    records[-1] = [value[:_MAX_CUT_VALUE] for value in records[-1]]
    return records[0], records[1:], True
