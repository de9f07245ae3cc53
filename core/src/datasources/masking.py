"""Mask given secrets in texts and exceptions, in every spelling that messages have for them."""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import quote, quote_plus

MARK = "***REDACTED***"


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask the given secrets in a text, in each of its spellings.

    A secret of up to three characters or four letters, and a piece of one, is masked as a word
    only, as it would also be found inside ordinary words.
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
    pieces = {piece for secret in secrets for piece in _pieces(secret)} - spellings
    ordered = sorted(spellings | pieces, key=len, reverse=True)
    patterns = [
        rf"(?<!\w){re.escape(text)}(?!\w)" if _is_short(text) or text in pieces else re.escape(text)
        for text in ordered
    ]
    return re.compile("|".join(patterns)) if patterns else None


def _is_short(secret: str) -> bool:
    """Return True if ordinary words have a secret inside them, as `connection` has `conn`."""
    return len(secret) <= 3 or (len(secret) == 4 and secret.isalpha())


def _mask_exception(error: BaseException, secrets: list[str]) -> None:
    arguments = tuple(_mask_argument(argument, secrets) for argument in error.args)
    if arguments != error.args:
        error.args = arguments
    for name in ("strerror", "filename", "filename2", *vars(error)):
        value = getattr(error, name, None)
        if isinstance(value, str) and (masked := mask_secrets(value, secrets)) != value:
            setattr(error, name, masked)
        elif isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            for key, text in value.items():  # as `OptionError.fields`
                value[key] = mask_secrets(text, secrets)
    if hasattr(error, "__notes__"):
        error.__notes__ = [mask_secrets(note, secrets) for note in error.__notes__]


def _mask_argument(argument: object, secrets: list[str]) -> object:
    if isinstance(argument, str):
        return mask_secrets(argument, secrets)
    text = repr(argument)
    masked = mask_secrets(text, secrets)
    return argument if masked == text else masked


def _spellings(secret: str) -> set[str]:
    """Return a secret as it is, and as URLs, markup, JSON, Python and headers show it."""
    encoded = secret.encode(errors="replace")
    spellings = {secret, secret.strip(), repr(encoded)[2:-1]}
    if len(secret) > 3:
        spellings |= {b64encode(encoded).decode(), urlsafe_b64encode(encoded).decode()}
    spellings |= _percent_encoded(encoded) | _in_markup(secret)
    # In a literal of SQL, in single quotes of a shell, and in a field of CSV.
    spellings |= {secret.replace("'", "''"), secret.replace("'", "'\"'\"'")}
    spellings.add(secret.replace('"', '""'))
    for _ in range(2):  # as in the `repr` of a JSON text
        spellings |= {escape(form) for form in spellings for escape in _ESCAPES}
    return spellings


def _pieces(secret: str) -> set[str]:
    """Return the pieces of a secret that messages show where a URL was taken apart too early."""
    if re.search(r"://|[=;]", secret):
        return set()
    return {piece for piece in re.split(r"[/#?@:]", secret) if len(piece) > 3}


_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),  # as PHP writes it
    lambda text: repr(text)[1:-1],
    # `repr` of a longer text: its quotes decide which of those inside are escaped.
    lambda text: text.replace("\\", "\\\\").replace("'", "\\'"),
    lambda text: ascii(text)[1:-1],
    lambda text: text.encode("unicode_escape").decode(),
)


def _percent_encoded(secret: bytes) -> set[str]:
    """Return the percent-encoded spellings of a secret: encoders differ in what they encode."""
    forms = {quote_plus(secret)}
    forms |= {quote(secret, safe=safe) for safe in ("", "/", "!$'()*,;:@/", "!$&'()*+,;=:@/?")}
    forms |= {quote(form, safe="") for form in forms}  # a URL within a URL
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
