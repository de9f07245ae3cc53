"""Take secrets out of values and texts that people or logs will see.

Options that a connector declares are masked by declaration, see `options`.  This module is for
everything else: undeclared options, drivers' messages, URLs.  It rather masks too much.

Time grows with the length of a text and no faster: what a pattern reads is bounded, or consumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MARK = "***REDACTED***"

REFERENCE = re.compile(r"\$\{([a-z][a-z0-9_+.-]*):([^{}]+)\}")
"""A reference to a secret kept elsewhere: `${scheme:name}`; it is not a secret itself."""

_DEPTH = 64  # what is nested deeper, or in a circle, is masked whole
_Span = tuple[int, int]

# Names.  Their words are joined by one of these, or by humps.
_J = r"[_\-. ]?"
_WORDS = rf"""
    pass{_J}(?:words?|wds?|phrases?|codes?|wort)? | p(?:as)?s?wd | kennwort | secrets? | tokens?
    | cred(?:ential)?s? | keys? | signatures? | auth(?:orization|entication)? | bearer | cookies?
    | (?:access|auth(?:orization)?|security|verification|recovery|backup){_J}codes? | mnemonic
    | conn(?:ection)?{_J}str(?:ing)?s? | conn{_J}info | database{_J}ur[il]s? | sess(?:ion)?{_J}id
    | webhook(?:{_J}ur[il])? | certificate{_J}data | service{_J}account(?:{_J}info)?
    | kube{_J}config"""
_SHORT_WORDS = rf"""
    (?:db|my|user)?pw | sas(?:{_J}(?:ur[il]|query))? | sig | hmac | salt | dsn | jwt | t?otp | cvv
    | cvc | pin(?:{_J}code)? | pem | pfx | p12 | jks"""
_SUFFIX = rf"""(?:{_J}(?:value|data|text|string|str|hex|base64|b64|json|pem|der|hash|plain|raw|old
    |new|current|previous|confirm(?:ation)?|(?:file{_J})?contents?|\d{{1,9}})){{0,3}}"""
_SECRET_NAME = re.compile(rf"(?:{_WORDS}|(?<![a-z0-9])(?:{_SHORT_WORDS})){_SUFFIX}$", re.VERBOSE)
_PUBLIC_NAME = re.compile(
    rf"""^keys$
    | (?:public|primary|foreign|partition|sort|cache|row|object|range|unique|shard|join)_?keys?
      {_SUFFIX}$
    | (?:^|_)(?:max|min|num|n|total|prompt|completion|input|output|cached)_tokens?$""",
    re.VERBOSE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_JOINT = re.compile(r"[\W_]+")

# What stands before a value in a text.
_QUOTE = r"""\\{0,8}["']"""
_SIGN = re.compile(r"::+|://|=[=>]?|:=?|<>|%(?:25){0,3}3[DA]", re.IGNORECASE)
_PERCENT_CODE = re.compile("%[0-9A-F]{2}")
_CODE = re.compile(r"^(?:25){0,3}[0-9A-F]{2}", re.IGNORECASE)  # `%26password%3D`
_SPACE = re.compile(r"\s{0,20}")
_INTRODUCERS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # An element of XML; an option of a command line, also as a list; a pair in brackets.
        r"<(?P<name>[\w:.\-]{1,80})(?:\s[^<>]{0,200})?>",
        rf"(?<![\w\-])(?P<name>--?[a-z][\w\-]{{0,60}})(?:[ \t]{{1,9}}|{_QUOTE},\s{{0,9}})",
        rf"[(\[]\s{{0,9}}b?{_QUOTE}(?P<name>[\w.\-]{{1,80}}){_QUOTE}\s{{0,9}},\s{{0,9}}",
        # `name="password" value="…"`, `{"name": "password", "value": "…"}`, and forms over HTTP.
        (
            rf"\b(?:name|key|id)(?:{_QUOTE})?\s{{0,9}}[=:]\s{{0,9}}"
            rf"{_QUOTE}(?P<name>[\w.\-]{{1,80}}){_QUOTE}"
            rf"(?:[\s,;]{{1,9}}(?:{_QUOTE})?value(?:{_QUOTE})?\s{{0,9}}[=:]\s{{0,9}}|\r?\n\r?\n)"
        ),
        # SQL.
        r"\b(?P<name>pass(?:word|phrase)|secret|\w{1,60}_(?:key|token|secret|password))\s{1,9}(?=E?'|\$\$)",
        r"\bidentified\s{1,9}by\s{1,9}(?P<name>)",
    )
]
_NAME_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
# Words of ordinary sentences, which `=` makes secret and `:` does not, unless they are qualified.
_EVERYDAY = {
    "key",
    "pass",
    "pin",
    "salt",
    "auth",
    "authentication",
    "pem",
    "signature",
    "fe_sendauth",
}
_QUALIFIED = re.compile(
    r"\b(?:access|account|api|client|encryption|master|private|secret|shared|signing|storage) \Z",
    re.IGNORECASE,
)
_HEADERS = {"authorization", "proxy_authorization", "cookie", "set_cookie"}

