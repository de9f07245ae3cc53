"""What sandlock leaves open is closed, and it is taken where bubblewrap does not work."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from datasources_agents.sandbox import backends, bubblewrap
from datasources_agents.sandbox.interpreter import find_interpreter
from tests.sandbox.conftest import reachable_python, skip_without_landlock
from tests.sandbox.hosts import WITH_SANDLOCK, Host

# The parent of the script is the keeper, which is in no sandbox and has the same user.
TOUCHES_ITS_USER = """
import ctypes, json, os, resource, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def error(function, *arguments):
    try:
        result = function(*arguments)
    except OSError as exc:
        return exc.errno
    return ctypes.get_errno() if result == -1 else result
keeper, above = os.getppid(), os.path.dirname(sys.argv[0])
mode = os.stat(above).st_mode
os.chmod(above, 0o777)
os.utime(above, (1, 1))
results = {
    "limits": error(resource.prlimit, keeper, resource.RLIMIT_NOFILE, (20, 20)),
    "affinity": error(os.sched_setaffinity, keeper, {0}),
    "priority": error(os.setpriority, os.PRIO_PROCESS, keeper, 19),
    "signal": error(os.kill, keeper, 9),
    "ptrace": error(libc.ptrace, 16, keeper, 0, 0),
    "attribute": error(os.setxattr, above, "user.name", b"value"),
    "watch": error(libc.inotify_add_watch, libc.inotify_init(), above.encode(), 0xFFF),
    "semaphores": error(libc.semget, 0, 1, 0o1600),
    "queue": error(libc.mq_open, b"/name", os.O_CREAT | os.O_RDWR, 0o600, None),
    "namespace": error(libc.unshare, 0x10000000),
    "vsock": error(socket.socket, 40, socket.SOCK_STREAM),
    "network": error(socket.create_connection, ("169.254.169.254", 80), 2),
    "processes": error(os.listdir, "/proc"),
    "folder": error(os.listdir, "/"),
    "write": error(open, f"{above}/new", "w"),
    "script": error(open, sys.argv[0], "a"),
    "own limits": error(resource.setrlimit, resource.RLIMIT_NOFILE, (20, 20)),
    "is_root": os.getuid() == 0,
    "mode": os.stat(above).st_mode - mode,
    "is_touched": os.stat(above).st_mtime == 1,
}
print(json.dumps(results))
"""


@pytest.mark.parametrize("host", WITH_SANDLOCK, indirect=True)
def test_code_cannot_touch_what_its_user_may(host: Host) -> None:
    results = json.loads(host.run(TOUCHES_ITS_USER)["output"])
    refused = {name for name, value in results.items() if value in (1, 13)}  # EPERM, EACCES
    assert refused == {
        "affinity",
        "attribute",
        "folder",
        "limits",
        "namespace",
        "network",
        "priority",
        "processes",
        "ptrace",
        "queue",
        "script",
        "semaphores",
        "signal",
        "watch",
        "write",
    }
    assert results["vsock"] == 97  # EAFNOSUPPORT
    assert results["own limits"] is None
    assert (results["is_root"], results["mode"], results["is_touched"]) == (False, 0, False)


async def test_sandlock_is_taken_where_bubblewrap_does_not_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skip_without_landlock()
    monkeypatch.setattr(backends, "_working", {})
    monkeypatch.setattr(bubblewrap, "find_bubblewrap", lambda: None)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        monkeypatch.setattr("tempfile.tempdir", folder)
        backend = await backends.choose_backend(None, find_interpreter(reachable_python()))
        assert os.listdir(folder) == []
    assert backend.name == "sandlock"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs code under its own id")
@pytest.mark.parametrize("host", WITH_SANDLOCK[:1], indirect=True)
def test_semaphores_of_sandlock_are_removed_with_the_user_of_a_run(host: Host) -> None:
    user = int(host.run("import os; print(os.getuid())")["output"])
    rows = [line.split() for line in Path("/proc/sysvipc/sem").read_text().splitlines()[1:]]
    assert [row for row in rows if int(row[4]) == user] == []
