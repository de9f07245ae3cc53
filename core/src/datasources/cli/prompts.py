"""Ask somebody at a terminal for a source's options, as its connector declares them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from datasources.cli import output
from datasources.cli.suggestions import did_you_mean
from datasources.errors import DataSourceError, OptionError

if TYPE_CHECKING:
    from datasources.forms import OptionField
    from datasources.options import ConnectorOptions

    OptionsClass = type[ConnectorOptions]

Discover = Callable[[Mapping[str, Any]], Mapping[str, Sequence[str]]]
_MOST_CHOICES = 50  # values of an option that are listed on the terminal
Action = Literal["change", "store", "give up"]


def ask(question: str, default: str | None = None) -> str:
    """Ask for a text; Enter takes the default."""
    return str(click.prompt(question, default=default, err=True))


def ask_type(types: Sequence[str]) -> str:
    """Ask for one of the installed types."""
    if not types:
        raise OptionError("no connector is installed; pip install one, such as a datasources-… one")
    return str(click.prompt("Type of the source", type=click.Choice(types), err=True))


def ask_options(
    options_class: OptionsClass | None, discover: Discover | None = None
) -> dict[str, Any]:
    """Ask for options until they are valid, as far as that can be checked without connecting.

    The connector's alternatives are chosen first. Then it asks for required options and those of
    the chosen alternative, for those that the connector's own checks call for, and for the others
    that the user names.

    Args:
        options_class: The connector's; None if it declares no options.
        discover: Called with the answers so far, before an option whose values can be listed; the
            answers are then asked for in an order that lets it log in.
    """
    answers: dict[str, Any] = {}
    if options_class is None:
        _ask_undeclared(answers)
        return answers
    from datasources.forms import option_fields

    fields = [field for field in option_fields(options_class) if field.deprecated is None]
    chosen = _choose_alternative(options_class)
    needed_first = [field for field in fields if field.required or field.name in chosen]
    if discover and any(field.discovered for field in needed_first):
        # Secrets that no alternative and no mode calls for, such as the password of a user.
        tied = {*options_class.alternatives, *options_class.requires.values()}
        tied_names = {name for names in tied for name in names}
        logins = [f for f in fields if f.secret and not (f.required or f.name in tied_names)]
        needed_first = sorted([*needed_first, *logins], key=lambda field: field.discovered)
    _ask_fields(options_class, needed_first, answers, required=chosen, discover=discover)
    asked = {field.name for field in needed_first}
    while needed := _needed(options_class, fields, answers, asked):
        _ask_fields(options_class, [needed], answers)
        asked.add(needed.name)
    excluded = _excluded(options_class, chosen)
    others = [field for field in fields if field.name not in {*asked, *excluded}]
    if others:
        _ask_fields(options_class, _choose(others), answers, discover=discover)
    ask_until_valid(options_class, answers)
    return answers


def ask_until_valid(options_class: OptionsClass | None, answers: dict[str, Any]) -> set[str]:
    """Ask for options to be changed until all are valid together; return those changed."""
    changed: set[str] = set()
    while options_class is not None and (error := _check(options_class, answers)):
        output.echo_err(f"{error}.")
        changed |= change_option(options_class, answers)
    return changed


def change_option(options_class: OptionsClass | None, answers: dict[str, Any]) -> set[str]:
    """Ask which option is to be changed, and for its value; return those changed."""
    before = dict(answers)
    if options_class is None:
        _ask_undeclared(answers)
    else:
        fields = _fields_by_name(options_class)
        name = click.prompt("Option to change", value_proc=_name_of(fields), err=True)
        output.echo_err("Enter keeps what was given, '-' takes it away.")
        _ask_fields(options_class, [fields[name]], answers)
    return _differences(before, answers)


def edit_options(options_class: OptionsClass | None, answers: dict[str, Any]) -> set[str]:
    """Ask which options are to be changed until that is none; return those changed."""
    before = dict(answers)
    if options_class is None:
        _ask_undeclared(answers)
        return _differences(before, answers)
    fields = _fields_by_name(options_class)
    check_name = _name_of(fields)
    while name := click.prompt(
        "Option to change, or Enter to end",
        default="",
        show_default=False,
        value_proc=lambda text: check_name(text) if text else "",
        err=True,
    ):
        output.echo_err("Enter keeps what is set, '-' takes it away.")
        _ask_fields(options_class, [fields[name]], answers)
    ask_until_valid(options_class, answers)
    return _differences(before, answers)


def ask_named(
    options_class: OptionsClass | None, names: Iterable[str], answers: dict[str, Any]
) -> None:
    """Ask for options that `answers` lacks, without echo where they are secret."""
    if options_class is None:
        for name in names:
            answers[name] = click.prompt(f"{name} (not shown)", hide_input=True, err=True)
            output.register_secrets([answers[name]])
        return
    from datasources.forms import option_fields

    fields = [f for f in option_fields(options_class) if not set(f.names).isdisjoint(names)]
    _ask_fields(options_class, fields, answers)
    ask_until_valid(options_class, answers)


def _fields_by_name(options_class: OptionsClass) -> dict[str, OptionField]:
    """Return the options by their names and aliases, after listing them."""
    from datasources.forms import option_fields

    fields = option_fields(options_class)
    output.echo_err(f"Options: {', '.join(field.name for field in fields)}")
    return {name: field for field in fields for name in field.names}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def ask_after_failure(problem: str, *, can_store: bool) -> Action:
    """Ask what to do with a source that is not valid or does not work.

    Args:
        problem: What was not done for that, such as `'docs' was not added`.
        can_store: It is valid, so that it could be stored all the same.
    """
    actions: list[Action] = ["change", "store", "give up"] if can_store else ["change", "give up"]

    def parse(text: str) -> Action:
        matches = [a for a in actions if text and a.startswith(text.strip().lower())]
        if not matches:
            raise click.BadParameter(f"one of: {', '.join(actions)}")
        return matches[0]

    words = {"change": "change an option", "store": "store it all the same", "give up": "give up"}
    question = ", ".join(words[action] for action in actions[:-1])
    prompt = f"{problem}: {question}, or give up? [{'/'.join(actions)}]"
    action: Action = click.prompt(output.printable(prompt), value_proc=parse, err=True)
    return action


def parse_options(options_class: OptionsClass | None, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return typed texts as values of their options' types; unknown options stay texts.

    Raises:
        OptionError: A text is not of its option's type.
    """
    if options_class is None:
        return dict(texts)
    from datasources.forms import option_fields

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


