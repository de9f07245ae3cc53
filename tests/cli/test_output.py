"""Tables and progress bars; nothing that is printed acts on the terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from rich.cells import cell_len

from datasources import FetchRequest
from datasources.cli import output, progress, tables
from tests.cli.conftest import command
from tests.core.plugin_fixtures import Site


@given(
    st.text(st.characters(), max_size=40) | st.text("\x1b\x9b\r\n\u202e\udc80\x00[m", max_size=9)
)
def test_no_text_acts_on_a_terminal(text: str) -> None:
    shown = output.printable(text)
    shown.encode()  # no surrogate is left
    assert not [char for char in shown if ord(char) < 32 or 127 <= ord(char) < 160]
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
    text = output.to_json(value)
    assert text.isascii()
    assert json.loads(text) == {
        "a": ["1.50", "nan", "-inf", r"\x00ff", None, True, 2],
        "b": "2024-01-02T00:00:00+00:00",
        "3": [["x"], "\x1b\udc80"],
    }


def test_tables_align_numbers_right_and_end_without_blanks(capsys) -> None:
    tables.print_table(["name", "size", "x"], [["a", 5, None], ["long", 1000, ""], ["b", None, ""]])
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
    tables.print_table(["name", "size"], [["[bold]x[/bold]" + "y" * 60, 5], ["\x1b[2J", 12345]])
    text = terminal.getvalue()
    assert "[bold]x[/bold]" in text
    assert "─" in text
    assert text.count("y") == 60
    assert "\\x1b[2J" in text
    assert "\x1b[2J" not in text


def at_terminal(*args: str, stdout: int | None = None) -> tuple[int, bytes]:
    """Run a command at a terminal, with another `stdout` if given; return its exit code and output."""
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
    return process.wait(timeout=60), shown


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
    with progress.show(
        [FetchRequest("s", "\x1b[2J[red]x"), FetchRequest("s", "done")]
    ) as callbacks:
        callbacks[0](5, 10)
        callbacks[1](10, 10)
    assert "\\x1b[2J[red]x" in terminal.getvalue()
    assert "done" not in terminal.getvalue()


def test_bars_of_what_did_not_end_are_erased(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.show([FetchRequest("s", "endless")]) as callbacks:
        callbacks[0](5, None)
    drawn, _, after = terminal.getvalue().rpartition("endless")
    assert drawn
    assert "\x1b[1A\x1b[2K" in after


def run_in_shell(command: str) -> subprocess.CompletedProcess[str]:
    shell = f'exec "$0" -m datasources.cli {command}'
    return subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams_are_no_error(docs, closed: str) -> None:
    done = run_in_shell(f"items docs {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.csv" in done.stdout


COMMANDS = [
    "items docs", "items docs --json", "list", "plugins", "types", "template local_file",
    "show docs", "preview docs a.csv", "export", "keys list", "--version", "--help",
    "fetch docs a.csv --into ws",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_result_that_nobody_can_read_is_an_error(docs, command: str) -> None:
    done = run_in_shell(f"{command} >&-")
    assert (done.returncode, done.stderr) == (1, "Error: the output: Bad file descriptor\n")


@pytest.mark.parametrize(
    "command", ["items docs", *(pytest.param(c, marks=pytest.mark.soak) for c in COMMANDS[1:])]
)
def test_result_that_nobody_can_read_is_an_error_without_other_streams(docs, command: str) -> None:
    done = run_in_shell(f"{command} <&- >&-")
    assert (done.returncode, done.stderr) == (1, "Error: the output: Bad file descriptor\n")
    assert run_in_shell(f"{command} >&- 2>&-").returncode == 1


def test_change_without_a_result_needs_no_output(docs) -> None:
    for change in ("pause docs --reason r", "resume docs", "remove docs --yes"):
        assert run_in_shell(f"{change} >&-").returncode == 0


def test_no_file_takes_the_place_of_a_closed_stream(docs, site: Site) -> None:
    site.observer(
        "descriptors",
        "import os, datasources\n"
        "@datasources.hookimpl\n"
        "def datasources_operation_finished(operation):\n"
        "    opened = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
        "    assert opened[0] == opened[1] == opened[2] == os.devnull\n"
        "    open('closed', 'w').close()\n",
    )
    run_in_shell("items docs <&- >&- 2>&-")
    assert Path("closed").exists()


def fake_terminal(monkeypatch: pytest.MonkeyPatch, columns: str = "80") -> Terminal:
    """Put a terminal in place of stdout; not a fixture, as pytest sets stdout after the set-up."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    return terminal


