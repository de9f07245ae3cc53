"""Read secrets from a prompt or a pipe, never from an argument, and find those to be masked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output, stdin
from datasources.errors import DataSourceError, OptionError
from datasources.nested import leaves
from datasources.redaction import MARK, REFERENCE, is_secret_name, redact_text

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector
    from datasources.options import ConnectorOptions

    # Inside a connector class `type` is the name of an attribute, so type checkers need these.
    ConnectorClass = type[DataSourceConnector]
    OptionsClass = type[ConnectorOptions]


def is_secret_option(options_class: OptionsClass | None, name: str) -> bool:
    """Return True if an option is declared secret or, undeclared, has the name of a secret."""
    if options_class is None:
        return is_secret_name(name)
    from datasources.forms import option_fields

    declared = {
        alias: field.secret for field in option_fields(options_class) for alias in field.names
    }
    return declared.get(name, is_secret_name(name))


def check_no_secret(options_class: OptionsClass | None, name: str, value: str) -> None:
    """Raise OptionError if an argument holds a secret, as other users can see arguments."""
    without_references = REFERENCE.sub("", value)
    if not without_references:
        return
    looks_secret = redact_text(without_references).replace(MARK, "") != without_references
    if looks_secret or is_secret_option(options_class, name):
        raise OptionError(
            f"option {name!r} holds a secret and cannot be an argument, which other users and the "
            f"shell's history see; give '--secret {name}' to be asked for it, pipe it in with "
            f"--stdin, or refer to it: -o {name}='${{env:NAME}}' or '${{file:/path}}'"
        )


def looks_secret(value: Any) -> bool:
    """Return True if a value holds something that looks like a secret, such as a URL's password."""
    return any(isinstance(leaf, str) and redact_text(leaf) != leaf for leaf in leaves(value))


def secret_values(connector_class: ConnectorClass, options: Mapping[str, Any]) -> list[str]:
    """Return the secrets in a source's options, whose references are resolved already."""
    options_class = connector_class.options_class
    secrets = [
        text
        for name, value in options.items()
        for text in leaves(value)
        if isinstance(text, str)
        and not REFERENCE.fullmatch(text)
        and (is_secret_option(options_class, name) or redact_text(text) != text)
    ]
    if options_class is not None:
        with suppress(DataSourceError):  # using the source raises the same
            secrets += options_class.load(options).secret_values()
    return secrets


def prompt_secret(prompt: str, *, confirm: bool = False) -> str:
    """Ask for a secret without echo; where nobody can answer, read one line of stdin."""
    if output.is_interactive():
        return str(
            click.prompt(
                prompt,
                hide_input=True,
                confirmation_prompt=confirm,
                default="",
                show_default=False,
                err=True,
            )
        )
    return stdin.read_line()


def parse_table(text: str, where: str) -> dict[str, Any]:
    """Parse a table of options, in JSON if it begins with a brace, else in TOML.

    Args:
        text: The document.
        where: Its name in errors.

    Raises:
        OptionError: It is neither.
    """
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except (ValueError, RecursionError):
            raise OptionError(f"{where} is not valid JSON") from None
        return dict(table)
    from datasources.config import parse_toml

    return parse_toml(text, where)
