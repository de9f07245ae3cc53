"""Questions to somebody at a terminal, made from a connector's options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output
from datasources.errors import OptionError

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions
    from datasources.templates import OptionField

    OptionsClass = type[ConnectorOptions]


def ask(question: str, default: str | None = None) -> str:
    """Return an answer."""
    return str(click.prompt(question, default=default, err=True))


def ask_type(types: Sequence[str]) -> str:
    """Return one of the installed types."""
    if not types:
        raise OptionError("no connector is installed; pip install one, such as a datasources-… one")
    return str(click.prompt("Type of the source", type=click.Choice(types), err=True))


def ask_options(options_class: OptionsClass | None) -> dict[str, Any]:
    """Return options that are valid, as far as that can be told without connecting."""
    if options_class is None:
        return _ask_undeclared()
    from datasources.templates import option_fields

    fields = option_fields(options_class)
    answers: dict[str, Any] = {}
    _ask_fields([field for field in fields if field.required], answers)
    optional = [field for field in fields if not field.required]
    problem = _problem(options_class, answers)
    if optional and (problem or click.confirm("Set optional ones, too?", err=True)):
        _ask_fields(optional, answers)
        problem = _problem(options_class, answers)
    while problem:
        output.note(f"{problem}.")
        output.note("Once more; Enter keeps what was given, '-' takes it away.")
        _ask_fields(fields, answers)
        problem = _problem(options_class, answers)
    return answers


def parsed(options_class: OptionsClass | None, options: Mapping[str, str]) -> dict[str, Any]:
    """Return typed texts as the values that they stand for; unknown options as they are.

    Raises:
        OptionError: A text is not of its option's type.
    """
    if options_class is None:
        return dict(options)
    from datasources.templates import option_fields

    fields = {name: field for field in option_fields(options_class) for name in field.names}
    return {
        name: fields[name].parse(text) if name in fields else text for name, text in options.items()
    }


def _problem(options_class: OptionsClass, answers: Mapping[str, Any]) -> OptionError | None:
    try:
        options_class.check(answers)
    except OptionError as exc:
        return exc
    return None


def _ask_fields(fields: Sequence[OptionField], answers: dict[str, Any]) -> None:
    for field in fields:
        if field.description:
            output.note("")
            output.note(field.description)
        given = field.name in answers
        text = _prompt(field, given=given)
        if text == "-" and given:
            del answers[field.name]
        elif text:
            answers[field.name] = field.parse(text)
            if field.secret:
                output.hide([text])


def _prompt(field: OptionField, *, given: bool) -> str:
    """Return a text that `field.parse` takes; empty where nothing new is given."""

    def valid(text: str) -> str:
        if text and not (text == "-" and given):
            try:
                field.parse(text)
            except OptionError as exc:
                raise click.BadParameter(str(exc)) from None
        elif field.required and not given:
            raise click.BadParameter("it is required")
        return text

    hint = ", not shown; or a reference such as ${env:NAME}" if field.secret else ""
    default = f" [{_words(field.default)}]" if _words(field.default) else ""
    example = f", such as {_words(field.examples[0])}" if field.examples else ""
    if field.kind == "table":
        example = f", in JSON such as {json.dumps(field.example, default=str)}"
    kind = field.type_words + example + hint
    return str(
        click.prompt(
            output.clean(f"{field.name} ({kind}){default}"),
            default="",
            show_default=False,
            hide_input=field.secret,
            value_proc=valid,
            err=True,
        )
    )


def _words(value: object) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(getattr(value, "value", value))


def _ask_undeclared() -> dict[str, Any]:
    """Return options of a connector that does not declare them: names and hidden values."""
    output.note("This connector does not declare its options: give their names, Enter to end.")
    answers: dict[str, Any] = {}
    while name := ask("Option", ""):
        answers[name] = click.prompt(f"{name} (not shown)", hide_input=True, err=True)
        output.hide([answers[name]])
    return answers
