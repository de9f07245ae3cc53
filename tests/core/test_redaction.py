"""No secret comes through, and what is harmless does."""

from __future__ import annotations

import html
import json
import logging
import re
import shlex
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus, urlencode
from xml.sax import saxutils

import pytest
from hypothesis import given, strategies as st

from datasources import ConnectError
from datasources.redaction import (
    MARK,
    is_secret_name,
    mask_error,
    mask_secrets,
    redact,
    redact_text,
)
from tests.core.redaction_corpus import (
    HARMLESS,
    HARMLESS_NAMES,
    NAMES,
    SECRETS,
    SHAPES,
    TEXTS,
)


def test_corpus_is_as_large_as_promised():
    assert len(set(TEXTS) | set(NAMES) | set(SHAPES)) >= 300
    assert all("@S@" in text for text in TEXTS)


@pytest.mark.parametrize("text", TEXTS)
def test_secret_in_a_text_is_masked(text: str):
    for secret in SECRETS:
        masked = redact_text(text.replace("@S@", secret))
        assert secret not in masked
        assert MARK in masked
        assert redact_text(masked) == masked


@pytest.mark.parametrize("shape", SHAPES)
def test_secret_of_a_known_shape_is_masked_anywhere(shape: str):
    for frame in ("{}", "see {} there", "a='{}'", '{{"x": "{}"}}', "x={};y=1", "https://h/?q={}"):
        assert shape[8:] not in redact_text(frame.format(shape))


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_comes_through_as_it_is(text: str):
    assert redact_text(text) == text
    assert redact({"message": text}) == {"message": text}


@pytest.mark.parametrize("name", NAMES)
def test_option_of_a_secret_name_is_masked_at_any_depth(name: str):
    options = {"a": [{"b": ({"host": "h", name: SECRETS[0]},)}], name: {"x": [SECRETS[0], 7]}}
    assert redact(options) == {"a": [{"b": [{"host": "h", name: MARK}]}], name: MARK}


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_option_of_a_harmless_name_is_kept(name: str):
    options: dict[str, Any] = {name: "plain", "list": [{name: 5}]}
    assert redact(options) == options
    for text in (f"{name}=plain", f"{name}: plain", f"{{'{name}': 'plain'}}"):
        assert redact_text(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("host=h password=x;y&z port=5", f"host=h password={MARK} port=5"),
        ("AccountName=n;AccountKey=ab==;X=y", f"AccountName=n;AccountKey={MARK};X=y"),
        ("Server=h;Pwd=two words;X=y", f"Server=h;Pwd={MARK};X=y"),
        ("Server=h;Pwd={a;b}}c};X=y", f"Server=h;Pwd={MARK};X=y"),
        ("postgresql://b@s:p/w#x@y@h/d?a=b", f"postgresql://b@s:{MARK}@h/d?a=b"),
        ("https://h/?page=2&sig=x%2B&se=1", f"https://h/?page=2&sig={MARK}&se=1"),
        ("{'password': 'it\\'s', 'port': 5}", f"{{'password': '{MARK}', 'port': 5}}"),
        ('{"pin": 1234, "port": 5}', f'{{"pin": {MARK}, "port": 5}}'),
        ("://u:x@h", f"://u:{MARK}@h"),
        ("Cookie: a=b; c=d\r\nHost: h", f"Cookie: {MARK}\r\nHost: h"),
        ("WHERE password = 'it''s' AND a = 'b'", f"WHERE password = '{MARK}' AND a = 'b'"),
        ("tool --token x --host h", f"tool --token {MARK} --host h"),
        ("password: |\n  x\n  y\nport: 5", f"password: {MARK}\nport: 5"),
        ("<p><Password>x</Password><b>c</b>", f"<p><Password>{MARK}</Password><b>c</b>"),
    ],
)
def test_what_stands_around_a_secret_is_kept(text: str, masked: str):
    assert redact_text(text) == masked


def test_references_marks_and_empty_values_are_kept():
    options: dict[str, Any] = {
        "password": "${env:DB_PASSWORD}",
        "token": "${file:/run/secrets/token}",
        "secret": None,
        "key": "",
        "passwords": [],
        "credentials": {},
        "pass": True,
        "api_key": MARK,
    }
    assert redact(options) == options


def test_text_beside_a_reference_is_masked():
    assert redact({"password": "hunter2${env:X}"}) == {"password": MARK}


def test_numbers_bytes_and_objects_of_secret_names_are_masked():
    class Odd:
        def __repr__(self) -> str:
            return "hunter2"

    options = {"pin": 1234, "key": b"hunter2", "other": b"hunter2", "odd": Odd(), "port": 1}
    assert redact(options) == {"pin": MARK, "key": MARK, "other": MARK, "odd": MARK, "port": 1}


