"""Take secrets out of values and texts that people or logs will see.

Options that a connector declares are masked by declaration, see `options`.  This module is for
everything else: undeclared options, drivers' messages, URLs.  It rather masks too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MARK = "***REDACTED***"

REFERENCE = re.compile(r"\$\{([a-z][a-z0-9_+.-]*):([^{}]+)\}")
"""A reference to a secret kept elsewhere: `${scheme:name}`; it is not a secret itself."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SECRET_NAME = re.compile(
    r"""(?:^|[_\W])(?:
        \w*pass(?:word|wd|phrase|code)?s? | pwd | pw | \w*secrets? | \w*tokens? | \w*credentials?
      | (?:\w+_)?keys? | \w*api_?keys? | \w*access_?keys? | \w*account_?keys?
      | \w*private_?keys? | \w*encryption_?keys? | \w*signing_?keys? | \w*shared_?keys?
      | sas(?:_\w+)? | sig | signature | \w*conn(?:ection)?_?str(?:ing)? | \w*conn_?info
      | dsn | \w*database_?url | \w*auth(?:orization|entication)? | bearer | \w*cookies? | jwt
      | pin | otp | salt | pem | pfx | certificate_data
    )(?:_(?:value|data|text|hex|base64|b64|file_?content|\d+))?$""",
    re.VERBOSE | re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(
    r"(?:public|primary|foreign|partition|sort|cache|row|object|blob|s3)_keys?$"
    r"|keys?_(?:id|name|file|path|vault)s?$|^keys$|token_(?:url|endpoint|count)$",
    re.IGNORECASE,
)

_TEXT_PATTERNS = [
    (re.compile(pattern, flags), replacement)
    for pattern, flags, replacement in (
        # A private key in PEM form.
        (
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.S,
            MARK,
        ),
        # The password of a URL; it may hold '/', '#' and '@', so everything to the last '@'.
        (r"([a-z][a-z0-9+.\-]{0,40}://[^:/?#\s@'\"]*):[^\s'\"]*@", re.I, rf"\1:{MARK}@"),
        # Azure and AWS connection strings, libpq and ODBC key=value pairs, query parameters.
        (
            r"\b((?:shared)?(?:access|account)_?(?:key|signature)|sharedaccesssignature"
            r"|(?:client_?|aws_)?secret(?:_access)?(?:_key)?|api_?key|x-api-key|sslpassword"
            r"|pass(?:word|wd|phrase)?|pwd|(?:access_|refresh_|id_|security_|session_)?token"
            r"|sig|signature|x-amz-(?:signature|credential|security-token)|subscription-key|code)"
            r"(\\?['\"]?\s*(?:=|:|%3D)\s*)"
            r"('(?:[^'\\]|\\.|'')*'?|\\?\"(?:[^\"\\]|\\[^\"])*\\?\"?|[^\s&;,'\"<>)\]}]+)",
            re.I,
            rf"\1\2{MARK}",
        ),
        (r"\b(authorization\s*[:=]\s*)[^\r\n]+", re.I, rf"\1{MARK}"),
        (r"\b(bearer|basic|sharedkey(?:lite)?)\s+[A-Za-z0-9._~+/:=\-]{8,}", re.I, rf"\1 {MARK}"),
        (r"\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?", 0, MARK),  # a JSON Web Token
        # Well-known key shapes: AWS, GitHub, Slack, OpenAI and Stripe, Google, and 64-byte keys.
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", 0, MARK),
        (r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-)[\w-]{10,}", 0, MARK),
        (r"\b(?:sk|rk|pk)[-_](?:live|test|proj|ant)?[-_]?[\w-]{16,}", 0, MARK),
        (r"\bAIza[\w-]{35}", 0, MARK),
        (r"(?<![\w+/])[A-Za-z0-9+/]{86}==", 0, MARK),
    )
]


def is_secret_name(name: str) -> bool:
    """Tell whether an option of that name could hold a secret."""
    snake = _CAMEL.sub("_", name).replace("-", "_").replace(" ", "_")
    return not _PUBLIC_NAME.search(snake) and bool(_SECRET_NAME.search(snake))


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask in a text the secrets given, and whatever has the shape of one."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MARK)
    for pattern, replacement in _TEXT_PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any) -> Any:
    """Copy nested mappings and sequences with every value that could be a secret masked."""
    if isinstance(value, Mapping):
        return {
            key: MARK
            if isinstance(key, str) and is_secret_name(key) and _holds_secret(item)
            else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(item) for item in value]
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return MARK


def _holds_secret(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value) and not REFERENCE.fullmatch(value)
    return value is not None and not isinstance(value, bool)
