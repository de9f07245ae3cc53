"""Start the code of a run under sandlock, and end every process of it.

It is run as `python -I keeper.py JSON STATUS`, outside the sandbox, and imports nothing of this
package. sandlock gives no namespace of processes: a process of the sandbox that leaves its session
would go on after the script. All of them descend from this one, which gets those whose parent has
ended, and kills them at the end of the script, on SIGTERM, and at the end of the host. Then it deletes
the folder of the run.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_CHILD_SUBREAPER = 1, 4, 36  # of `prctl`
_ENDED = signal.SIGUSR1
_libc = ctypes.CDLL(None)


def main(settings: str, status: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, _ENDED})  # in all threads
    values = json.loads(settings)
    sys.path.append(values["packages"])
    sandlock = importlib.import_module("sandlock")  # while the files of root can be read

    code = 1
    try:
        _prepare(values)
        if os.getppid() == values["host"]:
            code = _run(sandlock, values, int(status))
    finally:
        _end_processes_below(os.getpid())
        if values["user"] is not None:
            _remove_semaphores(values["user"])
        shutil.rmtree(values["folder"], ignore_errors=True)
    os._exit(code)


def _prepare(values: dict[str, Any]) -> None:
    user = values["user"]
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        _libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)  # sandlock reads its own `/proc`
    _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)  # after the ids, which reset it


def _run(sandlock: Any, values: dict[str, Any], status: int) -> int:
    """Return the exit code of the script, or 128 and the number of the signal that has ended it."""
    os.chdir(values["options"]["cwd"])  # an error here says what cannot be entered
    process = sandlock.Sandbox(**values["options"]).popen(values["command"])
    results = []

    def wait() -> None:
        results.append(process.wait())
        os.kill(os.getpid(), _ENDED)

    threading.Thread(target=wait, daemon=True).start()
    ids = {"child-pid": os.getpid(), "code-pid": process.pid}
    os.write(status, json.dumps(ids).encode() + b"\n")
    signal.sigwait({signal.SIGTERM, _ENDED})
    if not results:
        return 128 + signal.SIGKILL
    (result,) = results
    if result.exit_code >= 0:
        return int(result.exit_code)
    return 128 + (result.signal if result.signal > 0 else signal.SIGKILL)  # which it does not name


def _end_processes_below(process: int) -> None:
    """Kill all processes that descend from one; those that have lost their parent come to it."""
    while below := _processes_below(process):
        for one in below:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.001)


def _processes_below(process: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
            # After the name of the program, which may hold anything, come state and parent.
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    below = children.get(process, [])
    for one in below:  # which grows meanwhile
        below += children.get(one, ())
    return below


def _remove_semaphores(user: int) -> None:
    """Remove the semaphores in which sandlock keeps the names of the sandboxes of a user."""
    with open("/proc/sysvipc/sem") as file:
        rows = [line.split() for line in file][1:]
    for row in rows:
        if int(row[4]) == user:
            _libc.semctl(int(row[1]), 0, 0)  # IPC_RMID


if __name__ == "__main__":
    main(*sys.argv[1:])