# Values in a text.
_QUOTED = re.compile(rf"(?:[A-Za-z_][\w.]{{0,40}}\()?[bBuUrRfFeE]{{0,2}}({_QUOTE}|\$\$)")
_CONTENT = {q: re.compile(rf"(?:[^{q}\\]|\\.|{q}{q})*", re.DOTALL) for q in ("'", '"')}
_TOKEN = re.compile(r"""[()\[\]{}]|(\\{0,8}["'])(?:(?!\1)(?:\\.|[^\\]))*(?:\1|\Z)""", re.DOTALL)
_CLOSED = r"""(?:\\{0,8}["'])?(?:[\s,;:)\]}>]|\Z)"""  # what a closing quote stands before
_FIELD = r"""\s{0,5}\w[\w .\-]{0,40}="""
_WORD = re.compile(rf"""(?:(?!;{_FIELD}|[&,][\w.\-]{{1,40}}=|{_QUOTE}{_CLOSED}|</|&amp;)\S)+""")
_LITERAL = re.compile(r"[^\s,}\])]+")
_ENCODED = re.compile(r"""(?:(?!%(?:25){0,3}(?:26|3B|20|0A))[^\s&;'"<>])+""", re.IGNORECASE)
_PHRASE = re.compile(rf"[^;=&\r\n]{{1,200}}(?=;{_FIELD})")
_LAST_PHRASE = re.compile(rf"[^;=&\r\n]{{1,200}}(?=;{_FIELD}|;?\Z)")
_BRACED = re.compile(r"\{(?:[^}]|\}\})*\}?")  # of ODBC
_BLOCK = re.compile(r"[|>][-+]?\d?(?:\r?\n[ \t]+[^\n]*)+")  # of YAML
_ELEMENT = re.compile(r"[^<]*")
_LINE = re.compile(r"[^\r\n]*")
_NOTHING = re.compile(
    r"""(?:none|null|nil|true|false|\*{3,}|…|\.{3})(?=[\s,;&)\]}'"]|\Z)""", re.IGNORECASE
)

# URLs.
_RUN = re.compile(rf"""(?:[^\s"']|["'](?!{_CLOSED}))*""")
_USER = re.compile(r"""://[^:/?#\s"'\[]*:""")
_PORT = re.compile(r"\d{1,5}(?=[/?#,;:)\]}>]|\Z)")
_SPACED_URL = re.compile(  # alone in a value, so that spaces are the password's
    r"(\s*[a-z][a-z0-9+.\-]{0,40}://[^:/?#\s]*:)(?!\d{1,5}(?:[/?#\s]|\Z)).*@",
    re.IGNORECASE | re.DOTALL,
)