def test_secrets_in_keys_pairs_and_command_lines_are_masked():
    assert redact({"postgresql://u:hunter2@h": 1}) == {f"postgresql://u:{MARK}@h": 1}
    assert redact([("password", "hunter2")]) == [["password", MARK]]
    assert redact(["x", "--password", "hunter2", "-v"]) == ["x", "--password", MARK, "-v"]
    assert redact([{"name": "api_key", "value": "hunter2"}]) == [{"name": "api_key", "value": MARK}]


def test_password_with_spaces_in_a_url_of_its_own_is_masked():
    assert redact({"url": "postgresql://u:hunter 2@h/d"}) == {"url": f"postgresql://u:{MARK}@h/d"}


def test_what_is_nested_in_a_circle_or_too_deep_is_masked():
    circle: dict[str, Any] = {"host": "h"}
    circle["self"] = circle
    assert "'self': '***REDACTED***'" in repr(redact(circle))
    deep: Any = "hunter2"
    for _ in range(5_000):
        deep = [deep]
    assert "hunter2" not in repr(redact(deep))


def test_original_is_left_alone():
    options = {"password": "hunter2", "list": [{"token": "x"}]}
    redact(options)
    assert options == {"password": "hunter2", "list": [{"token": "x"}]}


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "repr": repr,
    "ascii": ascii,
    "bytes": lambda text: repr(text.encode(errors="replace")),
    "JSON": json.dumps,
    "JSON in Unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "repr of JSON": lambda text: repr(json.dumps({"a": text})),
    "quote": lambda text: quote(text, errors="replace"),
    "quote of all": lambda text: quote(text, safe="", errors="replace"),
    "quote_plus": lambda text: quote_plus(text, errors="replace"),
    "quote in lower case": lambda text: quote(text, errors="replace").lower(),
    "query": lambda text: urlencode({"p": text}, errors="replace"),
    "HTML": html.escape,
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "XML": saxutils.quoteattr,
    "XML in ASCII": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "secret",
    ["hunter2", "a b", "p/w#x@y", "q\"uo\\te's", "ü~%&+", "\ud800x", "a/b+c d?e=f&g#h", 'it\'s"q"'],
)
def test_given_secret_is_masked_in_every_spelling(secret: str, spelling: str):
    form = SPELLINGS[spelling](secret)
    masked = mask_secrets(f"refused: {form} at host", [secret])
    assert masked.startswith("refused: ")
    assert masked.endswith(" at host")
    assert set(masked[9:-8].replace(MARK, "")) <= set("'\"\\b{}a:p= "), masked


def test_secrets_alone_are_masked_and_not_what_looks_like_one():
    assert mask_secrets("password=other near hunter2", ["hunter2"]) == f"password=other near {MARK}"


class OddError(Exception):
    """An exception of a driver: its text is not among its arguments."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text


@dataclass
class Response:
    """An answer of a server, as exceptions of drivers hold it."""

    text: str


class FixedError(Exception):
    """An exception whose text is nowhere among its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = lambda: text

    def __str__(self) -> str:
        return self.text()


class DefiantError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def errors_with(secret: str) -> list[Exception]:
    holding: Any = ValueError(f"refused {secret}")
    holding.request = {"headers": [("Authorization", (secret, {"deep": {secret}}))]}
    holding.body = f'{{"password": "{secret}"}}'.encode()
    holding.response = Response(secret)
    noted = ValueError("x")
    noted.add_note(f"with {secret}")
    return [
        ValueError(f"refused {secret}"),
        KeyError(secret),
        ValueError("refused", {"password": [secret]}),
        ConnectError(f"refused {secret}", code=f"E-{secret}"),
        FileNotFoundError(2, "No such file", f"/run/{secret}"),
        OddError(f"refused {secret}"),
        noted,
        holding,
        ExceptionGroup("several", [ValueError(secret), ExceptionGroup("x", [KeyError(secret)])]),
    ]


@pytest.mark.parametrize("number", range(len(errors_with(""))))
def test_an_error_and_its_causes_are_masked_in_place(number: int):
    error, cause = errors_with("hunter2")[number], errors_with("hunter2")[number]
    error.__cause__ = ConnectError("between")
    error.__cause__.__context__ = cause
    cause.__context__ = error  # a circle
    assert "hunter2" in "".join(traceback.format_exception(error))
    mask_error(error, ["hunter2"])
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert "hunter2" not in f"{error!r} {vars(error)}"
    assert MARK in "".join(traceback.format_exception(error))


