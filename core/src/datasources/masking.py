"""Mask given secrets in texts and exceptions, in every spelling that messages have for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import quote, quote_plus

MARK = "***REDACTED***"


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask the given secrets in a text, in each of its spellings.

    A secret of up to three characters is masked as a word only, as it would also be found inside
    ordinary words.
    """
    pattern = _pattern_of((secrets,) if isinstance(secrets, str) else tuple(secrets))
    return pattern.sub(MARK, text) if pattern else text


def mask_error(error: BaseException, secrets: Iterable[str]) -> None:
    """Mask the given secrets in an exception and in those it is chained to, in place.

    Masked are arguments, notes, and attributes that are texts, such as the file name of an
    `OSError`; an argument of another type whose `repr` shows a secret becomes that text, masked.
    A message that an exception keeps elsewhere stays as it is.
    """
    secrets = [secrets] if isinstance(secrets, str) else [s for s in secrets if s]
    if not secrets:
        return
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        with suppress(Exception):  # a driver's exception may refuse it
            _mask_exception(current, secrets)


@lru_cache(maxsize=64)  # a secret with many spellings takes a millisecond
def _pattern_of(secrets: tuple[str, ...]) -> re.Pattern[str] | None:
    spellings = {spelling for secret in secrets for spelling in _spellings(secret) if spelling}
    ordered = sorted(spellings, key=len, reverse=True)
    patterns = [re.escape(s) if len(s) > 3 else rf"(?<!\w){re.escape(s)}(?!\w)" for s in ordered]
    return re.compile("|".join(patterns)) if patterns else None


def _mask_exception(error: BaseException, secrets: list[str]) -> None:
    arguments = tuple(_mask_argument(argument, secrets) for argument in error.args)
    if arguments != error.args:
        error.args = arguments
    for name in ("strerror", "filename", "filename2", *vars(error)):
        value = getattr(error, name, None)
        if isinstance(value, str) and (masked := mask_secrets(value, secrets)) != value:
            setattr(error, name, masked)
    if hasattr(error, "__notes__"):
        error.__notes__ = [mask_secrets(note, secrets) for note in error.__notes__]


def _mask_argument(argument: object, secrets: list[str]) -> object:
    if isinstance(argument, str):
        return mask_secrets(argument, secrets)
    text = repr(argument)
    masked = mask_secrets(text, secrets)
    return argument if masked == text else masked


def _spellings(secret: str) -> set[str]:
    """Return a secret as it is, as URLs, markup, JSON and Python show it, and in parts."""
    encoded = secret.encode(errors="replace")
    spellings = {secret, secret.strip(), repr(encoded)[2:-1]}
    spellings |= _percent_encoded(encoded) | _in_markup(secret)
    # In a literal of SQL, and in single quotes of a shell.
    spellings |= {secret.replace("'", "''"), secret.replace("'", "'\"'\"'")}
    for _ in range(2):  # as in the `repr` of a JSON text
        spellings |= {escape(form) for form in spellings for escape in _ESCAPES}
    if not re.search(r"://|[=;]", secret):
        # Where a URL is taken apart its password may end early, and messages show the pieces.
        spellings |= {part for part in re.split(r"[/#?@:]", secret) if len(part) > 3}
    return spellings


_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),  # as PHP writes it
    lambda text: repr(text)[1:-1],
    # `repr` of a longer text: its quotes decide which of those inside are escaped.
    lambda text: text.replace("\\", "\\\\").replace("'", "\\'"),
    lambda text: ascii(text)[1:-1],
)


def _percent_encoded(secret: bytes) -> set[str]:
    """Return the percent-encoded spellings of a secret: encoders differ in what they encode."""
    forms = {quote_plus(secret)}
    forms |= {quote(secret, safe=safe) for safe in ("", "/", "!$'()*,;:@/", "!$&'()*+,;=:@/?")}
    return forms | {re.sub("%..", lambda code: code[0].lower(), form) for form in forms}


def _in_markup(secret: str) -> set[str]:
    """Return the spellings in HTML and XML, with and without their quotes escaped."""
    escaped = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    forms = {
        escaped.replace('"', quotation).replace("'", apostrophe)
        for quotation in ('"', "&quot;", "&#34;")
        for apostrophe in ("'", "&apos;", "&#39;", "&#x27;")
    }
    return forms | {form.encode("ascii", "xmlcharrefreplace").decode() for form in forms}
