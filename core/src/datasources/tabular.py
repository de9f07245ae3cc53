"""What connectors share: CSV files, previews of text, patterns over paths."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from datasources.errors import DataFetchError
from datasources.models import DataItem, Preview
from datasources.workspace import Workspace, WorkspaceFile

_PIECE = 64 * 1024  # bytes written at once
_QUOTED = re.compile(r'[",\r\n]')
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}


class CsvFile:
    """A table on its way into a workspace; see `csv_file`."""

    def __init__(self, file: WorkspaceFile, most: int | None) -> None:
        self._file = file
        self._most = most
        self._pending = bytearray()

    @property
    def path(self) -> str:
        """Where the file will be."""
        return self._file.path

    @property
    def truncated(self) -> bool:
        """Whether there were rows over the limit; no more are taken."""
        return self._file.truncated

    def write_rows(self, rows: Iterable[Iterable[object]]) -> None:
        r"""Append rows, as many as the limit on rows allows.

        Values are written as PostgreSQL does: None is an empty field and an empty text `""`,
        bytes are hexadecimal after `\x`; what else there is, as `str` shows it.

        Raises:
            DataFetchError: A text cannot be written as UTF-8.
            LimitExceededError: The file would grow over the limit on bytes.
        """
        for count, row in enumerate(rows, self._file.rows or 0):
            if count == self._most:
                self._file.truncated = True
                break
            self._append(row)
            self._file.rows = count + 1

    def _append(self, row: Iterable[object]) -> None:
        line = ",".join(map(_field, row))
        try:
            self._pending += f"{line}\n".encode(errors="surrogateescape")
        except UnicodeEncodeError as exc:
            raise DataFetchError(f"row {self._file.rows} holds a text that is no Unicode") from exc
        if len(self._pending) >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        self._file.write(self._pending)
        self._pending = bytearray()


@contextmanager
def csv_file(
    workspace: str, name: str, columns: Iterable[str], *, version: str | None = None
) -> Iterator[CsvFile]:
    """Write a table to `<name>.csv`, header first, within the limits of the workspace.

    `version` is the source's mark of this content, where it has one.

    The limit on rows cuts it exactly: hand over rows until `truncated` says that there are more.

        with csv_file(workspace, "orders", columns) as file:
            while not file.truncated and (rows := cursor.fetchmany(200)):
                file.write_rows(rows)
        return file.path

    Raises:
        DataFetchError: The caller wants another format than CSV, or as `Workspace.create`.
        LimitExceededError: The file would grow over the limit on bytes.
    """
    target = Workspace.of(workspace)
    target.require_format("csv")
    with target.create(f"{name}.csv", flat=True) as file:
        table = CsvFile(file, target.limits.max_rows)
        table._append(columns)
        file.rows, file.version = 0, version
        yield table
        table._flush()


def query_name(query: str) -> str:
    """Return the name of a query's result: the same for the same text, and nothing of it."""
    return f"query-{hashlib.sha256(query.encode(errors='surrogatepass')).hexdigest()[:12]}"


def _field(value: object) -> str:
    if value is None:
        return ""
    text = f"\\x{value.hex()}" if isinstance(value, (bytes, bytearray, memoryview)) else str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if not text or _QUOTED.search(text) else text


def preview_text(name: str, head: bytes, rows: int = 10, *, complete: bool) -> Preview:
    """Return the first rows of a delimited or plain text file from its first bytes.

    Args:
        name: The file's name; its extension tells the delimiter. Other text gives one column,
            `line`.
        head: The first bytes of the file.
        rows: How many rows at most.
        complete: True if `head` is the whole file; otherwise its last, cut line is left out.

    Raises:
        DataFetchError: The bytes are not text.
    """
    if b"\0" in head:
        raise DataFetchError(f"{name!r} is not a text file: there is no preview of it")
    text = head.decode("utf-8-sig", errors="replace")
    if not complete:
        text = text[: text.rfind("\n") + 1]
    extension = name[name.rfind(".") :].lower()
    if extension in _DELIMITERS:
        records: Iterator[list[str]] = csv.reader(
            io.StringIO(text, newline=""), delimiter=_DELIMITERS[extension]
        )
        columns = next(records, [])
    else:
        records = ([line] for line in text.splitlines())
        columns = ["line"]
    try:
        found = [tuple(record) for record in islice(records, rows + 1)]
    except csv.Error as exc:
        raise DataFetchError(f"{name!r} cannot be read as delimited text: {exc}") from exc
    return Preview(tuple(columns), found[:rows], truncated=len(found) > rows or not complete)


