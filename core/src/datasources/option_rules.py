"""Rules among the options of a connector: alternatives, and options that call for others.

A connector declares them in `ConnectorOptions.alternatives` and `requires`. Validation, the JSON
Schema, templates and prompts all read them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasources.option_types import option_names

Alternatives = tuple[tuple[str, ...], ...]
Condition = str | tuple[str, Any]
"""An option that is given, or an option and the value that it has."""
Requirements = Mapping[Condition, tuple[str, ...]]


def check_declaration(options_class: Any) -> None:
    """Check that the rules of a class can be kept.

    Raises:
        TypeError: A rule names no option of the class, or one alternative contains another.
    """
    where = options_class.__name__
    alternatives: Alternatives = options_class.alternatives
    names = [name for alternative in alternatives for name in alternative]
    for condition, needed in options_class.requires.items():
        names += [_split(condition)[0], *needed]
    for name in names:
        if name not in options_class.model_fields:
            raise TypeError(f"{where}: {name!r} in alternatives or requires is not an option")
    for index, alternative in enumerate(alternatives):
        others = [*alternatives[:index], *alternatives[index + 1 :]]
        if any(set(alternative) <= set(other) for other in others):
            raise TypeError(f"{where}: alternative {alternative!r} is contained in another one")


def find_fault(options_class: Any, given: Iterable[str], values: Mapping[str, Any]) -> str:
    """Return a sentence that says which rule is not kept; "" if all are.

    Args:
        options_class: Declares the rules.
        given: The options that have a value of their own.
        values: The values of these, and of options with a default.
    """
    given = set(given)
    return _alternatives_fault(options_class, given) or _requirements_fault(
        options_class, given, values
    )


def required_with(options_class: Any, values: Mapping[str, Any]) -> list[str]:
    """Return the options that the given ones call for, in order, also those that are given."""
    names: dict[str, None] = {}
    for condition, needed in options_class.requires.items():
        given = [name for name, value in values.items() if value is not None]
        if _holds(condition, given, values):
            names |= dict.fromkeys(needed)
    return list(names)


def describe(alternatives: Alternatives) -> str:
    """Return alternatives as `'dsn', or 'host' and 'user'`."""
    return ", or ".join(_listed(alternative) for alternative in alternatives)


def add_to_schema(options_class: Any, schema: dict[str, Any]) -> None:
    """Add the rules to the JSON Schema of the class: `oneOf` or `anyOf`, and `if` with `then`."""
    properties = schema.get("properties", {})

    def keys(names: Iterable[str]) -> list[str]:
        fields = options_class.model_fields
        aliases = {name: option_names((name, fields[name])) for name in names}
        return [next((n for n in aliases[name] if n in properties), name) for name in aliases]

    if options_class.alternatives:
        word = "anyOf" if options_class.alternatives_overlap else "oneOf"
        schema[word] = [_given_schema(keys(names)) for names in options_class.alternatives]
    conditions = []
    for condition, needed in options_class.requires.items():
        name, has_value, value = _split(condition)
        (key,) = keys([name])
        info = options_class.model_fields[name]
        condition_schema = _given_schema([key])
        if has_value:
            is_default = not info.is_required() and _equal(info.default, value)
            condition_schema = {"properties": {key: {"const": value}}}
            condition_schema |= {} if is_default else {"required": [key]}
        conditions.append({"if": condition_schema, "then": _given_schema(keys(needed))})
    if conditions:
        schema["allOf"] = [*schema.get("allOf", []), *conditions]


def _given_schema(keys: Sequence[str]) -> dict[str, Any]:
    """Return a schema of objects that have these properties, and none of them null."""
    return {
        "required": list(keys),
        "properties": {key: {"not": {"type": "null"}} for key in keys},
    }


def _alternatives_fault(options_class: Any, given: set[str]) -> str:
    alternatives: Alternatives = options_class.alternatives
    if not alternatives:
        return ""
    possible = f"give either {describe(alternatives)}"
    complete = [set(names) for names in alternatives if given.issuperset(names)]
    if len(complete) > 1 and not options_class.alternatives_overlap:
        shared = set.intersection(*complete)
        rivals = [name for names in complete for name in sorted(names - shared)]
        return f"options {_listed(dict.fromkeys(rivals))} exclude one another; {possible}"
    if complete:
        return ""
    counts = [len(given.intersection(names)) for names in alternatives]
    if max(counts) == 0:
        return possible
    if counts.count(max(counts)) > 1:
        begun = {name for names in alternatives for name in names if name in given}
        return f"{possible}; given: {_listed(sorted(begun))}"
    nearest = alternatives[counts.index(max(counts))]
    return f"{_missing([name for name in nearest if name not in given])}; {possible}"


def _requirements_fault(options_class: Any, given: set[str], values: Mapping[str, Any]) -> str:
    for condition, needed in options_class.requires.items():
        missing = [name for name in needed if name not in given]
        if missing and _holds(condition, given, values):
            name, has_value, value = _split(condition)
            reason = f"{name!r} of {value!r}" if has_value else repr(name)
            return f"{_missing(missing)}, which goes with {reason}"
    return ""


def _missing(names: Sequence[str]) -> str:
    return f"option{'s'[: len(names) - 1]} {_listed(names)} {'are' if names[1:] else 'is'} missing"


def _split(condition: Condition) -> tuple[str, bool, Any]:
    """Return the option of a condition, and the value that it must have if there is one."""
    return (
        (condition, False, None)
        if isinstance(condition, str)
        else (condition[0], True, condition[1])
    )


def _holds(condition: Condition, given: Iterable[str], values: Mapping[str, Any]) -> bool:
    name, has_value, value = _split(condition)
    return _equal(values.get(name), value) if has_value else name in given


def _equal(actual: Any, value: Any) -> bool:
    return bool(actual == value or getattr(actual, "value", None) == value)


def _listed(names: Iterable[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} and {last}" if first else last
