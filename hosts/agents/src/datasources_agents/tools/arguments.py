"""Check the arguments of a call, which a model has written, against the schema of its tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasources import OptionError
from datasources_agents.tools.schemas import Tool

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list of objects with 'name' and 'value'",
}
_MAX_TEXT = 100_000  # characters of one argument


def check_arguments(tool: Tool, arguments: Any) -> dict[str, Any]:
    """Return a value for each argument of a tool; None for one that is left out.

    Raises:
        OptionError: An argument is unknown, missing, or not of its type; values are not repeated.
    """
    if not isinstance(arguments, Mapping):
        raise OptionError(f"the arguments of {tool.name} must be an object")
    accepted = ", ".join(tool.arguments)
    if not arguments.keys() <= tool.arguments.keys():
        raise OptionError(f"{tool.name} has arguments that it does not take; it takes: {accepted}")
    for name, schema in tool.arguments.items():
        if not _is_valid(arguments.get(name), schema):
            raise OptionError(f"{tool.name}: {name!r} must be {_expected(schema)}")
    return {name: arguments.get(name) for name in tool.arguments}


def parameter_values(parameters: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return the values of a stored query's parameters by name."""
    values = {parameter["name"]: parameter["value"] for parameter in parameters or ()}
    if len(values) < len(parameters or ()):
        raise OptionError("'parameters' has a name twice")
    return values


def _is_valid(value: Any, schema: Mapping[str, Any]) -> bool:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_of_type(value, type_name) for type_name in types):
        return False
    if value is None:
        return True
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT
    if isinstance(value, list):
        return all(_is_valid(item, schema["items"]) for item in value)
    if isinstance(value, dict):
        properties = schema["properties"]
        return value.keys() == properties.keys() and all(
            _is_valid(value[name], properties[name]) for name in properties
        )
    minimum, maximum = schema.get("minimum", value), schema.get("maximum", value)
    return bool(minimum <= value <= maximum)


def _is_of_type(value: Any, type_name: str) -> bool:
    if isinstance(value, bool) and type_name != "boolean":
        return False
    return isinstance(value, _TYPES[type_name])


def _expected(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"] if value is not None)
    optional = isinstance(schema["type"], list)
    name = schema["type"][0] if optional else schema["type"]
    text = _NAMES[name]
    if "maximum" in schema:
        text += f" from {schema['minimum']} to {schema['maximum']}"
    if name == "string":
        text += f" of at most {_MAX_TEXT} characters"
    return text + (", or null" if optional else "")
