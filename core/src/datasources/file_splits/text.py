"""Read delimited text in whole records, from its beginning or from a place between two records."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from datasources.errors import DataFetchError
from datasources.file_splits.files import PinnedFile, no_table
from datasources.preview import DIVISIBLE_ENCODINGS, find_layout, open_decompressed
from datasources.tabular import distinct_names

_HEAD = 1 << 20  # bytes that encoding, delimiter and header are found in
_BLOCK = 4 << 20  # bytes that are read at once
_CHUNK = 1 << 20  # bytes of records that are parsed at once
_MAX_RECORD = 32 << 20  # bytes
_BLANK = b" \t\r\n\0\x1a"  # U+001A ends a text of DOS


@dataclass(frozen=True, slots=True)
class TextFormat:
    """The format of the records of a text, as its bytes are after `TextSource` has read them."""

    encoding: str
    delimiter: str

    @property
    def record(self) -> re.Pattern[bytes]:
        """Matches one record to its end, as `csv.reader` and pyarrow read it.

        A quotation mark begins a quoted value at the beginning of a field only.
        """
        delimiter = re.escape(self.delimiter.encode())
        rest = rb"[^%b\r\n]*" % delimiter
        field = rb'(?:"[^"]*(?:""[^"]*)*"(?!")%b|[^"%b\r\n]%b)?' % (rest, delimiter, rest)
        # The line feed after a carriage return at the end of the bytes may still come.
        end = rb"(?:\n|\r(?:\n|(?!\n|\Z)))"
        return re.compile(rb"%b(?:%b%b)*%b" % (field, delimiter, field, end))


class TextSource:
    """A delimited text at its beginning: its format, its header, and the blocks that follow.

    This reads the first bytes of the file, in a worker thread.

    Args:
        file: The file.
        path: Its name.
        size: Its bytes.
        delimiter: The delimiter, None to find it.

    Raises:
        UnsupportedError: It is no delimited text.
        DataFetchError: It cannot be read.
    """

    def __init__(
        self, file: PinnedFile, path: str, size: int, delimiter: str | None = None
    ) -> None:
        blocks = file_blocks(file, path, 0, size)
        first = next(blocks, b"")
        decompressed = open_decompressed(chain([first], blocks), first)
        if decompressed is not None:
            blocks = iter(lambda: decompressed.read(_CHUNK), b"")
            first = next(blocks, b"")
        head = first[:_HEAD]
        complete = len(head) < _CHUNK if decompressed else len(head) == size
        encoding, dialect, reason = find_layout(path, head, complete=complete, delimiter=delimiter)
        if dialect is None:
            raise no_table(path, reason)
        self.is_divisible = decompressed is None and encoding in DIVISIBLE_ENCODINGS
        """True if a reader can begin between two records."""
        skipped = len(codecs.BOM_UTF8) if first.startswith(codecs.BOM_UTF8) else 0
        if encoding not in DIVISIBLE_ENCODINGS:
            blocks = _transcoded(chain([first], blocks), encoding, path)
            first, encoding, skipped = next(blocks, b""), "utf-8", 0
        self.format = TextFormat(encoding, dialect.delimiter)
        if not self.format.delimiter.isascii():
            raise no_table(path, f"its delimiter {dialect.delimiter!r} is not ASCII")
        start = skipped + dialect.start
        self.columns, end = _header(first, start, self.format, path, blocks)
        self.start = end
        """Bytes before the first record after the header."""
        self.blocks = chain([first[end:]], blocks)


def file_blocks(file: PinnedFile, path: str, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of a range of a file.

    Raises:
        DataFetchError: The file ends before.
    """
    file.seek(start)
    while start < stop:
        block = file.read(min(_BLOCK, stop - start))
        if not block:
            raise DataFetchError(f"{path!r} ends before its last byte; plan again")
        start += len(block)
        yield block