def _needed(
    options_class: OptionsClass,
    fields: Iterable[OptionField],
    answers: Mapping[str, Any],
    asked: Collection[str],
) -> OptionField | None:
    """Return the first option that the connector's error names and that was not asked for yet."""
    if not (error := _check(options_class, answers)):
        return None
    unasked = {name: field for field in fields for name in field.names if field.name not in asked}
    named = re.findall(r"'([^']+)'", str(error))
    return next((unasked[name] for name in named if name in unasked), None)


def _choose_alternative(options_class: OptionsClass) -> tuple[str, ...]:
    """Ask which of the connector's alternatives is to be given; return its options."""
    alternatives = options_class.alternatives
    if not alternatives:
        return ()
    output.echo_err("")
    output.echo_err("Connect by:")
    for number, names in enumerate(alternatives, start=1):
        output.echo_err(f"  {number}) {', '.join(names)}")

    def parse(text: str) -> tuple[str, ...]:
        if text.isdecimal() and 1 <= int(text) <= len(alternatives):
            return alternatives[int(text) - 1]
        raise click.BadParameter(f"a number from 1 to {len(alternatives)}")

    chosen: tuple[str, ...] = click.prompt("Number", default="1", value_proc=parse, err=True)
    return chosen


def _excluded(options_class: OptionsClass, chosen: Collection[str]) -> set[str]:
    """Return the options that cannot be given beside the chosen alternative.

    These are the options of alternatives that have none in common with it, and those that would
    make a second alternative complete.
    """
    rest = [set(names).difference(chosen) for names in options_class.alternatives]
    lengths = [len(names) for names in options_class.alternatives]
    excluded = [left for left, n in zip(rest, lengths, strict=True) if len(left) in (1, n)]
    return set() if options_class.alternatives_overlap else set().union(*excluded)


