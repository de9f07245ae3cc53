"""Read standard input as text."""

from __future__ import annotations

import sys
from typing import Literal

from datasources.errors import OptionError

BYTE_ORDER_MARK = "\ufeff"  # editors and PowerShell write it at the start of UTF-8 files


def read() -> str:
    """Return everything that is piped in, without a byte order mark.

    Raises:
        OptionError: Standard input is closed, cannot be read, or is not text.
    """
    return _call("read")


def read_line() -> str:
    """Return the next line without its end; an empty text at the end of the input.

    Raises:
        OptionError: As `read`.
    """
    return _call("readline").rstrip("\r\n")


def _call(method: Literal["read", "readline"]) -> str:
    if sys.stdin is None:  # as after `<&-` in a shell
        raise OptionError("standard input is closed")
    try:
        text: str = getattr(sys.stdin, method)()
    except UnicodeDecodeError:
        reason = f"it is not {sys.stdin.encoding} text"
    except OSError as exc:
        reason = exc.strerror or str(exc)
    else:
        return text.removeprefix(BYTE_ORDER_MARK)
    # Raised here: the error of the decoder holds the input, which may be a secret.
    raise OptionError(f"standard input cannot be read: {reason}")
