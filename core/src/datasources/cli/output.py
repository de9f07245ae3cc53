"""Print results on stdout and everything else on stderr, control characters escaped.

Names, cells and messages come from other systems. Control characters, escape sequences, marks
that change the direction of text and lone surrogates are printed as backslash escapes, so that
they cannot act on the terminal.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# C0 and C1 controls, bidirectional marks, line and paragraph separators, lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MIN_SECRET_LENGTH = 4  # characters; masking shorter ones would leave no message readable

_secrets: set[str] = set()
_flags: set[str] = set()
_redirected: list[TextIO | None] = []  # the stdout of the process while `sys.stdout` is stderr


class ClosedOutput(io.TextIOBase):
    """Stands for a stdout that the caller has closed: a result that is lost is an error."""

    def write(self, _text: str) -> int:
        """Raise the error of a closed file descriptor."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def printable(value: object) -> str:
    r"""Return a value as one line of text, control characters escaped.

    None is empty text. Bytes are `\x00ff`, as PostgreSQL writes them.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _format_bytes(value)
    text = "" if value is None else str(value)
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def register_secrets(secrets: Iterable[str]) -> None:
    """Mask these secrets in everything that is written to stderr from now on."""
    _secrets.update(secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH)


def reset() -> None:
    """Remove the secrets and flags that an earlier command of this process has set."""
    _secrets.clear()
    _flags.clear()


def set_verbose() -> None:
    """Show logs and tracebacks from now on."""
    _flags.add("verbose")


def is_interactive() -> bool:
    """Return True if somebody at a terminal can answer questions."""
    return is_terminal(sys.stdin)


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if a stream is a terminal; None is a stream that the caller has closed."""
    return stream is not None and stream.isatty()


def stdout() -> TextIO | None:
    """Return the stream for results; None for one that is closed, outside of the command."""
    return _redirected[0] if _redirected else sys.stdout


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send the output of plugins to stderr; results still go to stdout.

    It is for the whole process, as imports have a thread of their own; an inner block changes
    nothing.
    """
    if _redirected:
        yield
        return
    _redirected.append(sys.stdout)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = _redirected.pop()


def is_verbose() -> bool:
    """Return True if logs and tracebacks are shown."""
    return "verbose" in _flags


def mask(text: str, *, shapes: bool = False) -> str:
    """Mask the registered secrets in a text; with `shapes`, also anything that looks like one."""
    if not (shapes or _secrets):
        return text
    from datasources.redaction import mask_secrets, redact_text  # compiling it takes a while

    return redact_text(text, _secrets) if shapes else mask_secrets(text, _secrets)


def echo(text: str = "") -> None:
    """Print one line of the result on stdout."""
    _write_line(printable(text))


def echo_err(text: str) -> None:
    """Print one line on stderr, secrets masked."""
    _write_line(printable(mask(text)), err=True)


def echo_raw(text: str, *, newline: bool = True) -> None:
    """Print a part of the result that is printable as it is, such as JSON in ASCII."""
    _write_line(text, newline=newline)


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    _write_line(to_json(value, indent=2))


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON in ASCII; infinity, NaN and types unknown to JSON become text."""
    import json  # not every command needs these

    from datasources.json_values import to_json_value

    return json.dumps(to_json_value(value), indent=indent, allow_nan=False)


def to_iso_time(seconds: float | None, *, timespec: str = "auto") -> str | float | None:
    """Return Unix seconds as an ISO 8601 time in UTC, the form of receipts and the audit log.

    None stays None. A number beyond the years that `datetime` can hold stays a number.

    Args:
        seconds: The time.
        timespec: As `datetime.isoformat` takes it.
    """
    from datetime import UTC, datetime

    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec)
    except (ValueError, OverflowError, OSError):
        return seconds


def format_time(seconds: float | None) -> str:
    """Return Unix seconds as `to_iso_time` does, without fractions; None as empty text."""
    return printable(to_iso_time(seconds, timespec="seconds"))


def _format_bytes(value: bytes | bytearray | memoryview) -> str:
    return rf"\x{bytes(value).hex()}"


def _write_line(text: str, *, err: bool = False, newline: bool = True) -> None:
    import click  # `datasources plugins` starts without it

    stream = sys.stderr if err else stdout()
    if stream is not None:
        click.echo(text, file=stream, nl=newline)