def items_below(items: Iterable[DataItem], path: str | None) -> list[DataItem]:
    """Return what `list_items` is to return for `path`, of all items of a source.

    It is for sources that know no folders: the slashes in their paths make them.
    """
    if path is None or not path.endswith("/"):
        return [item for item in items if not path or item.path.startswith(f"{path}/")]
    folder = path.lstrip("/")
    found: dict[str, DataItem] = {}
    for item in items:
        if item.path.startswith(folder):
            name, slash, _ = item.path[len(folder) :].partition("/")
            below = DataItem(name, f"{folder}{name}/", metadata={"kind": "folder"})
            found.setdefault(name + slash, below if slash else item)
    return list(found.values())


WILDCARDS = frozenset("*?[")


def glob_prefix(pattern: str) -> str:
    """Return the part of a pattern before its first wildcard."""
    wildcard = re.search(r"[*?\[]", pattern)
    return pattern[: wildcard.start()] if wildcard else pattern


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Compile a pattern over `/`-separated paths.

    `*` and `?` stay within a segment, `**` spans segments (`a/**/b` matches `a/b` too), `[…]` is
    a set with ranges, `[!…]` its complement; everything else stands for itself.
    """
    # Each part but the last is matched where it first can be, for good (`(?>…)`), if the wildcard
    # after it can take in all that is left over. Trying every other place for it as well would
    # find nothing more, and with many wildcards take hours.
    regex = ""
    chunks = _CHUNK.findall(pattern)
    for (span, chunk), (next_span, _) in zip(chunks, [*chunks[1:], ("", "")], strict=True):
        head, *runs = "".join(map(_translate, _UNIT.findall(chunk))).split(_STAR)
        part = _SPANS[span] + head + "".join(f"(?>{_STAR}{run})" for run in runs[:-1])
        part += _STAR + runs[-1] if runs else ""
        whole_segments = (chunk or span).endswith("/")
        final = next_span == "**" or (next_span == "**/" and whole_segments)
        regex += f"(?>{part})" if final else part
    return re.compile(regex, re.DOTALL)


_SET = r"\[!?\]?[^\]]*\]"
_CHUNK = re.compile(rf"(\*\*/?|^)((?:{_SET}|\*(?!\*)|[^*])*)")  # from one `**` to the next
_UNIT = re.compile(rf"{_SET}|.", re.DOTALL)
_STAR = "[^/]*?"
_SPANS = {"": "", "**": ".*?", "**/": "(?:[^/]*/)*?"}


def _translate(unit: str) -> str:
    """Return the regular expression of a set, of `*` or `?`, or of a character."""
    if unit in ("*", "?"):
        return _STAR if unit == "*" else "[^/]"
    if len(unit) == 1:
        return re.escape(unit)
    negated = unit[1] == "!"
    ranges = re.findall(r"(.)-(.)|(.)", unit[2:-1] if negated else unit[1:-1], re.DOTALL)
    pairs = [(first or single, last or single) for first, last, single in ranges]
    if not pairs:  # `[]` and `[!]` are no sets
        return re.escape(unit)
    inside = "".join(f"{re.escape(a)}-{re.escape(b)}" for a, b in pairs if a <= b)
    if not inside:  # of empty ranges alone, such as `[z-a]`
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{inside}]"