@pytest.mark.parametrize("columns", ["", "0", "1", "10", "40", "80", "200", "nonsense"])
@pytest.mark.parametrize("count", [1, 2, 5, 18, 27, 44, 120])
def test_no_cell_of_a_table_is_lost_on_a_terminal_of_any_width(
    monkeypatch, columns: str, count: int
) -> None:
    terminal = fake_terminal(monkeypatch, columns)
    names = [f"column{index}" for index in range(count)]
    rows = [[f"r{row}c{index}" for index in range(count)] for row in range(3)]
    tables.print_table(names, rows)
    text = terminal.getvalue()
    assert not [name for name in names if name not in text]
    assert not [cell for row in rows for cell in row if cell not in text.split()]


def test_a_table_too_wide_for_the_terminal_is_printed_a_value_a_line(monkeypatch) -> None:
    terminal = fake_terminal(monkeypatch)
    names = [f"column{index}" for index in range(20)]
    tables.print_table(names, [range(20), [None] * 20])
    tables.print_table(names, [["x"] * 20], header=False)
    first, second, third = terminal.getvalue().split("\n\n")
    assert first.splitlines()[:2] == ["column0   0", "column1   1"]
    assert second.splitlines() == names
    assert third.splitlines()[19] == "column19  x"


def test_a_table_too_wide_without_rows_shows_its_columns(monkeypatch) -> None:
    terminal = fake_terminal(monkeypatch)
    names = [f"column{index}" for index in range(20)]
    tables.print_table(names, [])
    assert terminal.getvalue().split() == names


def test_long_cells_are_folded_to_readable_columns(monkeypatch) -> None:
    terminal = fake_terminal(monkeypatch)
    tables.print_table(["a", "b", "c"], [["x" * 100, "y" * 100, "short"]])
    lines = [line for line in terminal.getvalue().splitlines() if "x" in line]
    assert max(map(len, lines)) <= 80
    assert min(line.count("x") for line in lines[:-1]) >= 16
    assert terminal.getvalue().count("x") == terminal.getvalue().count("y") == 100


