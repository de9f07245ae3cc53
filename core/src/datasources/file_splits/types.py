"""Find the types of the columns of delimited text: those that lose nothing of any value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_NUMBER = r"-?(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?"
# In the order of preference. A number with a leading zero is text, and so is one with more digits
# than the type holds.
_TYPES: tuple[tuple[Any, str], ...] = (
    (pa.bool_(), "true|false|True|False|TRUE|FALSE"),
    (pa.int64(), "-?[1-9][0-9]{0,17}|0"),
    (pa.float64(), f"{_NUMBER}|NaN|-?(?:Infinity|inf)"),
    (pa.date32(), "[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    (pa.timestamp("us"), _TIME),
    (pa.timestamp("us", "UTC"), f"{_TIME}(?:Z|[-+][0-9]{{2}}:?[0-9]{{2}})"),
)


class ColumnTypes:
    """The types that the columns of a text can have, by the rows that were seen.

    Args:
        names: The columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._possible = [list(_TYPES) for _ in names]
        self._has_values = [False for _ in names]

    def refine(self, table: Any) -> None:
        """Leave out the types that a value of these rows, which are text, does not have."""
        for number, column in enumerate(table.columns):
            if column.null_count < len(column):
                self._has_values[number] = True
                possible = self._possible[number]
                self._possible[number] = [kind for kind in possible if _fits(column, *kind)]

    def schema(self) -> Any:
        """Return the schema: for each column the preferred type that is left, text if none is."""
        return pa.schema(
            (name, possible[0][0] if possible and has_values else pa.string())
            for name, possible, has_values in zip(
                self.names, self._possible, self._has_values, strict=True
            )
        )


def keeps_values(table: Any, schema: Any) -> bool:
    """Return True if columns of text can have the types of a schema without loss."""
    patterns = dict(_TYPES)
    return all(
        field.type not in patterns or _matches(column, patterns[field.type])
        for column, field in zip(table.columns, schema, strict=True)
    )


def _fits(column: Any, type_: Any, pattern: str) -> bool:
    if not _matches(column, pattern):
        return False
    try:
        column.cast(type_)
    except pa.ArrowInvalid:  # such as the 30th of February
        return False
    return True


def _matches(column: Any, pattern: str) -> bool:
    """Return True if all values of a column match; null does."""
    matches = pc.match_substring_regex(column, f"^(?:{pattern})$")
    has_line_feed = pc.any(pc.match_substring(column, "\n")).as_py()
    return pc.all(matches).as_py() is not False and not has_line_feed