def test_what_an_error_holds_keeps_its_types():
    error: Any = ValueError("x")
    error.parts = ["hunter2", 1, None]
    error.status = {"code": 401, "reason": "hunter2 is wrong"}
    error.plain = plain = {"a": [1, ("b",)], "c": b"x"}
    mask_error(error, ["hunter2"])
    assert vars(error) == {
        "parts": [MARK, 1, None],
        "status": {"code": 401, "reason": f"{MARK} is wrong"},
        "plain": plain,
    }
    assert vars(error)["plain"] is plain


def test_what_an_error_holds_may_be_a_circle():
    error: Any = ValueError("x")
    circle: dict[str, Any] = {"password": "hunter2"}
    error.request = circle
    circle["self"] = circle
    mask_error(error, ["hunter2"])
    assert "hunter2" not in repr(vars(error))


def test_linked_errors_that_cannot_be_changed_are_replaced():
    def fixed() -> list[Exception]:
        # The message of a group cannot be changed, and this text is not among the arguments.
        return [ExceptionGroup("hunter2", [ValueError("x")]), FixedError("hunter2")]

    for cause in fixed():
        error = ConnectError("refused")
        error.__cause__ = KeyError("between")
        error.__cause__.__context__ = cause
        error.__context__ = ExceptionGroup("several", [*fixed(), ValueError("plain")])
        mask_error(error, ["hunter2"])
        assert error.__suppress_context__
        causes = "".join(traceback.format_exception(error))
        context = "".join(traceback.format_exception(error.__context__))
        assert "hunter2" not in causes + context
        assert "KeyError: 'between'" in causes
        assert "ValueError: plain" in context
        assert "RuntimeError: FixedError: ***" in context


def test_an_error_without_secrets_stays_as_it_is():
    argument = object()
    error = ValueError("plain", argument)
    mask_error(error, ["hunter2", ""])
    mask_error(error, [])
    assert error.args == ("plain", argument)


def test_an_error_that_cannot_be_changed_is_left_alone():
    error = ConnectError("refused hunter2")
    error.__cause__ = DefiantError("hunter2")
    mask_error(error, ["hunter2"])
    assert str(error) == f"refused {MARK}"


GIVEN = [
    "hunter2",
    "a b",
    "p/w#x@y",
    "q\"uo\\te's",
    "ü~%&+",
    "\ud800x",
    "pässwörd",
    "it's<&>",
    "a'b/c",
]


def spellings(secret: str) -> dict[str, str]:
    """Return a secret as programs write it down, by the name of the spelling."""
    encoded = secret.encode(errors="replace")
    return {
        "plain": secret,
        "a text of Python": repr(secret)[1:-1],
        "within a text of Python": repr(f"{secret}'\"")[1:-1].removesuffix("\\'\""),
        "bytes of Python": repr(encoded)[2:-1],
        "ASCII of Python": ascii(secret)[1:-1],
        "JSON": json.dumps(secret)[1:-1],
        "JSON in Unicode": json.dumps(secret, ensure_ascii=False)[1:-1],
        "JSON of PHP": json.dumps(secret)[1:-1].replace("/", "\\/"),
        "a path of a URL": quote(encoded),
        "a part of a URL": quote(encoded, safe=""),
        "a part of a URL in small letters": quote(encoded, safe="").lower(),
        "a form": quote_plus(encoded),
        "HTML": html.escape(secret),
        "HTML without quotes": html.escape(secret, quote=False),
        "HTML of templates": html.escape(secret).replace("&quot;", "&#34;").replace("x27", "39"),
        "XML": saxutils.escape(secret, {'"': "&quot;", "'": "&apos;"}),
        "SQL": secret.replace("'", "''"),
        "a shell": shlex.quote(secret).removeprefix("'").removesuffix("'"),
        "a URL within a URL": quote(quote(encoded, safe=""), safe=""),
        "a field of CSV": secret.replace('"', '""'),
        "an escape of Python": secret.encode("unicode_escape").decode(),
        "base64": b64encode(encoded).decode() if len(secret) > 3 else secret,
    }


@pytest.mark.parametrize("secret", GIVEN)
def test_given_secret_is_masked_as_programs_write_it(secret: str):
    for name, form in spellings(secret).items():
        for mask in (redact_text, mask_secrets):
            text = mask(f"refused: {form} at host", [secret])
            assert form not in text, name
            assert MARK in text, name
            assert text.startswith("refused: ")
            assert text.endswith(" at host")


