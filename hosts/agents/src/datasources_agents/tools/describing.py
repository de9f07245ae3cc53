"""Describe an item: its columns page by page, and what else its connector says."""

from __future__ import annotations

from typing import Any

from datasources import Access, CursorError, FetchRequest, OptionError
from datasources.json_values import to_iso_time, to_json_value
from datasources_agents.tools.arguments import parameter_values
from datasources_agents.tools.bounding import Cutter, count_fitting, size_of
from datasources_agents.tools.results import ROOM, item_head

_MAX_TEXT = 500  # characters of a name, a comment, a definition
_MAX_COLUMN = 4 << 10  # bytes of one column
_FACTS_ROOM = 12 << 10  # bytes of all but the columns


async def describe_item(access: Access, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what is known about an item, and with `statistics` the figures of its columns."""
    source, item = arguments["source"], arguments["item"]
    start = _start(arguments["cursor"])
    values = parameter_values(arguments["parameters"])
    if arguments["detail"] == "statistics":
        figures = await access.statistics(source, item, parameters=values)
        columns = [{"name": name, **column.to_dict()} for name, column in figures.items()]
        facts: dict[str, Any] = {}
    else:
        if values:
            raise OptionError("'parameters' are for detail 'statistics'; columns need no values")
        facts = _json(await access.get_metadata(source, item))
        columns = facts.pop("columns", None) or []
    return item_head(FetchRequest(source, item)) | _bounded(facts, columns, start)


def _start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if cursor.isascii() and cursor.isdecimal() and len(cursor) < 10:
        return int(cursor)
    raise CursorError("the cursor is not one of this description; describe the item again")


def _json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON, without what is unknown, and with times in ISO 8601."""
    return {
        name: to_iso_time(value) if _is_time(name, value) else to_json_value(value)
        for name, value in metadata.items()
        if value is not None
    }


def _is_time(name: str, value: Any) -> bool:
    return name.endswith("_at") and isinstance(value, (int, float)) and not isinstance(value, bool)


def _bounded(facts: dict[str, Any], columns: list[Any], start: int) -> dict[str, Any]:
    cutter = Cutter(_MAX_TEXT)
    facts, columns = cutter.cut(facts), cutter.cut(columns)
    notes = []
    large = [column for column in columns if size_of(column) > _MAX_COLUMN]
    if large:
        columns = [_name_only(column) for column in columns]
        notes.append(f"Of {len(large)} columns with many facts only names and types are shown.")
    if cutter.count:
        notes.append(f"Texts of more than {_MAX_TEXT} characters are cut, and end in '…'.")
    left_out = _leave_out(facts)
    if left_out:
        notes.append(f"{left_out} large facts are left out: the connector has more to say.")
    part = columns[start:]
    count = count_fitting(part, ROOM - size_of(facts))
    end = start + count
    if end < len(columns):
        notes.append(f"Columns {start + 1} to {end} of {len(columns)}; next_cursor has the others.")
    described: dict[str, Any] = {"facts": facts, "columns": part[:count]}
    described["next_cursor"] = str(end) if end < len(columns) and count else None
    return described | ({"notes": notes} if notes else {})


def _name_only(column: Any) -> Any:
    """Return name and type of a column that is too large."""
    if size_of(column) <= _MAX_COLUMN or not isinstance(column, dict):
        return column
    return {name: column[name] for name in ("name", "type") if isinstance(column.get(name), str)}


def _leave_out(facts: dict[str, Any]) -> int:
    """Remove the largest facts until the others have room; return how many were removed."""
    removed = 0
    while size_of(facts) > _FACTS_ROOM:
        del facts[max(facts, key=lambda name: size_of(facts[name]))]
        removed += 1
    return removed
