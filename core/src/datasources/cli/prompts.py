"""Ask somebody at a terminal for a source's options, as its connector declares them."""

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
    """Ask for a text; Enter takes the default."""
    return str(click.prompt(question, default=default, err=True))


def ask_type(types: Sequence[str]) -> str:
    """Ask for one of the installed types."""
    if not types:
        raise OptionError("no connector is installed; pip install one, such as a datasources-… one")
    return str(click.prompt("Type of the source", type=click.Choice(types), err=True))


def ask_options(options_class: OptionsClass | None) -> dict[str, Any]:
    """Ask for options until they are valid, as far as that can be checked without connecting."""
    if options_class is None:
        return _ask_undeclared()
    from datasources.templates import option_fields

    fields = option_fields(options_class)
    answers: dict[str, Any] = {}
    _ask_fields([field for field in fields if field.required], answers)
    optional = [field for field in fields if not field.required]
    error = _check(options_class, answers)
    if optional and (error or click.confirm("Set optional ones, too?", err=True)):
        _ask_fields(optional, answers)
        error = _check(options_class, answers)
    while error:
        output.echo_err(f"{error}.")
        output.echo_err("Once more; Enter keeps what was given, '-' takes it away.")
        _ask_fields(fields, answers)
        error = _check(options_class, answers)
    return answers


def parse_options(options_class: OptionsClass | None, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return typed texts as values of their options' types; unknown options stay texts.

    Raises:
        OptionError: A text is not of its option's type.
    """
    if options_class is None:
        return dict(texts)
    from datasources.templates import option_fields

    fields = {name: field for field in option_fields(options_class) for name in field.names}
    return {
        name: fields[name].parse(text) if name in fields else text for name, text in texts.items()
    }


def _check(options_class: OptionsClass, options: Mapping[str, Any]) -> OptionError | None:
    """Return what is wrong with the options, or None."""
    try:
        options_class.check(options)
    except OptionError as exc:
        return exc
    return None


def _ask_fields(fields: Sequence[OptionField], answers: dict[str, Any]) -> None:
    for field in fields:
        if field.description:
            output.echo_err("")
            output.echo_err(field.description)
        answered = field.name in answers
        text = _prompt(field, answered=answered)
        if text == "-" and answered:
            del answers[field.name]
        elif text:
            answers[field.name] = field.parse(text)
            if field.secret:
                output.register_secrets([text])


def _prompt(field: OptionField, *, answered: bool) -> str:
    """Ask until the text is one that `field.parse` takes; Enter, an empty text, changes nothing.

    Args:
        field: The option.
        answered: There is an answer from before, which `-` removes.
    """

    def check(text: str) -> str:
        if text and not (text == "-" and answered):
            try:
                field.parse(text)
            except OptionError as exc:
                raise click.BadParameter(str(exc)) from None
        elif field.required and not answered:
            raise click.BadParameter("it is required")
        return text

    default = f" [{_format(field.default)}]" if _format(field.default) else ""
    return str(
        click.prompt(
            output.printable(f"{field.name} ({_describe_type(field)}){default}"),
            default="",
            show_default=False,
            hide_input=field.secret,
            value_proc=check,
            err=True,
        )
    )


def _describe_type(field: OptionField) -> str:
    """Return the option's type, an example, and how to give a secret."""
    example = f", such as {_format(field.examples[0])}" if field.examples else ""
    if field.kind == "table":
        example = f", in JSON such as {json.dumps(field.example, default=str)}"
    hint = ", not shown; or a reference such as ${env:NAME}" if field.secret else ""
    return f"{field.type_words}{example}{hint}"


def _format(value: object) -> str:
    """Return a value as it would be typed; None as empty text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_format, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(getattr(value, "value", value))


def _ask_undeclared() -> dict[str, Any]:
    """Ask for the names and values of options that the connector does not declare.

    Any of the values may be a secret, so none is echoed.
    """
    output.echo_err("This connector does not declare its options: give their names, Enter to end.")
    answers: dict[str, Any] = {}
    while name := ask("Option", ""):
        answers[name] = click.prompt(f"{name} (not shown)", hide_input=True, err=True)
        output.register_secrets([answers[name]])
    return answers
