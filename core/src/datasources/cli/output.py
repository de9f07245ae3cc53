"""What the terminal sees: results on stdout, the rest on stderr, nothing in them that acts.

Names, cells and messages come from other systems: control characters, escape sequences, changes
of text direction and lone surrogates are shown as backslash escapes.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeGuard

if TYPE_CHECKING:
    from rich.console import JustifyMethod

_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORTEST_SECRET = 4  # characters; masking less would leave no message readable

_secrets: set[str] = set()
_flags: set[str] = set()

Row = Sequence[object]


def clean(value: object) -> str:
    """Return a value as one line of text that no terminal acts on; None as nothing."""
    text = "" if value is None else str(value)
    return _HARMFUL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def hide(secrets: Iterable[str]) -> None:
    """Mask these in whatever goes to stderr from now on."""
    from urllib.parse import quote

    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            _secrets.update((secret, repr(secret)[1:-1], quote(secret, safe="")))


def start_anew() -> None:
    """Forget the secrets and flags of another command in the same process."""
    _secrets.clear()
    _flags.clear()


def be_verbose() -> None:
    """Show logs and tracebacks from now on."""
    _flags.add("verbose")


def attended() -> bool:
    """Tell whether somebody is at a terminal to answer."""
    return is_terminal(sys.stdin)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal; a closed one is None."""
    return stream is not None and stream.isatty()


def verbose() -> bool:
    """Tell whether logs and tracebacks are shown."""
    return "verbose" in _flags


def mask(text: str, *, shapes: bool = False) -> str:
    """Mask the secrets in use; with `shapes`, also whatever looks like one."""
    if not (shapes or _secrets):
        return text
    from datasources.redaction import MARK, redact_text  # its patterns take a while to compile

    if shapes:
        return redact_text(text, _secrets)
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MARK)
    return text


def note(text: str) -> None:
    """Tell something beside the result, on one line of stderr."""
    _echo(clean(mask(text)), err=True)


def result(text: str = "") -> None:
    """Print one line of the result."""
    _echo(clean(text))


def document(value: Any) -> None:
    """Print a result as JSON."""
    _echo(json_text(value, indent=2))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return JSON in ASCII; what it does not know becomes text, as do infinity and NaN."""
    import json  # not for every command

    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def table(columns: Sequence[str], rows: Iterable[Row], *, header: bool = True) -> None:
    """Print rows: drawn on a terminal, elsewhere as columns separated by two spaces or more."""
    if is_terminal(sys.stdout):
        _draw(*_cells(columns, rows), header=header)
    else:
        for line in lines(columns, rows, header=header):
            _echo(line)


def lines(columns: Sequence[str], rows: Iterable[Row], *, header: bool = True) -> Iterator[str]:
    """Yield the lines that `table` prints where there is no terminal."""
    names, cells, right = _cells(columns, rows)
    shown = [names, *cells] if header else cells
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        padded = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(padded).rstrip()


def _cells(
    columns: Sequence[str], rows: Iterable[Row]
) -> tuple[list[str], list[list[str]], set[int]]:
    """Return names and cells as text, and the columns to be aligned to the right."""
    right = {
        index
        for index, column in enumerate(zip(*rows, strict=True) if isinstance(rows, list) else ())
        if any(map(_is_number, column)) and all(c is None or _is_number(c) for c in column)
    }
    cells = [[clean(cell) for cell in row] for row in rows]
    return [clean(column) for column in columns], cells, right


def _echo(text: str, *, err: bool = False) -> None:
    import click  # `datasources plugins` starts without it

    click.echo(text, err=err)


def fields(values: Mapping[str, object], *, indent: str = "") -> None:
    """Print names with their values, one a line; tables in tables below their name."""
    width = max((len(clean(name)) for name in values), default=0)
    for name, value in values.items():
        label = f"{indent}{clean(name)}"
        if isinstance(value, Mapping) and value:
            _echo(f"{label}:")
            fields(value, indent=f"{indent}  ")
        elif _is_table(value):
            _echo(f"{label}:")
            columns = list(dict.fromkeys(key for row in value for key in row))
            table(columns, [[_cell(row.get(key)) for key in columns] for row in value])
        else:
            _echo(f"{label:<{len(indent) + width}}  {clean(_cell(value))}".rstrip())


def _draw(columns: Sequence[str], rows: list[list[str]], right: set[int], *, header: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, show_header=header, pad_edge=False)
    for index, name in enumerate(columns):
        justify: JustifyMethod = "right" if index in right else "left"
        drawn.add_column(Text(name), overflow="fold", justify=justify)
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console(highlight=False).print(drawn)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_table(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (Mapping, list, tuple)):
        if all(isinstance(item, (str, int, float)) for item in value) and not (
            isinstance(value, Mapping)
        ):
            return ", ".join(map(str, value))
        return json_text(value) if value else ""
    return value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if callable(isoformat) else str(value)


def moment(seconds: float | None) -> str:
    """Return Unix seconds as UTC; nothing for None."""
    from datetime import UTC, datetime

    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # beyond what a date can be
        return str(seconds)
