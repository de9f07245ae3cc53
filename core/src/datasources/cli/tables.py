"""Print tables and fields: drawn on a terminal, elsewhere as aligned columns."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

from datasources.cli import output

if TYPE_CHECKING:
    from rich.console import JustifyMethod

_MIN_COLUMN_WIDTH = 16  # characters; a longer cell may be folded to this, but not to less
_FALLBACK_SIZE = (80, 24)  # of a terminal that does not tell its own

Row = Sequence[object]


class Size(int):
    """A number of bytes, shown as `131.7 MB`; a number all the same, so aligned to the right."""

    def __str__(self) -> str:
        amount, unit = float(self), "B"
        for larger_unit in ("kB", "MB", "GB", "TB", "PB"):
            if amount < 999.95:  # more would be rounded to 1000.0
                break
            amount, unit = amount / 1000, larger_unit
        return f"{int(self)} B" if unit == "B" else f"{amount:.1f} {unit}"


def size(count: int | None) -> int | None:
    """Return a number of bytes that is shown with a unit on a terminal, in full elsewhere."""
    if count is None or not output.is_terminal(output.stdout()):
        return count
    return Size(count)


def describe_size(count: int) -> str:
    """Return a number of bytes in full, on a terminal with a unit as well."""
    if count < 1000 or not output.is_terminal(output.stdout()):
        return str(count)
    return f"{Size(count)} ({count} bytes)"


def print_table(columns: Sequence[str], rows: Iterable[Row], *, header: bool = True) -> None:
    """Print rows; on a terminal that is too narrow for the columns, one value a line.

    Args:
        columns: The names.
        rows: The cells, as many as there are columns; None is an empty one.
        header: False for the later pages of one table.
    """
    if not output.is_terminal(output.stdout()):
        for line in format_table(columns, rows, header=header):
            output.echo_raw(line)
        return
    names, cells, right_aligned = _format_cells(columns, rows)
    width = shutil.get_terminal_size(_FALLBACK_SIZE).columns
    if _min_width(names, cells) <= width:
        _draw_table(names, cells, right_aligned, header=header, width=width)
    elif cells:
        _print_records(names, cells, first=header)
    else:
        output.echo_raw("  ".join(names))


def format_table(
    columns: Sequence[str], rows: Iterable[Row], *, header: bool = True
) -> Iterator[str]:
    """Yield the lines that `print_table` prints where stdout is no terminal.

    Columns are separated by two spaces or more.
    """
    names, cells, right_aligned = _format_cells(columns, rows)
    lines = [names, *cells] if header else cells
    widths = [max(map(_display_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [
            _pad(cell, width, right=index in right_aligned)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(padded).rstrip()


def print_fields(values: Mapping[str, object], *, indent: str = "") -> None:
    """Print names with their values, one a line; a nested table goes below its name, indented."""
    width = max((_display_width(output.printable(name)) for name in values), default=0)
    for name, value in values.items():
        label = f"{indent}{output.printable(name)}"
        if isinstance(value, Mapping) and value:
            output.echo_raw(f"{label}:")
            print_fields(value, indent=f"{indent}  ")
        elif _is_list_of_tables(value):
            output.echo_raw(f"{label}:")
            columns = list(dict.fromkeys(key for row in value for key in row))
            print_table(
                columns, [[_format_field(row.get(key)) for key in columns] for row in value]
            )
        else:
            text = output.printable(_format_field(value))
            output.echo_raw(f"{_pad(label, len(indent) + width)}  {text}".rstrip())


def _format_cells(
    columns: Sequence[str], rows: Iterable[Row]
) -> tuple[list[str], list[list[str]], set[int]]:
    """Return column names and cells as text, and the indexes of the right-aligned columns."""
    right_aligned = {
        index
        for index, column in enumerate(zip(*rows, strict=True) if isinstance(rows, list) else ())
        if any(map(_is_number, column)) and all(c is None or _is_number(c) for c in column)
    }
    cells = [[output.printable(cell) for cell in row] for row in rows]
    return [output.printable(column) for column in columns], cells, right_aligned


def _min_width(names: Sequence[str], cells: Iterable[Sequence[str]]) -> int:
    """Return the width of the drawn table when long cells are folded as far as they may be."""
    widths = (max(map(_display_width, column)) for column in zip(names, *cells, strict=True))
    # Rich draws a blank at each side and three between columns.
    return sum(min(width, _MIN_COLUMN_WIDTH) + 3 for width in widths) - 1


def _draw_table(
    names: Sequence[str],
    cells: Iterable[Sequence[str]],
    right_aligned: set[int],
    *,
    header: bool,
    width: int,
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, show_header=header, pad_edge=False)
    for index, name in enumerate(names):
        justify: JustifyMethod = "right" if index in right_aligned else "left"
        drawn.add_column(Text(name), overflow="fold", justify=justify)
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console(highlight=False, file=output.stdout(), width=width).print(drawn)


def _print_records(names: Sequence[str], cells: Iterable[Sequence[str]], *, first: bool) -> None:
    """Print a block of lines for each row, a value a line; nothing is left out."""
    label_width = max(map(_display_width, names))
    for row in cells:
        if not first:
            output.echo_raw("")
        first = False
        for name, cell in zip(names, row, strict=True):
            output.echo_raw(f"{_pad(name, label_width)}  {cell}".rstrip())


def _display_width(text: str) -> int:
    """Return the number of terminal cells that a text takes: two for a CJK character or emoji."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # only for such texts: rich takes long to import

    return cell_len(text)


def _pad(text: str, width: int, *, right: bool = False) -> str:
    blanks = " " * (width - _display_width(text))
    return blanks + text if right else text + blanks


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list_of_tables(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _format_field(value: object) -> object:
    """Return a value as people read it: yes or no, a list with commas, nested tables as JSON."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)) and all(isinstance(v, (str, int, float)) for v in value):
        return ", ".join(map(str, value))
    if isinstance(value, (Mapping, list, tuple)):
        return output.to_json(value) if value else ""
    return value
