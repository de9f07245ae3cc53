"""What connectors of files share: previews of text, and patterns over paths."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice

from datasources.errors import DataFetchError
from datasources.models import Preview

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}


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


def glob_prefix(pattern: str) -> str:
    """Return the part of a pattern before its first wildcard."""
    wildcard = re.search(r"[*?\[]", pattern)
    return pattern[: wildcard.start()] if wildcard else pattern


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Compile a pattern over `/`-separated paths.

    `*` and `?` stay within a segment, `**` spans segments (`a/**/b` matches `a/b` too), `[…]` is
    a set with ranges, `[!…]` its complement; everything else stands for itself.
    """
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", pattern)
    known = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    regex = ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            regex += re.escape(part)
        elif part in known:
            regex += known[part]
        else:
            body = part[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            negated = body.startswith("!")
            regex += f"(?!/)[{'^' if negated else ''}{body[negated:].replace(']', chr(92) + ']')}]"
    return re.compile(regex, re.DOTALL)
