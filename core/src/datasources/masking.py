"""Mask given secrets in texts and exceptions, in every spelling that messages have for them."""

from __future__ import annotations

import json
import operator
import re
import sys
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

MARK = "***REDACTED***"
_DEPTH = 20  # containers inside one another; what is deeper is masked as text
# One byte or character that is written by its number: `%3D`, `=3D`, `\x3d`, `\075`, `&#61;`,
# `\u003D`, the last three also for characters beyond ASCII.
_NUMBERED = re.compile(
    r"(?:%(?:25)*|=|\\+x)([0-9A-Fa-f]{2})|\\+([0-3][0-7]{2})"
    r"|\\+u([0-9A-Fa-f]{4})|&#[xX]([0-9A-Fa-f]{1,6});|&#([0-9]{1,7});"
)
_SCHEMES = {"postgres", "postgresql", "mysql", "http", "https", "jdbc"}  # no pieces of secrets
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{6,}")


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask the given secrets in a text, in each of its spellings.

    A secret of up to three characters or four letters, and a piece of one, is masked as a word
    only, as it would also be found inside ordinary words. A word of base64 is masked if a secret is
    in what it encodes, as in a header of `Basic` with `user:secret`.
    """
    secrets = (secrets,) if isinstance(secrets, str) else tuple(secrets)
    text = _mask_numbered(_mask_encoded(text, secrets), secrets)
    # Spellings are at least as long as the secret, so those of one that is too long need no look.
    spellings = {
        spelling
        for secret in secrets
        if len(secret.strip()) <= len(text)
        for spelling in _spellings(secret)
        if spelling and spelling in text
    }
    pieces = {piece for secret in secrets for piece in _pieces(secret) if piece in text} - spellings
    if not spellings and not pieces:
        return text
    return _pattern_of(frozenset(spellings), frozenset(pieces)).sub(MARK, text)


def mask_error(error: BaseException, secrets: Iterable[str]) -> BaseException:
    """Mask the given secrets in an exception and in those it is chained to, in place.

    Masked are arguments, notes, and attributes, such as the file name of an `OSError`, also inside
    of dicts, lists, tuples and sets, which are replaced by masked copies. An object of another type
    whose `repr` shows a secret becomes that text, masked. A cause, a context or a member of a group
    whose message cannot be changed is replaced by an exception with its masked message.

    Returns:
        The exception; or the one that would replace it, if it cannot be changed itself.
    """
    secrets = [secrets] if isinstance(secrets, str) else [s for s in secrets if s]
    if not secrets:
        return error
    seen: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen[id(current)] = current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        _mask_exception(current, secrets)
    replacements: dict[int, BaseException] = {}
    replacement = _without_secrets(error, secrets, replacements)
    for current in seen.values():
        with suppress(Exception):  # a driver's exception may refuse it
            _replace_linked(current, secrets, replacements)
    for current in list(replacements.values()):  # they are linked to what the others were
        _replace_linked(current, secrets, replacements)
    return replacement


def _replace_linked(
    error: BaseException, secrets: list[str], replacements: dict[int, BaseException]
) -> None:
    suppressed = error.__suppress_context__
    for name in ("__cause__", "__context__"):
        linked = getattr(error, name)
        if linked is None:
            continue
        replacement = _without_secrets(linked, secrets, replacements)
        if replacement is not linked:
            setattr(error, name, replacement)
    error.__suppress_context__ = suppressed  # setting the cause has set it


def _without_secrets(
    error: BaseException, secrets: list[str], replacements: dict[int, BaseException]
) -> BaseException:
    """Return a masked exception, or another one in its place if it shows a secret nevertheless."""
    if id(error) in replacements:
        return replacements[id(error)]
    replacement = error
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (a driver's exception may be broken itself)
        text = ""
    masked = mask_secrets(text, secrets)
    if isinstance(error, BaseExceptionGroup):
        members = [_without_secrets(member, secrets, replacements) for member in error.exceptions]
        if masked != text or any(map(operator.is_not, members, error.exceptions)):
            message = mask_secrets(error.message, secrets)
            replacement = BaseExceptionGroup(message, members)
    elif masked != text:
        replacement = RuntimeError(f"{type(error).__name__}: {masked}")
    if replacement is not error:
        replacement.__cause__, replacement.__context__ = error.__cause__, error.__context__
        replacement.__suppress_context__ = error.__suppress_context__
        replacement.__traceback__ = error.__traceback__
    replacements[id(error)] = replacement
    return replacement


@lru_cache(maxsize=64)
def _pattern_of(spellings: frozenset[str], pieces: frozenset[str]) -> re.Pattern[str]:
    ordered = sorted(spellings | pieces, key=len, reverse=True)
    patterns = [
        rf"(?<!\w){re.escape(text)}(?!\w)" if _is_short(text) or text in pieces else re.escape(text)
        for text in ordered
    ]
    return re.compile("|".join(patterns))


def _mask_encoded(text: str, secrets: Iterable[str]) -> str:
    """Mask the words of base64 that have a secret in what they encode."""
    encoded = [secret.encode(errors="replace") for secret in secrets if len(secret) > 3]
    shortest = min(map(len, encoded), default=0) * 4 // 3
    if not shortest or len(text) < shortest:
        return text

    def masked(match: re.Match[str]) -> str:
        word = match[0]
        if len(word) < shortest:
            return word
        end = len(word) - (1 if len(word) % 4 == 1 else 0)  # one character is no byte
        plain = b64decode(f"{word[:end]}==", altchars=b"-_")
        return MARK if any(secret in plain for secret in encoded) else word

    return _BASE64.sub(masked, text)


def _mask_numbered(text: str, secrets: Iterable[str]) -> str:
    """Mask the secrets of which some bytes or characters are written by their numbers.

    Bytes are those of UTF-8, or of Latin-1 where they are not.
    """
    if not _NUMBERED.search(text):
        return text
    parts: list[str] = []
    places: list[int] = []  # in the text, of each character of the parts
    position = 0
    for match in _NUMBERED.finditer(text):
        parts += text[position : match.start()], _character(match)
        places += range(position, match.start() + 1)
        position = match.end()
    plain = "".join([*parts, text[position:]])
    places += range(position, len(text) + 1)
    spans: list[tuple[int, int]] = []
    for form in {form for secret in secrets if not _is_short(secret) for form in _as_bytes(secret)}:
        spans += (
            (places[match.start()], places[match.end()])
            for match in re.finditer(re.escape(form), plain)
        )
    return _mask_spans(text, spans)


def _mask_spans(text: str, spans: Iterable[tuple[int, int]]) -> str:
    masked: list[str] = []
    position = 0
    for start, end in sorted(spans):
        if start >= position:
            masked += text[position:start], MARK
        position = max(position, end)
    return "".join([*masked, text[position:]])


def _character(match: re.Match[str]) -> str:
    """Return the character that a match of `_NUMBERED` stands for."""
    byte, octal, *code_points = match.groups()
    if byte or octal:
        return chr(int(byte, 16) if byte else int(octal, 8))
    hexadecimal = code_points[0] or code_points[1]
    number = int(hexadecimal, 16) if hexadecimal else int(code_points[2])
    return chr(number) if number <= sys.maxunicode else "\ufffd"


def _as_bytes(secret: str) -> set[str]:
    r"""Return a secret as it is, and with each byte of it in UTF-8 as a character.

    Beyond the first 65,536 characters, one is two of `\u`.
    """
    wide = secret.encode("utf-16-be", errors="replace")
    units = [int.from_bytes(wide[i : i + 2]) for i in range(0, len(wide), 2)]
    return {secret, secret.encode(errors="replace").decode("latin-1"), "".join(map(chr, units))}


def _is_short(secret: str) -> bool:
    """Return True if ordinary words have a secret inside them, as `connection` has `conn`."""
    return len(secret) <= 3 or (len(secret) == 4 and secret.isalpha())


def _mask_exception(error: BaseException, secrets: list[str]) -> None:
    with suppress(Exception):  # a driver's exception may refuse each of these
        arguments = _mask_value(error.args, secrets)
        if arguments is not error.args:
            error.args = arguments
    for name in ("strerror", "filename", "filename2", "__notes__", *getattr(error, "__dict__", ())):
        with suppress(Exception):
            value = getattr(error, name, None)
            if (masked := _mask_value(value, secrets)) is not value:
                setattr(error, name, masked)


def _mask_value(value: Any, secrets: list[str], depth: int = _DEPTH) -> Any:
    """Return a value itself if it shows no secret, else a masked copy, or its text, masked."""
    if value is None or isinstance(value, (bool, int, float, BaseException)):
        return value  # exceptions among the attributes are those of the chain
    if isinstance(value, str):
        masked = mask_secrets(value, secrets)
        return value if masked == value else masked
    if depth and type(value) is dict:
        copy = {
            _mask_value(key, secrets, 0): _mask_value(part, secrets, depth - 1)
            for key, part in value.items()
        }
        parts = [*copy, *copy.values()]
        same = len(copy) == len(value) and all(map(operator.is_, parts, [*value, *value.values()]))
        return value if same else copy
    if depth and type(value) in (list, tuple, set, frozenset):
        parts = [_mask_value(part, secrets, depth - 1) for part in value]
        return value if all(map(operator.is_, parts, value)) else type(value)(parts)
    text = repr(value)
    masked = mask_secrets(text, secrets)
    return value if masked == text else masked


@lru_cache(maxsize=256)  # a secret with many spellings takes a millisecond
def _spellings(secret: str) -> set[str]:
    """Return a secret as it is, and as URLs, markup, JSON, Python and headers show it."""
    encoded = secret.encode(errors="replace")
    spellings = {secret, secret.strip(), repr(encoded)[2:-1]}
    if len(secret) > 3:
        spellings |= {b64encode(encoded).decode(), urlsafe_b64encode(encoded).decode()}
        spellings |= {encoded.hex(), encoded.hex().upper()}
    # UTF-8 that was taken for Latin-1 or cp1252, and lines that were joined.
    spellings |= {encoded.decode("latin-1"), encoded.decode("cp1252", errors="replace")}
    spellings.add(" ".join(secret.split()))
    spellings |= _percent_encoded(encoded) | _in_markup(secret)
    # In a literal of SQL, in single quotes of a shell, and in a field of CSV.
    spellings |= {secret.replace("'", "''"), secret.replace("'", "'\"'\"'")}
    spellings |= {secret.replace('"', '""'), secret.replace("}", "}}")}  # the second is ODBC's
    for _ in range(2):  # as in the `repr` of a JSON text
        spellings |= {escape(form) for form in spellings for escape in _ESCAPES}
    return spellings


def _pieces(secret: str) -> set[str]:
    """Return the pieces of a secret that messages show where a URL was taken apart too early."""
    if re.search(r"://|[=;]", secret):
        return set()
    pieces = {piece for piece in re.split(r"[/#?@:]", secret) if len(piece) > 3}
    return {piece for piece in pieces if piece.lower() not in _SCHEMES}


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
