"""Helpers for connectors: CSV files, folders and patterns over paths."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from datasources.errors import DataFetchError
from datasources.models import DataItem
from datasources.workspace import Workspace, WorkspaceFile

_BUFFER = 64 * 1024  # bytes collected before they are written
_QUOTED = re.compile(r'[",\r\n]')


class CsvFile:
    """A CSV file that is being written to a workspace; `csv_file` makes it."""

    def __init__(self, file: WorkspaceFile, most: int | None) -> None:
        self._file = file
        self._most = most
        self._pending = bytearray()

    @property
    def path(self) -> str:
        """Absolute path of the file, which is there when the `with` block has ended."""
        return self._file.path

    @property
    def truncated(self) -> bool:
        """True if there were more rows than the limit; `write_rows` then takes none."""
        return self._file.truncated

    def write_rows(self, rows: Iterable[Iterable[object]]) -> None:
        r"""Append rows, as many as the limit on rows allows.

        Values are written as by PostgreSQL's `COPY`: None as an empty field, an empty text as `""`,
        bytes in hexadecimal after `\x`, and other values as `str` returns them. The encoding is
        UTF-8; lines end with `\n`, also inside of quoted fields if the text has it.

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
        if len(self._pending) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._file.write(self._pending)
        self._pending = bytearray()


@contextmanager
def csv_file(
    workspace: str, name: str, columns: Iterable[str], *, version: str | None = None
) -> Iterator[CsvFile]:
    """Write a table to `<name>.csv` in a workspace, with a header, within the host's limits.

    Of more rows than the limit, exactly that many are written, and `truncated` is True: pass rows
    until then, one more than the limit at least.

        with csv_file(workspace, "orders", columns) as file:
            while not file.truncated and (rows := cursor.fetchmany(200)):
                file.write_rows(rows)
        return file.path

    Args:
        workspace: As `fetch_data` got it.
        name: Of the file, without `.csv`; slashes in it become part of the file's name.
        columns: The header.
        version: The version of the content, such as an ETag, where the source has one.

    Raises:
        OptionError: The caller asked for another format than CSV.
        DataFetchError: As `Workspace.create`.
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


def distinct_names(columns: list[str]) -> list[str]:
    """Return names of columns that differ, as readers of Parquet find columns by name."""
    names: dict[str, None] = {}  # in order
    given = set(columns)
    numbers: dict[str, int] = {}
    for place, column in enumerate(columns, 1):
        name = base = column or f"column_{place}"
        number = numbers.get(base, 1)
        while name in names or (name != column and name in given):
            number += 1
            name = f"{base}_{number}"
        numbers[base] = number
        names[name] = None
    return list(names)


def query_name(query: str) -> str:
    """Return a name for the result of a query: from a hash of its text, which it does not show."""
    return f"query-{hashlib.sha256(query.encode(errors='surrogatepass')).hexdigest()[:12]}"


def _field(value: object) -> str:
    if value is None:
        return ""
    text = f"\\x{value.hex()}" if isinstance(value, (bytes, bytearray, memoryview)) else str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if not text or _QUOTED.search(text) else text


def items_below(items: Iterable[DataItem], path: str | None) -> list[DataItem]:
    """Return the items at `path`, as `list_items` has to, from all items of a source.

    For sources that have no folders: slashes in the paths of items make them.
    """
    if path is None or not path.endswith("/"):
        return [item for item in items if not path or item.path.startswith(f"{path}/")]
    folder = path.lstrip("/")
    listed: dict[str, DataItem] = {}
    for item in items:
        if item.path.startswith(folder):
            name, slash, _ = item.path[len(folder) :].partition("/")
            below = DataItem(name, f"{folder}{name}/", metadata={"kind": "folder"})
            listed.setdefault(name + slash, below if slash else item)
    return list(listed.values())


WILDCARDS = frozenset("*?[")
"""Characters that make a text a pattern."""


def glob_prefix(pattern: str) -> str:
    """Return the beginning of every name that a pattern matches.

    It is the part before the first wildcard; `[*]`, `[?]` and `[[]` stand for one character.
    """
    literal = re.match(r"(?:[^*?\[]|\[[*?\[]\])*", pattern)
    return re.sub(r"\[([*?\[])\]", r"\1", literal[0]) if literal else ""


def glob_escape(name: str) -> str:
    """Return the pattern that matches exactly this name."""
    return re.sub(r"[*?\[]", r"[\g<0>]", name)


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
