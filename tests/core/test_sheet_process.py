"""The process that reads a workbook, taken over by the workbook: the host loses nothing by it."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import json
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from datasources import (
    DataFetchError,
    DataSourceConfig,
    DataSourceRegistry,
    preview_workbook,
    run_in_thread,
)
from datasources.preview import sheet_process
from datasources.preview.sheet_lines import from_lines, to_lines
from datasources.preview.sheets import Sheets
from tests.core.workbooks import xlsx
from tests.waiting import wait_until, wait_until_blocking

pytest.importorskip("python_calamine")

WORKBOOK = xlsx(Data=[["id"], [1]])
HEAD = b'{"names": ["A"], "hidden": [], "columns": ["a"], "unset_formulas": false, "rows": 1}'
PREFIX = "cannot be read as a workbook: "
Take = Callable[[str], None]


@pytest.fixture
def take_over(monkeypatch: pytest.MonkeyPatch) -> Take:
    """Return a function that sets the program of the process."""
    return lambda program: monkeypatch.setattr(sheet_process, "_PROGRAM", program)


def children() -> list[psutil.Process]:
    """Return the readers of workbooks below this process, which may have servers of tests as well."""
    processes = psutil.Process().children(recursive=True)
    return [process for process in processes if command_of(process)[1:3] == ["-I", "-c"]]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # such as that of a server which has just ended
        return []


def processes_with(word: str) -> list[psutil.Process]:
    """Return the processes with a word in their command line, wherever they hang."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if word in " ".join(process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_answer_that_is_a_pickle_runs_no_code(take_over: Take, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(mark),)

    take_over(f"import sys; sys.stdout.buffer.write({pickle.dumps(Payload())!r} + b'\\n')")
    with pytest.raises(DataFetchError, match=f"{PREFIX}the answer of its reader is damaged"):
        preview_workbook(WORKBOOK, "a.xlsx")
    assert not mark.exists()


def test_process_has_no_variable_of_the_host(
    take_over: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", "the-key")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/missing")
    take_over("import json, os; print(json.dumps({'error': ' '.join(sorted(os.environ))}))")
    with pytest.raises(DataFetchError) as caught:
        preview_workbook(WORKBOOK, "a.xlsx")
    variables = set(str(caught.value).partition(PREFIX)[2].split())
    assert variables <= {"LD_LIBRARY_PATH", "LC_CTYPE"}  # Python itself sets the second


@pytest.mark.parametrize("endless", [b"[" * 1000, b'["' + b"x" * 1000])
def test_answer_without_end_is_cut_off(take_over: Take, endless: bytes) -> None:
    take_over(
        f"import sys; sys.stdout.buffer.write({HEAD + b'%c' % 10!r})\n"
        f"while True: sys.stdout.buffer.write({endless!r} * 1000)"
    )
    with pytest.raises(DataFetchError, match=f"{PREFIX}its cells take more than 16777216 bytes"):
        preview_workbook(WORKBOOK, "a.xlsx")
    assert children() == []


def test_no_more_rows_are_received_than_were_asked_for(take_over: Take) -> None:
    head = HEAD.replace(b"1}", b"999999999}\n")
    take_over(
        f"import sys; sys.stdout.buffer.write({head!r})\n"
        "while True: sys.stdout.buffer.write(b'[1]' + bytes([10]))"
    )
    preview = preview_workbook(WORKBOOK, "a.xlsx", 3)
    assert (list(preview.rows), preview.truncated) == ([(1,)] * 3, True)
    assert children() == []


def test_process_that_does_not_end_is_killed_with_those_it_started(
    take_over: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet_process, "_MAX_WAIT", 1.0)
    sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    take_over(f"import os; os.fork(); mark = 'endless-{os.getpid()}'; {sleep}")
    with pytest.raises(DataFetchError, match=f"{PREFIX}it takes more than .* 120 seconds"):
        preview_workbook(WORKBOOK, "a.xlsx")
    wait_until_blocking(lambda: not processes_with(f"endless-{os.getpid()}"))


