"""What a terminal sees: tables, and nothing in them that acts on it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from datasources import FetchRequest
from datasources.cli import output
from datasources.cli.fetching import _progress
from tests.cli.conftest import command


@given(
    st.text(st.characters(), max_size=40) | st.text("\x1b\x9b\r\n\u202e\udc80\x00[m", max_size=9)
)
def test_no_text_acts_on_a_terminal(text: str) -> None:
    shown = output.clean(text)
    shown.encode()  # no surrogate is left
    assert not [each for each in shown if ord(each) < 32 or 127 <= ord(each) < 160]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028")
    assert len(shown.splitlines()) <= 1


ACTIVE = set(map(chr, [*range(9), *range(11, 32), *range(127, 160), 0x202E, 0xDC80]))


@pytest.mark.parametrize(
    "args",
    [
        ["items", "sealed"],
        ["info", "sealed", "doc"],
        ["preview", "sealed", "doc"],
        ["fetch", "sealed", "\x1b[2J", "--into", "\x1b[3J"],
        ["show", "\x1b[2J"],
        ["items", "sealed", "--json"],
        ["info", "sealed", "doc", "--json"],
        ["preview", "sealed", "doc", "--json"],
        ["info", "sealed", "leak"],
        ["-v", "info", "sealed", "leak"],
        ["bogus\x1b[2J"],
        ["--config", "\x1b[2J", "list"],
    ],
)
def test_hostile_names_cells_and_messages_are_harmless(run, sealed, args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*args)
    assert not ACTIVE & set(done.out + done.err)
    assert re.search(r"\\x1b|\\u001b", done.out + done.err)


def test_what_the_encoding_of_the_output_lacks_is_escaped(docs: Path) -> None:
    (docs / "naïve 🐎.csv").touch()
    latin = {"env": {"PYTHONIOENCODING": "latin-1"}, "encoding": "latin-1"}
    assert "naïve \\U0001f40e.csv" in command("items", "docs", **latin).stdout
    assert "na\\u00efve \\ud83d\\udc0e.csv" in command("items", "docs", "--json", **latin).stdout


def test_json_holds_what_databases_return() -> None:
    value = {
        "a": [Decimal("1.50"), float("nan"), float("-inf"), b"\x00\xff", None, True, 2],
        "b": datetime(2024, 1, 2, tzinfo=UTC),
        3: ({"x"}, "\x1b\udc80"),
    }
    text = output.json_text(value)
    assert text.isascii()
    assert json.loads(text) == {
        "a": ["1.50", "nan", "-inf", "00ff", None, True, 2],
        "b": "2024-01-02T00:00:00+00:00",
        "3": [["x"], "\x1b\udc80"],
    }


def test_tables_align_numbers_right_and_end_without_blanks(capsys) -> None:
    output.table(["name", "size", "x"], [["a", 5, None], ["long", 1000, ""], ["b", None, ""]])
    assert capsys.readouterr().out == "name  size  x\na        5\nlong  1000\nb\n"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_tables_are_drawn_and_long_cells_kept_whole(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    output.table(["name", "size"], [["[bold]x[/bold]" + "y" * 60, 5], ["\x1b[2J", 12345]])
    text = terminal.getvalue()
    assert "[bold]x[/bold]" in text
    assert "─" in text
    assert text.count("y") == 60
    assert "\\x1b[2J" in text
    assert "\x1b[2J" not in text


def at_terminal(*args: str, stdout: int | None = None) -> tuple[int, bytes]:
    """Run a command at a terminal, but for `stdout` if given; return code and what it showed."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "datasources.cli", *args],
        stdin=slave,
        stdout=stdout or slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 1000)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    return process.wait(timeout=30), shown


def test_progress_is_drawn_on_a_terminal_and_the_result_stays_clean(sealed, tmp_path) -> None:
    result = tmp_path / "result.json"
    args = ["fetch", "sealed", "steps", "--into", str(tmp_path / "ws"), "--json"]
    with result.open("wb") as file:
        code, shown = at_terminal(*args, stdout=file.fileno())
    assert code == 0
    assert json.loads(result.read_text())[0]["size"] == 12
    assert b"steps" in shown
    assert b"/12 bytes" in shown


def test_a_table_at_a_terminal_is_drawn(docs) -> None:
    code, shown = at_terminal("list")
    assert code == 0
    assert "─".encode() in shown


def test_names_at_progress_bars_are_harmless(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with _progress([FetchRequest("s", "\x1b[2J[red]x"), FetchRequest("s", "done")]) as callbacks:
        callbacks[0](5, 10)
        callbacks[1](10, 10)
    assert "\\x1b[2J[red]x" in terminal.getvalue()
    assert "done" not in terminal.getvalue()


def test_bars_of_what_did_not_end_are_erased(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with _progress([FetchRequest("s", "endless")]) as callbacks:
        callbacks[0](5, None)
    drawn, _, after = terminal.getvalue().rpartition("endless")
    assert drawn
    assert "\x1b[1A\x1b[2K" in after


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "2>&-"])
def test_closed_streams_are_no_error(docs, closed: str) -> None:
    shell = f'exec "$0" -m datasources.cli items docs {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
