"""Annotated examples of sources, made from the options of their connectors."""

from __future__ import annotations

import enum
import itertools
import json
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from datasources import option_rules
from datasources.errors import OptionError
from datasources.forms import OptionField, option_fields
from datasources.models import Limits
from datasources.options import check_examples

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector
    from datasources.options import ConnectorOptions

_WIDTH = 96
# Options that are added to the required ones, to find out which others a source needs.
_MAX_ADDED = 2


def template(type_name: str, connector_class: type[DataSourceConnector]) -> str:
    """Return an annotated example of a source, in TOML as `read_settings` takes it.

    Required options have example values, and so have those of the first alternative and others
    without which the source would not be valid; the rest is commented out.
    """
    source_id = f"my_{type_name}"
    options_class = connector_class.options_class
    lines = [
        *_comment(
            f"A source of type {type_name}. Replace the example values, and remove '# ' before "
            "settings that you want. Secrets are best left where they are and referred to, as "
            "${env:NAME} or ${file:/path}."
        ),
        "",
        f"[sources.{source_id}]",
        f"type = {_toml(type_name)}",
        f"name = {_toml('My ' + type_name.replace('_', ' '))}",
        '# metadata = { owner = "me" }',
        "",
        *_limits(),
        "",
        f"[sources.{source_id}.options]",
    ]
    if options_class is None:
        lines += _undeclared(type_name)
    else:
        lines += _declared(type_name, options_class)
        lines += _samples(options_class.sample_identifiers)
    return "\n".join(lines).rstrip() + "\n"


def extra_template(name: str, type_name: str, connector_class: type[DataSourceConnector]) -> str:
    """Return a text of a connector's `template_extras`.

    Raises:
        OptionError: The connector has no text of that name.
    """
    extras = connector_class.template_extras
    if name not in extras:
        offered = ", ".join(sorted(extras)) or "none"
        raise OptionError(
            f"the connector {type_name!r} has no template {name!r}; beside its options it offers: "
            f"{offered}"
        )
    return extras[name]


def _limits() -> list[str]:
    limits = ", ".join(
        f"{name} = {_toml(getattr(Limits(), name))}"
        for name in ("max_bytes", "max_rows", "timeout")
    )
    return [
        *_comment('What one fetch may bring, in place of [policy.limits]; "none" lifts a limit.'),
        f"# limits = {{ {limits} }}",
    ]


def _undeclared(type_name: str) -> list[str]:
    return [
        *_comment(
            "This connector does not declare its options; its documentation names them. "
            "They are written like these:"
        ),
        '# url = "https://example.com"',
        f'# password = "${{env:{type_name.upper()}_PASSWORD}}"',
    ]


def check_template(type_name: str, connector_class: type[DataSourceConnector]) -> None:
    """Check that the template of a connector is a valid source, with examples in place of references.

    Raises:
        OptionError: It is not: a validator refuses the options of the template, or every example
            of one of them.
    """
    (source,) = tomllib.loads(template(type_name, connector_class))["sources"].values()
    if connector_class.options_class is None:
        return
    try:
        check_examples(connector_class.options_class, source["options"])
    except OptionError as exc:
        raise OptionError(
            f"the template of type {type_name!r} is not a valid source: {exc}"
        ) from None


def _declared(type_name: str, options_class: type[ConnectorOptions]) -> list[str]:
    fields = [
        field for field in option_fields(options_class, type_name) if field.deprecated is None
    ]
    used = _names_in_example(fields, options_class)
    lines = _alternatives(options_class.alternatives)
    for option in fields:
        more = f" For example: {_examples(option)}." if _examples(option) else ""
        about = f"{option.type_words[:1].upper()}{option.type_words[1:]}. {_need(option, options_class)}"
        mark = "" if option.name in used else "# "
        lines += [
            *_comment(option.description),
            *_comment(about + more),
            f"{mark}{option.name} = {_toml(option.example)}",
            "",
        ]
    return lines


def _alternatives(alternatives: option_rules.Alternatives) -> list[str]:
    if not alternatives:
        return []
    numbered = enumerate(map(", ".join, alternatives), start=1)
    lines = [line for number, names in numbered for line in _comment(f"  {number}) {names}")]
    return [*_comment("One of these is needed; the first one is set here:"), *lines, ""]


def _need(option: OptionField, options_class: type[ConnectorOptions]) -> str:
    """Return a sentence that says if an option has to be given."""
    if option.required:
        return "Required."
    alternatives = enumerate(options_class.alternatives, start=1)
    numbers = [f"{number})" for number, names in alternatives if option.name in names]
    return f"Part of {', '.join(numbers)}." if numbers else f"Optional{_default(option)}."


def _names_in_example(
    fields: Sequence[OptionField], options_class: type[ConnectorOptions]
) -> set[str]:
    """Return the options of the first alternative, and the fewest others that make it valid."""
    first = options_class.alternatives[0] if options_class.alternatives else ()
    used = [option for option in fields if option.required or option.name in first]
    values = {option.name: option.default for option in fields} | _example_of(used)
    needed = option_rules.required_with(options_class, values)
    used += [option for option in fields if option.name in needed and option not in used]
    others = [option for option in fields if option not in used]
    checks: list[Callable[[dict[str, Any]], object]] = [
        lambda example: check_examples(options_class, example),
        options_class.check,  # for options whose validators take none of their examples
    ]
    for check, count in itertools.product(checks, range(_MAX_ADDED + 1)):
        for added in itertools.combinations(others, count):
            example = _example_of([*used, *added])
            try:
                check(example)
            except OptionError:
                continue
            return set(example)
    return {option.name for option in used}


def _example_of(options: Iterable[OptionField]) -> dict[str, Any]:
    return {option.name: option.example for option in options}


def _samples(samples: Iterable[tuple[str, str]]) -> list[str]:
    lines = [
        line
        for identifier, meaning in samples
        for line in _comment(f"  {identifier}  ({meaning})" if meaning else f"  {identifier}")
    ]
    return [*_comment("What can be fetched, for example:"), *lines] if lines else []


def _default(option: OptionField) -> str:
    if option.default in (None, "", [], (), {}):
        return ""
    return f"; {_toml(option.default)} unless given"


def _examples(option: OptionField) -> str:
    """Return the examples after the first, which is the value in the template."""
    return ", ".join(_toml(value) for value in option.examples[1:])


def _comment(text: str) -> list[str]:
    indent = "  " if text.startswith("  ") else ""
    return textwrap.wrap(
        re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", " ", text.strip()),
        _WIDTH,
        initial_indent=f"# {indent}",
        subsequent_indent=f"# {indent}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _toml(value: Any) -> str:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping):
        pairs = (f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    # A JSON string is also a TOML string, except that TOML does not allow DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
