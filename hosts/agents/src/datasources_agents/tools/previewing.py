"""Preview an item: as many rows as have room, with long values cut."""

from __future__ import annotations

from typing import Any

from datasources import Access, FetchRequest, Preview
from datasources_agents.tools.arguments import parameter_values
from datasources_agents.tools.bounding import Cutter, count_fitting, size_of
from datasources_agents.tools.results import ROOM, item_head

_ROWS = 10  # by default
_LENGTHS = (1000, 200, 40, 8)  # characters that values are cut to, until half of the rows have room
_MAX_NAME = 200  # characters of a column's name
_MAX_COLUMNS = 100
_NAMES_ROOM = ROOM // 4  # bytes of the names of columns; one row always has the room that is left


async def preview_item(access: Access, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the first rows of an item."""
    source, item = arguments["source"], arguments["item"]
    values = parameter_values(arguments["parameters"])
    preview = await access.preview(source, item, arguments["rows"] or _ROWS, parameters=values)
    return item_head(FetchRequest(source, item, parameters=values)) | _bounded(preview)


def _bounded(preview: Preview) -> dict[str, Any]:
    values = preview.to_dict()
    notes = Cutter(_MAX_NAME).cut(values["notes"])[:3]
    names = Cutter(_MAX_NAME).cut(values["columns"])
    width = count_fitting(names[:_MAX_COLUMNS], _NAMES_ROOM)
    if width < len(names):
        notes.append(
            f"Columns after the first {width} of {len(names)} are left out; describe_item names "
            "them, and fetch_item writes all."
        )
    columns = names[:width]
    rows, cut_notes = _fit_rows([row[:width] for row in values["rows"]], ROOM - size_of(columns))
    left_out = len(values["rows"]) - len(rows)
    return {
        "columns": columns,
        "rows": rows,
        "truncated": values["truncated"] or left_out > 0,
        "notes": notes + cut_notes,
    }


def _fit_rows(rows: list[list[Any]], max_bytes: int) -> tuple[list[list[Any]], list[str]]:
    """Return the rows that have room in `max_bytes`, and sentences about what is left out."""
    for length in _LENGTHS:
        cutter = Cutter(length)
        cut = [[cutter.cut_cell(cell) for cell in row] for row in rows]
        count = count_fitting(cut, max_bytes)
        if 2 * count >= len(rows):
            break
    notes = []
    if cutter.count:
        notes.append(
            f"Values of more than {length} characters are cut, and end in '…'; fetch_item writes "
            "them whole."
        )
    if count < len(rows):
        notes.append(
            f"{len(rows) - count} of {len(rows)} rows are left out, as a result has 32 KiB; "
            "fetch_item writes all."
        )
    return cut[:count], notes