@pytest.mark.parametrize("columns", ["0", "80"])
def test_a_wide_preview_at_a_terminal_shows_every_cell(
    docs: Path, columns: str, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    names = [f"column{index}" for index in range(40)]
    cells = [f"cell{index}" for index in range(40)]
    (docs / "wide.csv").write_text(f"{','.join(names)}\n{','.join(cells)}\n")
    code, shown = at_terminal("preview", "docs", "wide.csv")
    assert code == 0
    assert set(names) | set(cells) <= set(shown.decode().split())


def test_bytes_of_a_preview_have_one_spelling(ok, sealed) -> None:
    cell = r"\x00"
    assert ok("preview", "sealed", "doc", "--json").json["rows"][1][1] == cell
    assert cell in ok("preview", "sealed", "doc").out.split()


def test_wide_characters_in_a_pipe_keep_the_columns_aligned(ok, docs: Path) -> None:
    for name in WIDE:
        (docs / f"{name}.txt").write_text("x")
    lines = [line for line in ok("items", "docs").out.splitlines() if ".txt " in line]
    times = [cell_len(line[: line.index("20")]) for line in lines]
    assert len(set(times)) == 1


WIDE = ["数据", "naïve", "ab", "😀", "e\u0301t\u0301", "한국어", "x"]


def test_columns_of_wide_characters_are_aligned_in_a_pipe(capsys) -> None:
    tables.print_table(["name", "size"], [[text, 5] for text in WIDE])
    tables.print_fields(dict.fromkeys(WIDE, "value"))
    lines = capsys.readouterr().out.splitlines()
    table, fields = lines[: len(WIDE) + 1], lines[len(WIDE) + 1 :]
    assert {cell_len(line) for line in table} == {len("数据xx") + 2 + len("  size")}
    assert {cell_len(line.removesuffix("value")) for line in fields} == {len("한국어") * 2 + 2}


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")])
def test_bytes_have_one_spelling_in_tables_fields_and_json(capsys, value: object) -> None:
    tables.print_table(["a"], [[value]])
    tables.print_fields({"a": value})
    output.print_json([value])
    assert capsys.readouterr().out.split() == [
        "a",
        r"\x00ff",
        "a",
        r"\x00ff",
        "[",
        r'"\\x00ff"',
        "]",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (131_673_628, "131.7 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (10**21, "1000000.0 PB"),
    ],
)
def test_sizes_have_a_unit_on_a_terminal_only(monkeypatch, count: int, text: str) -> None:
    fake_terminal(monkeypatch)
    assert str(tables.size(count)) == text
    assert tables.size(None) is None
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert str(tables.size(count)) == str(count)


@pytest.mark.parametrize(
    ("seconds", "text", "exact"),
    [
        (0, "1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00"),
        (1.7e9 + 0.25, "2023-11-14T22:13:20+00:00", "2023-11-14T22:13:20.250000+00:00"),
        (-1, "1969-12-31T23:59:59+00:00", "1969-12-31T23:59:59+00:00"),
        (1e300, "1e+300", 1e300),
        (None, "", None),
    ],
)
def test_times_are_in_utc_and_iso_form(seconds: float, text: str, exact: object) -> None:
    assert output.format_time(seconds) == text
    assert output.to_iso_time(seconds) == exact


def test_times_of_the_log_have_the_same_form(run, docs: Path) -> None:
    lines = run("-v", "items", "docs").err.splitlines()
    assert lines
    for line in lines:
        time = datetime.fromisoformat(line.partition(" ")[0])
        assert time.utcoffset() == timedelta(0)


def test_times_have_one_form_in_every_command(ok, docs: Path) -> None:
    os.utime(docs / "a.csv", (1.7e9, 1.7e9))
    time = "2023-11-14T22:13:20+00:00"
    assert ok("items", "docs", "--json").json[0]["modified_at"] == time
    assert time in ok("items", "docs").out.split()
    assert ok("info", "docs", "a.csv", "--json").json["modified_at"] == time
    assert time in ok("info", "docs", "a.csv").out.split()
    receipt = ok("fetch", "docs", "a.csv", "--into", str(docs / "ws"), "--json").json[0]
    for text in (
        receipt["fetched_at"],
        ok("show", "docs", "--json").json["created_at"],
        ok("list", "--json").json[0]["created_at"],
    ):
        parsed = datetime.fromisoformat(text)
        assert parsed.utcoffset() == timedelta(0)
        assert parsed.isoformat() == text
    assert ok("show", "docs", "--json").json["created_at"][:19] in ok("show", "docs").out


def test_many_files_have_one_bar_and_one_sum_at_a_terminal(docs: Path, tmp_path) -> None:
    for index in range(30):
        (docs / f"many{index}.csv").write_text("id\n1\n")
    args = ["fetch", "docs", "many*.csv", "--into"]
    code, shown = at_terminal(*args, str(tmp_path / "one"))
    assert code == 0
    text = shown.decode()
    assert "30 files, 150 B, " in text
    assert "30 files" in text[: text.index("150 B")]
    assert "many7.csv" not in text
    code, shown = at_terminal("-v", *args, str(tmp_path / "two"))
    assert code == 0
    assert {f"many{index}.csv" for index in range(30)} <= set(shown.decode().split())


def test_one_bar_for_many_files_adds_up(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    requests = [FetchRequest("s", f"item{index}") for index in range(11)]
    with progress.show(requests) as callbacks:
        for callback in callbacks.values():
            callback(500, 1000)
        for callback in callbacks.values():
            callback(1000, 1000)
    assert "item" not in terminal.getvalue()
    assert "11 of 11 files" in terminal.getvalue()
    assert "11.0/11.0 kB" in terminal.getvalue()
