"""Take secrets out of values and texts that people or logs will see.

Options that a connector declares are masked by declaration, see `options`. This module is for
everything else: undeclared options, messages of drivers, URLs. In doubt it masks.

Linear time: every pattern has bounded repetitions or consumes what it scans, so that no input
makes it backtrack over all of a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from datasources.masking import MARK, mask_error, mask_secrets
from datasources.redaction_tables import (
    EVERYDAY_WORDS,
    HEADERS,
    INTRODUCERS,
    PEM,
    PUBLIC_NAME,
    QUALIFIER,
    QUOTE,
    SECRET_NAME,
    SHAPES,
    SYNTAX,
)

__all__ = [
    "MARK",
    "REFERENCE",
    "is_secret_name",
    "mask_error",
    "mask_secrets",
    "redact",
    "redact_text",
]

REFERENCE = re.compile(r"\$\{([a-z][a-z0-9_+.-]*):([^{}]+)\}")
"""A reference to a secret that is elsewhere, `${scheme:name}`; it is not a secret itself."""

_DEPTH = 64  # levels; values nested deeper, or in a circle, are masked whole
_Span = tuple[int, int]  # where a value begins and ends in a text

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # in camelCase
_SEPARATORS = re.compile(r"[\W_]+")

# Before a value: its sign, such as `=`, `: `, `=>`, `%3D`; `::` and `://` match to be passed over.
_SIGN = re.compile(r"::+|://|=[=>]?|:=?|<>|%(?:25){0,3}3[DA]", re.IGNORECASE)
_CODE = re.compile(r"^(?:25){0,3}[0-9A-F]{2}", re.IGNORECASE)  # `26` in `%26password%3D`
_SPACE = re.compile(r"\s{0,20}")
_NAME_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"

# Values. The beginning of a quoted one, such as `b'`, `SecretStr("` and `$$`; its content, in which
# quotes are escaped or doubled; and what follows a closing quote.
_QUOTED = re.compile(rf"(?:[A-Za-z_][\w.]{{0,40}}\()?[bBuUrRfFeE]{{0,2}}({QUOTE}|\$\$)")
_CONTENT = {q: re.compile(rf"(?:[^{q}\\]|\\.|{q}{q})*", re.DOTALL) for q in ("'", '"')}
_CLOSED = r"""(?:\\{0,8}["'])?(?:[\s,;:)\]}>]|\Z)"""
# Brackets, and texts in which brackets do not count.
_TOKEN = re.compile(r"""[()\[\]{}]|(\\{0,8}["'])(?:(?!\1)(?:\\.|[^\\]))*(?:\1|\Z)""", re.DOTALL)
# One word, up to the next field of a connection string, query or list of arguments.
_FIELD = r"""\s{0,5}\w[\w .\-]{0,40}="""
_WORD = re.compile(rf"""(?:(?!;{_FIELD}|[&,][\w.\-]{{1,40}}=|{QUOTE}{_CLOSED}|</|&amp;)\S)+""")
# A number or word after a quoted name, as in JSON.
_LITERAL = re.compile(r"[^\s,}\])]+")
# Percent-encoded, up to an encoded `&`, `;`, space or line end.
_ENCODED = re.compile(r"""(?:(?!%(?:25){0,3}(?:26|3B|20|0A))[^\s&;'"<>])+""", re.IGNORECASE)
# Several words, up to the next field; the last field may go on to the end of the text.
_PHRASE = re.compile(rf"[^;=&\r\n]{{1,200}}(?=;{_FIELD})")
_LAST_PHRASE = re.compile(rf"[^;=&\r\n]{{1,200}}(?=;{_FIELD}|;?\Z)")
_BRACED = re.compile(r"\{(?:[^}]|\}\})*\}?")  # of ODBC
_BLOCK = re.compile(r"[|>][-+]?\d?(?:\r?\n[ \t]+[^\n]*)+")  # of YAML
_ELEMENT = re.compile(r"[^<]*")
_LINE = re.compile(r"[^\r\n]*")
# Values that are no secrets.
_NOTHING = re.compile(
    r"""(?:none|null|nil|true|false|\*{3,}|…|\.{3})(?=[\s,;&)\]}'"]|\Z)""", re.IGNORECASE
)

# URLs. All up to a space or a closing quote; `://user:`; a port instead of a password.
_RUN = re.compile(rf"""(?:[^\s"']|["'](?!{_CLOSED}))*""")
_USER = re.compile(r"""://[^:/?#\s"'\[]*:""")
_PORT = re.compile(r"\d{1,5}(?=[/?#,;:)\]}>]|\Z)")
# A URL that is a whole value: spaces in it belong to the password.
_SPACED_URL = re.compile(
    r"(\s*[a-z][a-z0-9+.\-]{0,40}://[^:/?#\s]*:)(?!\d{1,5}(?:[/?#\s]|\Z)).*@",
    re.IGNORECASE | re.DOTALL,
)


def is_secret_name(name: str) -> bool:
    """Return True if an option of that name could hold a secret."""
    plain = _SEPARATORS.sub("_", _WORD_START.sub("_", name[-200:])).strip("_").lower()
    return bool(SECRET_NAME.search(plain)) and not PUBLIC_NAME.search(plain)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask the given secrets in a text, and everything that has the shape of a secret."""
    text = mask_secrets(text, secrets)
    text = PEM.sub(MARK, text)
    text = _mask_urls(text)
    for introducer in INTRODUCERS:
        text = _mask(text, introducer, _introduced_value)
    text = _mask(text, _SIGN, _assigned_value)
    lower = text.lower()
    for needle, pattern, replacement in SHAPES:
        if needle in lower:
            text = pattern.sub(replacement, text)
    return text


def redact(value: Any) -> Any:
    """Copy nested mappings and sequences with every value that could be a secret masked.

    Containers become dicts and lists; values of other types than JSON has are masked.
    """
    return _redact(value, _DEPTH)


def _redact(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        url = _SPACED_URL.match(value)
        return redact_text(f"{url[1]}{MARK}{value[url.end() - 1 :]}" if url else value)
    if depth and isinstance(value, Mapping):
        return _redact_mapping(value, depth - 1)
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return _redact_sequence(list(value), depth - 1)
    return MARK


def _redact_mapping(value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    copy: dict[Any, Any] = {}
    for key, item in value.items():
        secret = isinstance(key, str) and is_secret_name(key) and _may_be_secret(item)
        copy[_redact(key, 0)] = MARK if secret else _redact(item, depth)
    for key in ("name", "key", "id"):  # `{"name": "password", "value": "…"}`
        named = value.get(key)
        if isinstance(named, str) and is_secret_name(named) and _may_be_secret(value.get("value")):
            copy["value"] = MARK
    return copy


def _redact_sequence(items: list[Any], depth: int) -> list[Any]:
    copy = [_redact(item, depth) for item in items]
    for index, name in enumerate(items[:-1]):
        # `["password", "…"]` as a pair, `["--password", "…"]` anywhere.
        named = isinstance(name, str) and (len(items) == 2 or name.startswith("-"))
        if named and is_secret_name(name) and _may_be_secret(items[index + 1]):
            copy[index + 1] = MARK
    return copy


def _may_be_secret(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value) and not REFERENCE.fullmatch(value)
    return value is not None and not isinstance(value, bool) and value not in ([], {}, ())


def _mask_urls(text: str) -> str:
    """Mask passwords in URLs: all up to the last `@`, as one may contain `/`, `#` and `@`."""
    parts: list[str] = []
    done, end, at = 0, 0, -1
    position = text.find("://")
    while position >= 0:
        if position >= end:
            end = _match_end(_RUN, text, position)
            at = text.rfind("@", position, end)
        user = _USER.match(text, position)
        if user and user.end() < at and not _is_port(text, position, user.end()):
            parts += [text[done : user.end()], MARK]
            done = position = at
        position = text.find("://", position + 1)
    return "".join([*parts, text[done:]])


def _is_port(text: str, scheme_end: int, start: int) -> bool:
    web = text[max(0, scheme_end - 5) : scheme_end].lower().endswith(("http", "https", "ws", "wss"))
    return web and bool(_PORT.match(text, start))


def _mask(
    text: str, pattern: re.Pattern[str], find: Callable[[str, re.Match[str]], _Span | None]
) -> str:
    """Mask the span that `find` returns for each match of `pattern`."""
    parts: list[str] = []
    done = position = 0
    while match := pattern.search(text, position):
        span = find(text, match)
        position = match.end()
        if span is not None and span[0] < span[1]:
            parts += [text[done : span[0]], MARK]
            done = position = span[1]
    return "".join([*parts, text[done:]])


def _introduced_value(text: str, match: re.Match[str]) -> _Span | None:
    """Return the span of the value after an introducer, if its name is that of a secret."""
    if match["name"] and not is_secret_name(match["name"]):
        return None
    if match[0].startswith("<"):
        return match.end(), _match_end(_ELEMENT, text, match.end())
    return _value(text, match.end(), _WORD)


def _assigned_value(text: str, match: re.Match[str]) -> _Span | None:
    """Return the span of the value after a sign, if the name before it is that of a secret."""
    name, before, quoted = _name_before(text, match.start())
    sign, plain = match[0], name.lower().replace("-", "_").strip("_")
    if sign.startswith(("::", "://")) or before.endswith("${") or not is_secret_name(name):
        return None
    if plain == "token" and sign == ":" and SYNTAX.search(before):
        return None
    start = _match_end(_SPACE, text, match.end())
    if quoted:
        return _value(text, start, _LITERAL)
    if sign[0] == "%":
        return _value(text, start, _ENCODED)
    if plain in EVERYDAY_WORDS and not QUALIFIER.search(before):
        named = plain != "key" or before.endswith(("?", "&", ";"))
        return _value(text, start, _WORD) if "=" in sign and named else None
    if plain in HEADERS and sign == ":":
        return start, _end_of_header(text, start, before[-1:])
    return _value(text, start, _WORD, phrase=_LAST_PHRASE if before[-1:] == ";" else _PHRASE)


def _name_before(text: str, end: int) -> tuple[str, str, bool]:
    """Return the name that ends at `end`, some of what is before it, and whether it is quoted."""
    head = text[max(0, end - 120) : end].rstrip(" \t\r\n!<>")
    bare = head.removesuffix("]").rstrip("\\\"'")
    before = bare.rstrip(_NAME_CHARACTERS)
    name = bare[len(before) :]
    if before.endswith("%"):
        name = _CODE.sub("", name, count=1)
    return name, before, bare != head


def _end_of_header(text: str, start: int, quote: str) -> int:
    """Return where a header's value ends: at the quote it stands in, or with the line."""
    end = _match_end(_LINE, text, start)
    closing = text.find(quote, start, end) if quote in ("'", '"') else -1
    return end if closing < 0 else closing


def _value(
    text: str, start: int, bare: re.Pattern[str], *, phrase: re.Pattern[str] | None = None
) -> _Span | None:
    """Return the span of the value at `start`; None for a reference, None, true and the like."""
    if REFERENCE.match(text, start) or _NOTHING.match(text, start):
        return None
    if quoted := _QUOTED.match(text, start):
        end = _closing(text, quoted.end(), quoted[1])
        return None if REFERENCE.fullmatch(text, quoted.end(), end) else (quoted.end(), end)
    if text[start : start + 1] in ("{", "[", "("):
        return start, max(_balanced(text, start), _match_end(_BRACED, text, start))
    if block := _BLOCK.match(text, start):
        return start, block.end()
    if phrase and (words := phrase.match(text, start)):
        return start, words.end()
    word = bare.match(text, start)
    return (start, start + len(word[0].rstrip(",;)]}>"))) if word else None


def _closing(text: str, start: int, quote: str) -> int:
    """Return where a quoted text ends: at its quote, neither escaped nor doubled, or at the end."""
    if quote in _CONTENT:
        return _match_end(_CONTENT[quote], text, start)
    end = text.find(quote, start)
    while end > start and text[end - 1] == "\\":
        end = text.find(quote, end + 1)
    return len(text) if end < 0 else end


def _balanced(text: str, start: int) -> int:
    """Return where the bracket at `start` is closed, or the end of the text."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth -= 1
        if depth == 0:
            return token.end()
    return len(text)


def _match_end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start
