"""Keep results small: cut long texts, and count how many entries have room."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")  # UTF-8, and so JSON, cannot hold one


def size_of(value: Any) -> int:
    """Return the bytes of a value as `json.dumps` writes it, which escapes all but ASCII."""
    return len(json.dumps(value))


def count_fitting(entries: Iterable[Any], max_bytes: int) -> int:
    """Return how many of the entries, from the first on, a JSON array of `max_bytes` can hold."""
    size = count = 0
    for entry in entries:
        size += size_of(entry) + 2  # the comma and the space after an entry
        if size > max_bytes:
            break
        count += 1
    return count


class Cutter:
    """Cuts texts in JSON values, which then end in `…`, and counts those that it has changed.

    Lone surrogates, as in names of files that are no UTF-8, become U+FFFD.

    Args:
        max_length: Characters that a text may have.
    """

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.count = 0

    def cut(self, value: Any) -> Any:
        """Return a value with every text in it cut, names of objects included."""
        if isinstance(value, str):
            return self._cut_text(value)
        if isinstance(value, list):
            return [self.cut(item) for item in value]
        if isinstance(value, dict):
            return {self._cut_text(name): self.cut(item) for name, item in value.items()}
        if isinstance(value, int) and value.bit_length() > 4 * self.max_length:
            return self._cut_text(hex(value))
        return value

    def cut_cell(self, value: Any) -> Any:
        """Return a value of a row cut; a long list or object becomes the beginning of its JSON."""
        if isinstance(value, (list, dict)) and size_of(value) > self.max_length:
            return self._cut_text(json.dumps(value))
        return self.cut(value)

    def _cut_text(self, text: str) -> str:
        cut = text if len(text) <= self.max_length else text[: self.max_length] + "…"
        cut = _SURROGATE.sub("\ufffd", cut)
        self.count += cut != text
        return cut
