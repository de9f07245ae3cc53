"""What connectors share: CSV files, patterns over paths."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from datasources.errors import DataFetchError
from datasources.models import DataItem
from datasources.workspace import Workspace, WorkspaceFile

_PIECE = 64 * 1024  # bytes written at once
_QUOTED = re.compile(r'[",\r\n]')


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
    """Return the beginning of every name that a pattern matches.

    It is the part before the first wildcard; `[*]`, `[?]` and `[[]` stand for one character.
    """
    literal = re.match(r"(?:[^*?\[]|\[[*?\[]\])*", pattern)
    return re.sub(r"\[([*?\[])\]", r"\1", literal[0]) if literal else ""


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Compile a pattern over `/`-separated paths.

    `*` and `?` stay within a segment, `**` spans segments (`a/**/b` matches `a/b` too), `[…]` is
    a set with ranges, `[!…]` its complement; everything else stands for itself.
    """
    chunks = [_Chunk("")]
    for index, part in enumerate(re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", pattern)):
        if part in _ANY:
            chunks.append(_Chunk(part))
        elif part == "*":
            chunks[-1].runs.append("")
        else:
            chunks[-1].add(part, literal=index % 2 == 0)
    following = [chunk.opener for chunk in chunks[1:]] + [""]
    regex = "".join(chunk.regex(then) for chunk, then in zip(chunks, following, strict=True))
    return re.compile(regex, re.DOTALL)


_ANY = {"**/": r"(?:[^/]*/)*?", "**": r".*?"}


class _Chunk:
    """A part of a pattern from one `**` to the next; a run of it, from one `*` to the next.

    A run is matched where it is first found, for good, if what follows can take in all that is
    left over: trying every other place takes ages where wildcards are many.
    """

    def __init__(self, opener: str) -> None:
        self.opener = opener
        self.runs = [""]
        self._end = opener

    def add(self, part: str, *, literal: bool) -> None:
        if literal:
            self.runs[-1] += re.escape(part)
        else:
            self.runs[-1] += "[^/]" if part == "?" else _set(part[1:-1]) or re.escape(part)
        self._end = part or self._end

    def regex(self, following: str) -> str:
        first, *rest = self.runs
        regex = _ANY.get(self.opener, "") + first
        regex += "".join(f"(?>[^/]*?{run})" for run in rest[:-1])
        regex += "".join(f"[^/]*?{run}" for run in rest[-1:])
        for_good = following == "**" or (following == "**/" and self._end.endswith("/"))
        return f"(?>{regex})" if for_good else regex


def _set(body: str) -> str:
    """Return the regular expression of a set's characters; empty if it has none."""
    negated = body.startswith("!")
    ranges = re.findall(r"(.)-(.)|(.)", body[negated:], re.DOTALL)
    pairs = [(first or one, last or one) for first, last, one in ranges]
    inside = "".join(f"{re.escape(a)}-{re.escape(b)}" for a, b in pairs if a <= b)
    if not inside:
        return "[^/]" if pairs and negated else "(?!)" if pairs else ""
    return f"(?!/)[{'^' if negated else ''}{inside}]"