_PEM = re.compile(  # its end may be cut off
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_SHAPES = [  # what a text must have, in lower case, for the pattern to be tried
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        # User and password without a scheme, of Go's drivers, of Oracle, percent-encoded, of curl.
        (
            "@",
            (
                r"(?<![\w.%+\-/:@])(?!(?i:mailto|sips?|xmpp|acct):)([\w.%+\-]{1,64}):(?!//)"
                r"[^\s:@/\"'<>,=]{1,128}@(?!sha256)(?=[\w\[.])"
            ),
            rf"\1:{MARK}@",
        ),
        ("@", r"((?:(?<!\S)|(?<=[\"'=(]))\w{1,64}:)\S{1,256}@(?=(?:tcp|unix)\()", rf"\1{MARK}"),
        ("jdbc:", r"(?i)\b(jdbc:oracle:\w{1,9}:[\w$#]{1,64}/)[^\s@]{1,128}@", rf"\1{MARK}@"),
        ("%40", r"(?i)(%3A%2F%2F[^\s%&]{0,128}%3A)[^\s&'\"]{1,256}?%40", rf"\1{MARK}%40"),
        ("-u", r"((?<!\S)(?:-u|--user)[ =]['\"]?[^\s:'\"]{1,128}:)[^\s'\"]+", rf"\1{MARK}"),
        ("://", r"(?i)(https?://)[\w.~%\-]{20,}(?=@)", rf"\1{MARK}"),
        ("slack", r"(\bhooks\.slack\.com/\w{1,20}/)[\w/]+", rf"\1{MARK}"),
        # `code=42P01` is harmless.
        ("code=", r"(?i)([?&;]code=)[^\s&;'\"<>]{16,}", rf"\1{MARK}"),
        # Credentials of HTTP; but not "basic authentication" and "bearer token".
        (
            "",
            (
                r"(?i)\b(bearer|sharedkey(?:lite)?)(?::|\s{1,9})(?!(?:auth\w*|tokens?|scheme|error"
                r"|credentials?|header|access|challenge|realm|is|was|not|of|for|and|or|in)\b)"
                r"[^\s'\",;]{4,}"
            ),
            rf"\1 {MARK}",
        ),
        (
            "basic",
            r"\b([Bb]asic|BASIC)\s{1,9}(?=[A-Za-z][a-z]{0,200}[A-Z0-9+/=])[\w+/\-]{6,}={0,2}",
            rf"\1 {MARK}",
        ),
        # A JSON Web Token; keys of AWS, GitHub, GitLab, Slack, Stripe, OpenAI, Google and others
        # who mark theirs.
        ("eyj", r"(?<![\w\-])eyJ[\w\-]{5,}\.[\w\-]+(?:\.[\w\-]*){0,3}", MARK),
        (
            "",
            (
                r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}\b|(?:gh[pousr]_|github_pat_|glpat-)[\w\-]{10,}"
                r"|xox[abeoprs]-[\w\-]{10,}|xapp-[\w\-]{10,}|[sr]k_(?:live|test)_\w{8,}"
                r"|sk-(?:proj-|ant-)?[\w\-]{20,}|whsec_\w{16,}|AIza[\w\-]{35}|ya29\.[\w\-]{10,}"
                r"|GOCSPX-[\w\-]{10,}|(?:hf_|npm_|dckr_pat_|pypi-)[\w\-]{20,}|dapi[0-9a-f]{32}"
                r"|SG\.[\w\-]{16,}\.[\w\-]{16,})"
            ),
            MARK,
        ),
        # Keys of 64 bytes, as Azure's, and of 32, as Fernet's, in base64.
        ("", r"(?<![\w+/])[A-Za-z0-9+/]{86}(?:==|%3D%3D)", MARK),
        ("=", r"(?<![\w+/\-])(?<!sha256:)(?<!sha256-)[\w\-]{43}=(?![\w=])", MARK),
    )
]


def is_secret_name(name: str) -> bool:
    """Tell whether an option of that name could hold a secret."""
    plain = _JOINT.sub("_", _HUMP.sub("_", name[-200:])).strip("_").lower()
    return bool(_SECRET_NAME.search(plain)) and not _PUBLIC_NAME.search(plain)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask in a text the secrets given, and whatever has the shape of one."""
    text = mask_secrets(text, secrets)
    text = _PEM.sub(MARK, text)
    text = _mask_urls(text)
    for introducer in _INTRODUCERS:
        text = _mask(text, introducer, _introduced)
    text = _mask(text, _SIGN, _assigned)
    lower = text.lower()
    for needle, pattern, replacement in _SHAPES:
        if needle in lower:
            text = pattern.sub(replacement, text)
    return text


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask in a text the secrets given, however they are spelled, and nothing else."""
    known = _known(secrets)
    return known.sub(MARK, text) if known else text


def redact(value: Any) -> Any:
    """Copy nested mappings and sequences with every value that could be a secret masked."""
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
        secret = isinstance(key, str) and is_secret_name(key) and _holds_secret(item)
        copy[_redact(key, 0)] = MARK if secret else _redact(item, depth)
    for key in ("name", "key", "id"):  # `{"name": "password", "value": "…"}`
        named = value.get(key)
        if isinstance(named, str) and is_secret_name(named) and _holds_secret(value.get("value")):
            copy["value"] = MARK
    return copy


