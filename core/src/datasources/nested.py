"""Walk nested option values: every check, mask and substitution enters the same containers.

A container is a mapping (its values; keys are not entered), a list, tuple, set, frozenset or deque,
an instance of a dataclass, or a pydantic model (its fields, extra ones included). Every other
value is a leaf, `SecretStr` included: whoever looks for secrets opens it. If two walkers entered
different containers, a secret could stand where one of them does not look.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_COLLECTIONS = (list, tuple, set, frozenset, deque)
_SCALARS = (str, int, float, type(None))  # nearly all leaves; found before slower questions


def leaves(value: Any) -> Iterator[Any]:
    """Yield the leaves of a nested value in order, depth first.

    A container that contains itself, or that several others contain, is entered once.
    """
    entered: dict[int, Any] = {}  # by id; holding a container keeps its id from being given again
    waiting = [value]
    while waiting:
        current = waiting.pop()
        parts = _parts(current)
        if parts is None:
            yield current
        elif id(current) not in entered:
            entered[id(current)] = current
            waiting += reversed(list(parts.values() if isinstance(parts, Mapping) else parts))


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Copy a nested value with every leaf replaced by what `function` returns for it.

    Mappings, dataclasses and models become dicts, and all other containers lists: options at rest
    are JSON, which has no others.
    """
    parts = _parts(value)
    if parts is None:
        return function(value)
    if isinstance(parts, Mapping):
        return {key: map_leaves(part, function) for key, part in parts.items()}
    return [map_leaves(part, function) for part in parts]


def _parts(value: Any) -> Mapping[Any, Any] | Iterable[Any] | None:
    """Return the values that a container holds; None for a leaf."""
    if isinstance(value, _SCALARS):
        return None
    if isinstance(value, (Mapping, *_COLLECTIONS)):
        return value
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        # Not `vars`: a dataclass with slots has none.
        return {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
    if hasattr(value, "model_fields_set"):  # a pydantic model; pydantic is not imported here
        return {**vars(value), **(value.model_extra or {})}
    return None