def test_reading_ends_though_another_process_holds_its_output(
    take_over: Take, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    asked = itertools.count()
    # The time is over once the other process is there; it is asked first when the time begins.
    clock = SimpleNamespace(monotonic=lambda: 1e6 * (next(asked) > 0 and pid_file.exists()))
    monkeypatch.setattr(sheet_process, "time", clock)
    take_over(
        "import os, time\n"
        "if os.fork() == 0:\n"
        f"    os.setsid(); open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    with pytest.raises(DataFetchError, match=f"{PREFIX}it takes more than"):
        preview_workbook(WORKBOOK, "a.xlsx")
    wait_until_blocking(lambda: pid_file.exists() and pid_file.read_text())
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


async def test_cancelled_preview_leaves_no_process(take_over: Take) -> None:
    take_over(f"mark = 'cancelled-{os.getpid()}'; import time; time.sleep(600)")
    task = asyncio.create_task(run_in_thread(preview_workbook, WORKBOOK, "a.xlsx"))
    await wait_until(lambda: processes_with(f"cancelled-{os.getpid()}"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes_with(f"cancelled-{os.getpid()}") == []
    assert children() == []


async def test_cancelled_preview_of_a_source_leaves_no_process(
    take_over: Take, tmp_path: Path
) -> None:
    (tmp_path / "a.xlsx").write_bytes(WORKBOOK)
    take_over(f"mark = 'shown-{os.getpid()}'; import time; time.sleep(600)")
    async with DataSourceRegistry() as registry:
        config = DataSourceConfig("d", "local_file", "D", {"path": str(tmp_path)})
        await registry.register_data_source(config)
        task = asyncio.create_task(registry.preview("d", "a.xlsx"))
        await wait_until(lambda: processes_with(f"shown-{os.getpid()}"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert processes_with(f"shown-{os.getpid()}") == []


def test_process_can_open_and_start_nothing_once_it_reads(take_over: Take) -> None:
    take_over(
        """
import json, os, resource, sys
sys.path[:] = json.loads(sys.argv.pop())
from datasources.preview import sheet_process
def read(content, rows):
    try:
        open('/proc/self/environ', 'rb')
    except OSError as exc:
        cores = resource.getrlimit(resource.RLIMIT_CORE)
        rights = os.getuid() == 0, resource.getrlimit(resource.RLIMIT_NPROC), cores
        return f'{exc.strerror}, {rights}'
sheet_process.read = read
sheet_process.main()
"""
    )
    with pytest.raises(DataFetchError, match=r"Too many open files, \(False, \(0, 0\), \(0, 0\)\)"):
        preview_workbook(WORKBOOK, "a.xlsx")


CELLS: list[Any] = [
    None, True, 0, -(2**63), 1.5, "", "Müller \x01 \\ud800 \u2028", dt.date(1900, 1, 1),
    dt.datetime.fromisoformat("2024-02-29T01:02:03.000004"), dt.time(23, 59, 59, 999999),
    dt.timedelta(days=-1, microseconds=1), dt.timedelta(days=400),
]  # fmt: skip


def test_cells_arrive_as_they_were_read() -> None:
    sheets = Sheets(["A", "B"], ["B"], ["x", "ü"], [CELLS, [], ["\x00"]], unset_formulas=True)
    assert from_lines(to_lines(sheets)) == sheets
    assert from_lines(to_lines("no file \x00")) == "no file \x00"
    received = from_lines(to_lines(Sheets(rows=[CELLS])))
    assert isinstance(received, Sheets)
    assert [type(cell) for cell in received.rows[0]] == [type(cell) for cell in CELLS]


@pytest.mark.parametrize(
    "row",
    [
        b"", b"1", b"null", b'"a"', b"[", b"[[]]", b"[" * 100_000, b'[{"a": 1, "b": 2}]', b"[{}]",
        b'[{"date": "2024-13-01"}]', b'[{"date": 1}]', b'[{"error": "x"}]',
        b'[{"timedelta": 1e300}]', b'[{"timedelta": "x"}]', b'[{"timedelta": []}]',
        b'[{"datetime": "2024-01-01T00:00:00+00:00"}]', b'[{"Decimal": "1"}]',
        b'["\\ud800"]', b"[9223372036854775808]", b"[" + b"9" * 5000 + b"]", b'["\xff"]',
        b"\xff\xfe[\x001\x00]\x00",
    ],
    ids=lambda row: repr(row[:20]),
)  # fmt: skip
def test_damaged_row_is_refused(row: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        from_lines(iter([HEAD, row]))


@pytest.mark.parametrize(
    "change",
    [
        {"names": "A"}, {"names": [1]}, {"names": {"A": 1}}, {"columns": [None]}, {"hidden": None},
        {"rows": "1"}, {"rows": None}, {"rows": 1.5}, {"more": 1}, {"__class__": 1},
    ],
    ids=str,
)  # fmt: skip
def test_damaged_first_line_is_refused(change: dict[str, Any]) -> None:
    head = json.dumps(json.loads(HEAD) | change).encode()
    with pytest.raises(ValueError, match="damaged"):
        from_lines(iter([head, b"[1]"]))


@pytest.mark.parametrize("head", [b"", b"1", b"[]", b'"error"', b"null", b"{}", b'{"rows": 1}'])
def test_first_line_that_is_no_object_of_sheets_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        from_lines(iter([head]))
