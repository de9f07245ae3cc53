"""Describe errors in one sentence."""

from __future__ import annotations

import click

from datasources.cli import output
from datasources.errors import ConnectorError, DataSourceError


def describe(exc: BaseException, *, output_failed: bool = False, hint: str = "") -> str:
    """Return an error as one line, secrets masked.

    Args:
        exc: The error. Of an unexpected one, also of a connector, the type is named, and whatever
            looks like a secret is masked as well.
        output_failed: It was raised by writing the output.
        hint: Added to an unexpected error.
    """
    if isinstance(exc, click.Abort):
        return "the input ended before it was complete"
    if isinstance(exc, click.ClickException):
        return output.printable(output.mask(join_lines(exc.format_message())))
    text = join_lines(str(exc))
    if isinstance(exc, DataSourceError):
        # The registry wraps what a connector raises unexpectedly.
        wraps = type(exc) is ConnectorError and not isinstance(
            exc.__cause__, DataSourceError | None
        )
        message = output.printable(output.mask(text, shapes=wraps)) or type(exc).__name__
        return message + (hint if wraps else "")
    if isinstance(exc, OSError) and exc.strerror and (output_failed or exc.filename is not None):
        file = "the output" if output_failed else repr(exc.filename)
        return output.printable(output.mask(f"{file}: {exc.strerror}", shapes=True))
    unexpected = f"unexpected {type(exc).__name__}" + (f": {text}" if text else "")
    return output.printable(output.mask(unexpected, shapes=True)) + hint


def join_lines(text: str) -> str:
    """Return a text with every run of white space replaced by a blank."""
    return " ".join(text.split())