def _transcoded(blocks: Iterator[bytes], encoding: str, path: str) -> Iterator[bytes]:
    """Yield blocks of UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks:
            if text := decoder.decode(block):
                yield text.encode()
        decoder.decode(b"", final=True)
    except UnicodeError as exc:
        raise _not_in(encoding, path) from exc


def _not_in(encoding: str, path: str) -> DataFetchError:
    return DataFetchError(f"{path!r} has bytes that are not {encoding}, as the others seem to be")


def _header(
    head: bytes, start: int, format: TextFormat, path: str, rest: Iterator[bytes]
) -> tuple[list[str], int]:
    """Return the names of the columns, and the offset of the first record after them.

    Args:
        head: The first block of the text.
        start: The offset at which the text begins.
        format: Its format.
        path: The name of the file.
        rest: The other blocks, which may be read if the head has no whole header.

    Raises:
        DataFetchError: The header does not end in the head.
    """
    position = start
    while match := format.record.match(head, position):
        position = match.end()
        if match[0].strip(_BLANK):
            break
    record = match[0] if match else head[position:]
    if match is None:
        if len(record) >= _HEAD or any(block.strip(_BLANK) for block in rest):
            raise DataFetchError(f"the header of {path!r} is not among its first {_HEAD} bytes")
        position = len(head)
    text = io.StringIO(record.strip(b"\0\x1a").decode(format.encoding), newline="")
    names = next(csv.reader(text, delimiter=format.delimiter), [])
    return distinct_names(names) if record.strip(_BLANK) else [], position


class RecordParser:
    """Parses bytes of records into tables whose columns are text.

    An empty field is null; a quoted one is an empty text.

    Args:
        path: The name of the file, for errors.
        format: The format.
        names: The columns of the text.
        wanted: The columns of the tables.
    """

    def __init__(
        self, path: str, format: TextFormat, names: Sequence[str], wanted: Sequence[str]
    ) -> None:
        self._path = path
        self._format = format
        self._record = format.record
        self._names = list(names)
        self._wanted = list(wanted)
        self._converted = list(dict.fromkeys([*wanted, *names[-1:]]))

    def tables(self, blocks: Iterator[bytes], step: int = _CHUNK) -> Iterator[tuple[int, Any]]:
        """Yield tables of whole records of about `step` bytes, each with its exact bytes.

        Raises:
            DataFetchError: A record has other columns than the header, is too long, or is not of the
                encoding.
        """
        pending, wanted = b"", 0
        for block in blocks:
            for offset in range(0, len(block), step):
                pending += block[offset : offset + step]
                if len(pending) < wanted:
                    continue
                size, table = self._first_records(pending)
                if size:
                    yield size, table
                    pending, wanted = pending[size:], 0
                elif len(pending) > _MAX_RECORD:
                    raise self._too_long()
                elif len(pending) >= _CHUNK:
                    # A long record is looked for again when there are twice as many bytes of it.
                    wanted = min(2 * len(pending), _MAX_RECORD + 1)
        if pending.strip(_BLANK):
            ended = pending if pending.endswith((b"\n", b"\r")) else pending + b"\n"
            if self._end_of_records(ended + b"\n") < len(ended):
                raise self._too_long()
            yield len(pending), self._parse(ended)

    def _first_records(self, data: bytes) -> tuple[int, Any]:
        """Return the bytes of the whole records at the beginning, and their table.

        The last line feed ends a record unless it is inside of quotes. pyarrow tells which: it then
        reads the line feed as the end of a value, or fewer values than there are columns.
        """
        end = data.rfind(b"\n") + 1
        table = self._parse(data[:end], check=True) if end else None
        if table is None:
            end = self._end_of_records(data)
            table = self._parse(data[:end]) if end else None
        return end, table

    def _end_of_records(self, data: bytes) -> int:
        end = 0
        while match := self._record.match(data, end):
            end = match.end()
        return end

    def _parse(self, data: bytes, *, check: bool = False) -> Any:
        """Return the table of whole records.

        With `check`, the result is None if the end of the data may be no end of a record.
        """
        ragged: list[Any] = []

        def handle(row: Any) -> str:
            if not row.text.strip(_BLANK.decode()):
                return "skip"
            ragged.append(row)
            return "error"

        try:
            table = self._read(data, handle)
        except pa.ArrowInvalid as exc:
            if check:
                return None
            if ragged:
                raise self._ragged(ragged[0]) from None
            if "UTF8" in str(exc):
                raise _not_in(self._format.encoding, self._path) from exc
            raise
        if check and table.num_rows:
            last = table.column(self._names[-1])[-1].as_py()
            if last is not None and last.endswith("\n"):
                return None
        return table.select(self._wanted)

    def _read(self, data: bytes, handle: Any) -> Any:
        if self._format.encoding != "utf-8":
            try:
                data = data.decode(self._format.encoding).encode()
            except UnicodeError as exc:
                raise _not_in(self._format.encoding, self._path) from exc
        return arrow_csv.read_csv(
            pa.py_buffer(data),
            read_options=arrow_csv.ReadOptions(
                column_names=self._names, use_threads=False, block_size=len(data) + 1
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=self._format.delimiter,
                newlines_in_values=True,
                invalid_row_handler=handle,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(self._names, pa.string()),
                include_columns=self._converted,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _ragged(self, row: Any) -> DataFetchError:
        return DataFetchError(
            f"{self._path!r} is no table: a row has {row.actual_columns} values, and the header "
            f"{row.expected_columns}"
        )

    def _too_long(self) -> DataFetchError:
        return DataFetchError(
            f"a row of {self._path!r} is longer than {_MAX_RECORD} bytes, or a quotation mark is not "
            "closed"
        )
