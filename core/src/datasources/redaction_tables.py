"""Tables of redaction: names of secrets, words before them, and shapes that secrets have.

Every pattern takes linear time: its repetitions are bounded, or consume what they scan.
"""

from __future__ import annotations

import re

from datasources.masking import MARK

# Names of options. `_J` stands between the words of one: `api_key`, `api-key`, `api key`, `apiKey`.
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
SECRET_NAME = re.compile(rf"(?:{_WORDS}|(?<![a-z0-9])(?:{_SHORT_WORDS})){_SUFFIX}$", re.VERBOSE)
"""Matches at the end of a name, in lower case and with its words joined by `_`."""
PUBLIC_NAME = re.compile(
    rf"""^keys$
    | (?:public|primary|foreign|partition|sort|cache|row|object|range|unique|shard|join)_?keys?
      {_SUFFIX}$
    | (?:^|_)(?:max|min|num|n|total|prompt|completion|input|output|cached)_tokens?$""",
    re.VERBOSE,
)
"""Matches names that look like those of secrets and are not."""

QUOTE = r"""\\{0,8}["']"""
"""A quote, with the backslashes that it has inside other quoted texts."""
INTRODUCERS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # An element of XML: `<password>…`.
        r"<(?P<name>[\w:.\-]{1,80})(?:\s[^<>]{0,200})?>",
        # An option of a command line, also in a list: `--password …`, `"--password", "…"`.
        rf"(?<![\w\-])(?P<name>--?[a-z][\w\-]{{0,60}})(?:[ \t]{{1,9}}|{QUOTE},\s{{0,9}})",
        # A pair in brackets: `("password", "…")`.
        rf"[(\[]\s{{0,9}}b?{QUOTE}(?P<name>[\w.\-]{{1,80}}){QUOTE}\s{{0,9}},\s{{0,9}}",
        # `name="password" value="…"`, `{"name": "password", "value": "…"}`, and forms over HTTP.
        (
            rf"\b(?:name|key|id)(?:{QUOTE})?\s{{0,9}}[=:]\s{{0,9}}"
            rf"{QUOTE}(?P<name>[\w.\-]{{1,80}}){QUOTE}"
            rf"(?:[\s,;]{{1,9}}(?:{QUOTE})?value(?:{QUOTE})?\s{{0,9}}[=:]\s{{0,9}}|\r?\n\r?\n)"
        ),
        # SQL: `password '…'`, `identified by '…'`.
        (
            r"\b(?P<name>pass(?:word|phrase)|secret|\w{1,60}_(?:key|token|secret|password))"
            r"\s{1,9}(?=E?'|\$\$)"
        ),
        r"\bidentified\s{1,9}by\s{1,9}(?P<name>)",
    )
]
"""Introductions of a value other than `name=` and `name:`; the group `name` is the option."""

EVERYDAY_WORDS = {
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
"""Names of secrets that are words of ordinary sentences: `=` after one introduces a secret, `:`
does not, unless a `QUALIFIER` stands before it."""
QUALIFIER = re.compile(
    r"\b(?:access|account|api|client|encryption|master|private|secret|shared|signing|storage) \Z",
    re.IGNORECASE,
)
SYNTAX = re.compile(r"\b(?:unexpected|no) \Z", re.IGNORECASE)
"""Matches before the `token:` of a parser, whose value is a piece of the text that it read."""
HEADERS = {"authorization", "proxy_authorization", "cookie", "set_cookie"}
"""Headers of HTTP whose values go on to the end of the line."""

PEM = re.compile(  # the end of the text may be cut off
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
SHAPES = [
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        # User and password: without a scheme, as drivers of Go, Oracle and curl take them, and
        # percent-encoded.
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
        # An authorization code; `code=42P01` is an SQLSTATE.
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
        # whose keys have a prefix.
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
"""A text that must occur, in lower case, before the pattern is tried; the pattern; what replaces
a match."""