def _redact_sequence(items: list[Any], depth: int) -> list[Any]:
    copy = [_redact(item, depth) for item in items]
    for index, name in enumerate(items[:-1]):
        # `["password", "…"]` as a pair, `["--password", "…"]` anywhere.
        named = isinstance(name, str) and (len(items) == 2 or name.startswith("-"))
        if named and is_secret_name(name) and _holds_secret(items[index + 1]):
            copy[index + 1] = MARK
    return copy


def _holds_secret(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value) and not REFERENCE.fullmatch(value)
    return value is not None and not isinstance(value, bool) and value not in ([], {}, ())


def _known(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds the secrets in every spelling, or in parts; None without any."""
    forms: set[str] = set()
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        forms |= _spellings(secret)
        if not re.search(r"://|[=;]", secret):
            # Where a URL is taken apart its password may end early, and messages show the pieces.
            forms |= {part for part in re.split(r"[/#?@:]", secret) if len(part) > 3}
    ordered = sorted(filter(None, forms), key=len, reverse=True)
    # One of a letter or two would also be found where it is not.
    found = [re.escape(f) if len(f) > 3 else rf"(?<!\w){re.escape(f)}(?!\w)" for f in ordered]
    return re.compile("|".join(found)) if found else None


def _spellings(secret: str) -> set[str]:
    """Return the forms that a secret takes where others write it down: escaped or encoded."""
    encoded = secret.encode(errors="replace")
    escaped = secret.replace("\\", "\\\\")
    markup = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    forms = {
        secret,
        secret.strip(),
        # Python: texts and bytes. The quotes around a longer text decide which are escaped.
        repr(secret)[1:-1],
        escaped.replace("'", "\\'"),
        escaped.replace('"', '\\"'),
        ascii(secret)[1:-1],
        repr(encoded)[2:-1],
        # JSON, also with the slashes that PHP escapes.
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        # SQL and shells.
        secret.replace("'", "''"),
        secret.replace("'", "'\"'\"'"),
        # HTML and XML; the codes of quotes differ.
        markup,
        markup.replace('"', "&quot;").replace("'", "&#x27;"),
        markup.replace('"', "&#34;").replace("'", "&#39;"),
        markup.replace('"', "&quot;").replace("'", "&#39;"),
        markup.replace('"', "&quot;").replace("'", "&apos;"),
        markup.replace('"', "&quot;"),
    }
    percent = {quote(encoded), quote(encoded, safe=""), quote_plus(encoded)}
    forms |= percent
    forms |= {_PERCENT_CODE.sub(lambda code: code[0].lower(), form) for form in percent}
    return forms


def _mask_urls(text: str) -> str:
    """Mask passwords of URLs; one may hold '/', '#' and '@', so all up to the last '@'."""
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
    """Mask the span that `find` tells for a match of `pattern`, match by match."""
    parts: list[str] = []
    done = position = 0
    while match := pattern.search(text, position):
        span = find(text, match)
        position = match.end()
        if span is not None and span[0] < span[1]:
            parts += [text[done : span[0]], MARK]
            done = position = span[1]
    return "".join([*parts, text[done:]])


def _introduced(text: str, match: re.Match[str]) -> _Span | None:
    if match["name"] and not is_secret_name(match["name"]):
        return None
    if match[0].startswith("<"):
        return match.end(), _match_end(_ELEMENT, text, match.end())
    return _value(text, match.end(), _WORD)


def _assigned(text: str, match: re.Match[str]) -> _Span | None:
    name, before, quoted = _name_before(text, match.start())
    sign, plain = match[0], name.lower().replace("-", "_").strip("_")
    if sign.startswith(("::", "://")) or before.endswith("${") or not is_secret_name(name):
        return None
    start = _match_end(_SPACE, text, match.end())
    if quoted:
        return _value(text, start, _LITERAL)
    if sign[0] == "%":
        return _value(text, start, _ENCODED)
    if plain in _EVERYDAY and not _QUALIFIED.search(before):
        named = plain != "key" or before.endswith(("?", "&", ";"))
        return _value(text, start, _WORD) if "=" in sign and named else None
    if plain in _HEADERS and sign == ":":
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
    if phrase and (found := phrase.match(text, start)):
        return start, found.end()
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
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if depth == 0:
            return token.end()
    return len(text)


def _match_end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start
