"""How secrets come in, never as an argument, and what is masked when they might come out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from datasources.cli import output
from datasources.errors import DataSourceError, OptionError
from datasources.nested import leaves
from datasources.redaction import MARK, REFERENCE, is_secret_name, redact_text

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector
    from datasources.options import ConnectorOptions

    # `type` alone reads as a connector's.
    ConnectorClass = type[DataSourceConnector]
    OptionsClass = type[ConnectorOptions]


def is_secret_option(options_class: OptionsClass | None, name: str) -> bool:
    """Tell whether an option is secret: by declaration, else by its name."""
    if options_class is None:
        return is_secret_name(name)
    from datasources.templates import option_fields

    known = {alias: field.secret for field in option_fields(options_class) for alias in field.names}
    return known.get(name, is_secret_name(name))


def refuse_clear(options_class: OptionsClass | None, name: str, value: str) -> None:
    """Raise OptionError if an argument holds a secret: other users see arguments."""
    bare = REFERENCE.sub("", value)
    if not bare:
        return
    holds = redact_text(bare).replace(MARK, "") != bare
    if holds or is_secret_option(options_class, name):
        raise OptionError(
            f"option {name!r} holds a secret and cannot be an argument, which other users and the "
            f"shell's history see; give '--secret {name}' to be asked for it, pipe it in with "
            f"--stdin, or refer to it: -o {name}='${{env:NAME}}' or '${{file:/path}}'"
        )


def texts(connector: ConnectorClass, options: Mapping[str, Any]) -> list[str]:
    """Return the secrets in a source's options, references resolved."""
    cls = connector.options_class
    found = [
        text
        for name, value in options.items()
        for text in leaves(value)
        if isinstance(text, str)
        and not REFERENCE.fullmatch(text)
        and (is_secret_option(cls, name) or redact_text(text) != text)
    ]
    if cls is not None:
        with suppress(DataSourceError):  # using the source will raise it
            found += cls.load(options).secret_values()
    return found


def ask(prompt: str, *, confirm: bool = False) -> str:
    """Return a secret typed without echo, or the first line of a pipe."""
    if output.attended():
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
    return sys.stdin.readline().rstrip("\r\n")


def read_table(text: str, where: str) -> dict[str, Any]:
    """Parse a table of options, JSON or TOML."""
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except ValueError:
            raise OptionError(f"{where} is not valid JSON") from None
        return dict(table)
    from datasources.config import parse_toml

    return parse_toml(text, where)
