"""Masking of hostile texts, beside texts of an eighth of the length: no pattern backtracks.

Time is that of the process itself: whatever else runs on the machine does not count.
"""

from __future__ import annotations

import time

import pytest

from datasources.redaction import redact_text

pytestmark = pytest.mark.bench

SHORT, LONG = 8_000, 64_000  # characters

HOSTILE = [
    "a",
    "a ",
    "a=",
    "a:",
    "a@",
    "a:/",
    "://",
    "://a:b",
    "://:",
    "-",
    ".",
    "'",
    "\\",
    '\\"',
    "{",
    "password=",
    "password='",
    'password=\\"',
    "password={",
    "password=[(",
    "password: ",
    "key=",
    "password=|\n x\n",
    "password=;a ",
    "password=;",
    "Pwd=a b",
    '"token":',
    "--p ",
    "<a ",
    "<a>",
    "('a', ",
    'name="a" ',
    "identified by ",
    "basic a",
    "bearer ",
    "eyJ",
    "eyJ-",
    "SG.",
    "sk-",
    "%3A%2F%2F%3A",
    "%26sig%3D",
    "%253D",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
    "%2B",
    "jdbc:oracle:a:a/",
    "authorization: ",
    "http://",
    "${env:",
    "hooks.slack.com/a/",
    " ",
    "\n",
]


def cost(unit: str, length: int, rounds: int) -> float:
    """Return the least processor seconds that masking repetitions of `unit` took."""
    text = unit * (length // len(unit))
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        redact_text(text)
        seconds.append(time.process_time() - started)
    return min(seconds)


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_no_faster_than_the_text(unit: str):
    # Eight times the length takes 64 times as long where a pattern backtracks over all of it.
    short = max(cost(unit, SHORT, rounds=3), 0.001)
    long = cost(unit, LONG, rounds=2)
    print(f"{unit!r:36}{long / short:8.1f} times for {LONG // SHORT} times the length")
    assert long < 24 * short
