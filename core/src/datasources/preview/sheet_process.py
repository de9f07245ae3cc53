"""Read workbooks in processes of their own, which are not trusted.

A workbook of a few kilobytes may have one cell at the end of its sheet. python-calamine allocates
all cells before it, and a failed allocation of Rust code ends the process that it is in. And a
workbook may be made to take over the process that reads it: that process has none of the host's
variables, cannot open files or connections, and its answer is data of a bounded size.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

from datasources.preview.sheet_lines import from_lines, to_lines
from datasources.preview.sheets import Sheets, read
from datasources.threads import is_cancelled

MAX_MEMORY = 2 * 1024 * 1024 * 1024
"""Bytes of address space that the process may have."""
MAX_SECONDS = 120
"""Processor time that it may take."""
_MAX_WAIT = 180.0  # seconds until it has ended
_MAX_ANSWER = 256 * 1024 * 1024  # bytes
_MAX_PREVIEW = 16 * 1024 * 1024
_TOO_MUCH = f"it takes more than {MAX_MEMORY} bytes of memory or {MAX_SECONDS} seconds"
_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # an interpreter may need them to start
_NOBODY = 65534
_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv.pop())
from datasources.preview.sheet_process import main
main()
"""


class _ReadingError(Exception):
    """A process gives no answer; the text says why."""


def interpreter() -> str | None:
    """Return the path of this Python, or None in a program that has none, as of PyInstaller.

    uWSGI and programs that embed Python are the executable themselves; the interpreter that they
    were installed with is used then.
    """
    if getattr(sys, "frozen", False):
        return None
    if os.path.basename(sys.executable or "").lower().startswith(("python", "pypy")):
        return sys.executable
    name = "python{}.{}".format(*sys.version_info)
    path = os.path.join(sys.exec_prefix, "bin", name)
    return path if os.access(path, os.X_OK) else None


def read_apart(python: str, content: bytes, rows: int | None) -> Sheets | str:
    """Return the sheets of a workbook, or the reason why they cannot be read. This blocks.

    `python` is the interpreter that reads. The process has ended when this returns, also if the caller of `run_in_thread` was cancelled.
    """
    arguments = ["" if rows is None else str(rows), json.dumps(sys.path)]
    try:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            process = subprocess.Popen(  # noqa: S603  (this Python, with a program of ours)
                [python, "-I", "-c", _PROGRAM, *arguments],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
                start_new_session=True,
            )
    except OSError as exc:
        return f"no process can be started for it: {exc.strerror}"
    try:
        lines = _lines(process, _MAX_ANSWER if rows is None else _MAX_PREVIEW)
        return from_lines(lines, rows)
    except (_ReadingError, ValueError) as exc:
        return str(exc)
    finally:
        _end(process)


def _lines(process: subprocess.Popen[bytes], limit: int) -> Iterator[bytes]:
    """Yield the lines that a process writes.

    Raises:
        _ReadingError: They take too long or are too large, the process has ended, or the caller was
            cancelled.
    """
    pending = bytearray()
    for part in _parts(process, limit):
        start = len(pending)
        pending += part
        while (end := pending.find(b"\n", start)) >= 0:
            yield bytes(pending[:end])
            del pending[: end + 1]
            start = 0


def _parts(process: subprocess.Popen[bytes], limit: int) -> Iterator[bytes]:
    assert process.stdout is not None
    deadline = time.monotonic() + _MAX_WAIT
    received = 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not is_cancelled():
            if time.monotonic() > deadline:
                break
            if not selector.select(0.1):
                continue
            part = os.read(process.stdout.fileno(), 1024 * 1024)
            if not part:  # it was killed, or has ended by itself
                break
            received += len(part)
            if received > limit:
                raise _ReadingError(f"its cells take more than {limit} bytes")
            yield part
    raise _ReadingError(_TOO_MUCH)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it has started, and wait until it has ended."""
    # It is not waited for before, so its number still names this process and its session only.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def main() -> None:
    """Read a workbook from standard input, and write its sheets or an error as lines of JSON."""
    # Nothing can be opened later, so the reader and the encoding of ZIP archives are loaded now.
    import_module("python_calamine")
    "".encode("cp437")
    content = sys.stdin.buffer.read()
    _give_up_rights()
    answer: Sheets | str
    try:
        answer = read(content, int(sys.argv[1]) if sys.argv[1] else None)
    except MemoryError:
        raise
    except BaseException as exc:  # noqa: BLE001  (a panic of Rust code is no Exception)
        answer = str(exc)
    sys.stdout.buffer.writelines(to_lines(answer))


def _give_up_rights() -> None:
    """Bound memory and processor time; open, write and start nothing from now on."""
    if os.getuid() == 0:  # which could take the limits back
        with suppress(OSError):  # in a namespace that has no other user
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_CORE"):
        if hasattr(resource, name):
            resource.setrlimit(getattr(resource, name), (0, 0))