def numbered(form: str, *, characters: bool) -> Callable[[str], str]:
    """Return a spelling of everything but letters and digits of ASCII by numbers."""

    def spell(secret: str) -> str:
        return "".join(
            character
            if character.isascii() and character.isalnum()
            else form % ord(character)
            if characters
            else "".join(form % byte for byte in character.encode())
            for character in secret
        )

    return spell


NUMBERED = {
    "strings of JavaScript": numbered("\\x%02x", characters=False),
    "strings of C": numbered("\\%03o", characters=False),
    "quoted-printable": numbered("=%02X", characters=False),
    "entities": numbered("&#%d;", characters=True),
    "hexadecimal entities": numbered("&#X%X;", characters=True),
    "percent of Latin-1": lambda text: quote(text.encode("latin-1", errors="replace"), safe=""),
    "JSON of Go": lambda text: re.sub(
        "[<>&]", lambda match: f"\\u00{ord(match[0]):02x}", json.dumps(text)
    ),
    "JSON of Java": lambda text: re.sub(
        r"\\u\w{4}", lambda match: f"\\u{match[0][2:].upper()}", json.dumps(text)
    ),
    "hexadecimal": lambda text: text.encode().hex(),
    "bytea": lambda text: f"\\x{text.encode().hex()}",
    "taken for Latin-1": lambda text: text.encode().decode("latin-1"),
    "taken for cp1252": lambda text: text.encode().decode("cp1252", errors="replace"),
    "braces of ODBC": lambda text: "{" + text.replace("}", "}}") + "}",
    "joined lines": lambda text: " ".join(text.split()),
}


@pytest.mark.parametrize("spelling", NUMBERED)
@pytest.mark.parametrize(
    "secret", ["PÄSS-WÖRD/1", "A<B>&C;1", "密-码-文", "😀 A1", "{A}=B", "A-1\nB-2\n", "\\X41-=3D"]
)
def test_given_secret_is_masked_where_characters_are_written_by_numbers(
    secret: str, spelling: str
) -> None:
    if "Latin-1" in spelling and not secret.isascii() and spelling.startswith("percent"):
        secret = "PÄSS-WÖRD"
    form = NUMBERED[spelling](secret)
    masked = mask_secrets(f"refused: <{form}> at host%20", [secret, "WÖRD/1"])
    assert masked.strip() in (
        f"refused: <{MARK}> at host%20",
        f'refused: <"{MARK}"> at host%20',
        f"refused: <{{{MARK}}}> at host%20",
        f"refused: <\\x{MARK}> at host%20",
    )


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_text_with_very_many_numbered_characters_is_masked_in_one_pass(count: int) -> None:
    text = "%41=42\\x43&#68;\\u0045" * count
    assert mask_secrets(text, ["ABCDEABCDE", "CDEAB", "another"]).replace(MARK, "") in ("", text)
    assert mask_secrets(f"{text}-", ["another"]) == f"{text}-"


@pytest.mark.parametrize("secret", ["hunter2", "pässwörd", "p/w+x?", "a b~"])
@pytest.mark.parametrize("user", ["u", "me", "you", "", "someone@example.org"])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_given_secret_is_masked_inside_of_base64(
    secret: str, user: str, encode: Callable[[bytes], bytes]
):
    word = encode(f"{user}:{secret}".encode()).decode()
    for form in (word, word.rstrip("=")):
        text = mask_secrets(f"sent 'Authorization: Basic {form}', at a/b/c-d_e/0123456", [secret])
        assert text.replace("=", "") == (
            f"sent 'Authorization: Basic {MARK}', at a/b/c-d_e/0123456"
        )
    harmless = encode(f"{user}:something-else".encode()).decode()
    assert mask_secrets(harmless, [secret, "u:s"]) == harmless