def _choose(fields: Sequence[OptionField]) -> list[OptionField]:
    """Ask which of the optional options are to be set."""
    names = {name: field for field in fields for name in field.names}
    output.echo_err("")
    # Secrets first: they are needed more often than the rest.
    listed = sorted(fields, key=lambda field: not field.secret)
    output.echo_err(f"Optional: {', '.join(field.name for field in listed)}")

    def parse(text: str) -> list[OptionField]:
        words = re.split(r"[,\s]+", text.strip())
        if words[0].lower() in ("", "n", "no", "none"):
            return []
        if words[0].lower() in ("y", "yes", "all"):
            return list(fields)
        check_name = _name_of(names)
        return list({check_name(word): names[word] for word in words}.values())

    chosen: list[OptionField] = click.prompt(
        "Set optional ones, too? [names, all, or Enter for none]",
        default="",
        show_default=False,
        value_proc=parse,
        err=True,
    )
    return chosen


def _name_of(fields: Mapping[str, OptionField]) -> Any:
    """Return a check of an option's name, for `click.prompt`."""

    def check(text: str) -> str:
        if text not in fields:
            question = did_you_mean(text, fields) or f"options: {', '.join(fields)}"
            raise click.BadParameter(f"there is no option {text!r}; {question}")
        return text

    return check


def _ask_fields(
    options_class: OptionsClass,
    fields: Iterable[OptionField],
    answers: dict[str, Any],
    *,
    required: Collection[str] = (),
    discover: Discover | None = None,
) -> None:
    """Ask for options; `required` names those that are needed here, beside the required ones."""
    for declared in fields:
        field = dataclasses.replace(
            declared, required=declared.required or declared.name in required
        )
        if field.description:
            output.echo_err("")
            output.echo_err(field.description)
        if discover is not None and field.discovered:
            _show_choices(field, answers, discover)
        names = [name for name in field.names if name in answers]
        current = answers[names[0]] if names else None
        text = _prompt(options_class, field, answered=bool(names), current=current)
        if not text:
            continue
        for name in names:  # an answer may have been given by an alias
            del answers[name]
        if text != "-" or not names:
            answers[field.name] = field.parse(text)


def _show_choices(field: OptionField, answers: Mapping[str, Any], discover: Discover) -> None:
    """Show the values that an option can have, or why they are not known."""
    try:
        choices = discover(answers).get(field.name, [])
    except DataSourceError as exc:
        output.echo_err(output.printable(f"What there is cannot be listed: {exc}."))
        return
    more = f" and {len(choices) - _MOST_CHOICES} more" if len(choices) > _MOST_CHOICES else ""
    if choices:
        output.echo_err(output.printable(f"There are: {', '.join(choices[:_MOST_CHOICES])}{more}"))


def _prompt(
    options_class: OptionsClass, field: OptionField, *, answered: bool, current: Any = None
) -> str:
    """Ask until the text is a value that the connector takes; Enter changes nothing.

    Args:
        options_class: The connector's, whose validators the value has to pass.
        field: The option.
        answered: There is an answer from before, which `-` removes.
        current: That answer; shown unless it is a secret.
    """

    def check(text: str) -> str:
        if text and not (text == "-" and answered):
            if field.secret:
                output.register_secrets([text])
            if error := _check_value(options_class, field, text):
                raise click.BadParameter(error)
        elif field.required and not answered:
            raise click.BadParameter("it is required")
        return text

    shown = _format(current if answered and not field.secret else field.default)
    default = f" [{shown}]" if shown else ""
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


def _check_value(options_class: OptionsClass, field: OptionField, text: str) -> str | None:
    """Return what the connector's validators find wrong with one option, or None.

    Errors of options that were not given yet, and of all options together, come later.
    """
    from pydantic import ValidationError

    from datasources.redaction import REFERENCE, mask_secrets

    try:
        value = field.parse(text)
        if not REFERENCE.search(text):
            options_class.model_validate({field.name: value})
    except OptionError as exc:
        return str(exc)
    except ValidationError as exc:
        for error in exc.errors(include_input=False, include_url=False):
            if error["loc"] and error["loc"][0] in field.names:
                message = (
                    error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
                )
                message = mask_secrets(message, [text]) if field.secret else message
                return f"option {field.name!r}: {message[:1].lower()}{message[1:]}"
    return None


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


def _ask_undeclared(answers: dict[str, Any]) -> None:
    """Ask for the names and values of options that the connector does not declare.

    Any of the values may be a secret, so none is echoed.
    """
    output.echo_err("This connector does not declare its options: give their names, Enter to end.")
    while name := ask("Option", ""):
        answers[name] = click.prompt(f"{name} (not shown)", hide_input=True, err=True)
        output.register_secrets([answers[name]])