@pytest.mark.parametrize("size", [200_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_given_secret_of_very_many_characters_is_masked(size: int):
    secret = "x;" * (size // 2)
    assert mask_secrets(f"refused {secret}!", [secret]) == f"refused {MARK}!"
    assert mask_secrets("refused", [secret]) == "refused"


def test_only_given_secrets_are_masked_where_nothing_else_is_to_be():
    message = "password=hunter2 is not password=other"
    assert mask_secrets(message, ["hunter2"]) == f"password={MARK} is not password=other"
    assert mask_secrets(message, []) == message


def test_pieces_of_a_given_password_are_masked_where_a_url_was_taken_apart():
    message = 'invalid port number: "hunter2" in connection string, host is "correct"'
    assert "hunter2" not in redact_text(message, ["hunter2/correct#horse"])


def test_piece_of_a_given_secret_is_masked_as_a_word_only():
    message = "it is no connection string; 'conn' is no database"
    masked = f"it is no connection string; '{MARK}' is no database"
    assert mask_secrets(message, ["reader:pw@host/conn"]) == masked


def test_short_secret_is_masked_as_a_word_only():
    assert redact_text("a table at a host", ["a"]) == f"{MARK} table at {MARK} host"
    assert redact_text("RED alert", ["RED", "RE", "A"]) == f"{MARK} alert"
    assert mask_secrets("no connection: 'conn'", ["conn"]) == f"no connection: '{MARK}'"
    assert mask_secrets("pin12345", ["1234"]) == f"pin{MARK}5"


def test_one_secret_may_be_given_as_a_string():
    assert redact_text("hunter2 or hunter", "hunter2") == f"{MARK} or hunter"


def test_empty_secrets_mask_nothing():
    assert redact_text("plain", ["", ""]) == "plain"


def test_log_record_with_arguments_is_masked():
    record = logging.LogRecord(
        "urllib3", logging.DEBUG, "x.py", 1, "%s %s -> %r", ("GET", "/c?sig=hunter2", {}), None
    )
    record.args = ("GET", "/c?sig=hunter2", {"password": "hunter2"})
    assert "hunter2" not in redact_text(record.getMessage())


# Variations.  A secret holds a digit, so that no ordinary word is one.
WORDS = st.text("abcXYZ019-._~!$*+", min_size=4, max_size=20).map(lambda text: f"z9{text}9z")
ANYTHING = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20).map(
    lambda text: f"z9{text}9z"
)
UNAMBIGUOUS = [name for name in NAMES if name.lower() != "key"]


@st.composite
def spelled(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(UNAMBIGUOUS))
    name = draw(st.sampled_from([name, name.lower(), name.upper()]))
    name = name.replace("_", draw(st.sampled_from("_-.")))
    return draw(st.sampled_from(["", "x_", "db.", "MY-", "the2_"])) + name


@given(spelled(), ANYTHING, st.sampled_from(["{0}", "{{'a': 1, {0}}}", "f(1, [{0}])", "x\n{0}\ny"]))
def test_quoted_value_does_not_leak_however_it_is_spelled(name: str, secret: str, frame: str):
    for value in (repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False)):
        for text in (f"{name}={value}", f"{name!r}: {value}", f'"{name}":{value}, "a": 1'):
            framed = frame.format(text)
            masked = redact_text(framed)
            assert value[1:-1] not in masked
            if "a': 1" in framed:
                assert "a': 1" in masked


@given(spelled(), WORDS)
def test_bare_value_does_not_leak_however_it_is_spelled(name: str, secret: str):
    for frame in ("{}={}", "a=1;{}={};b=2", "?a=1&{}={}&b=2", "a=1 {}={} b=2", "a {} = {}\n"):
        assert secret not in redact_text(frame.format(name, secret))
    for text in (f"%26{name}%3D{secret}%26b", f"%2526{name}%253D{secret}%2526b"):
        assert secret not in redact_text(text)


@given(
    st.sampled_from(["postgresql", "redis", "https", "mongodb+srv", "x"]),
    st.sampled_from(["", "bob", "bob@server", "b%40b"]),
    st.text("abcXYZ019-._~!$*+/#@:?&=", min_size=1, max_size=20).map(lambda t: f"z9{t}9z"),
    st.sampled_from(["h", "h:5432/d", "h/d?a=b", "[::1]:1/"]),
    st.sampled_from(["{}", "at {} now", '"{}"', "url={}, x=1", "[{}]"]),
)
def test_password_of_a_url_does_not_leak(
    scheme: str, user: str, secret: str, rest: str, frame: str
):
    assert secret not in redact_text(frame.format(f"{scheme}://{user}:{secret}@{rest}"))


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(TREES, spelled(), ANYTHING, st.lists(st.sampled_from("dlt"), max_size=6))
def test_nested_option_does_not_leak(tree: Any, name: str, secret: str, path: list[str]):
    value: Any = {name: secret, "tree": tree}
    for step in path:
        value = {"d": {"x": value}, "l": [tree, value], "t": (value,)}[step]
    masked = redact(value)
    assert secret not in repr(masked)
    assert secret not in json.dumps(masked, ensure_ascii=False)
    assert redact(masked) == masked


@given(st.text())
def test_any_text_is_taken_and_masking_twice_changes_nothing_more(text: str):
    masked = redact_text(text)
    assert redact_text(masked) == masked


@given(st.text(max_size=300))
def test_any_name_is_taken(name: str):
    assert is_secret_name(name) in (True, False)
