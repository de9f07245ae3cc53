"""Limits hold for all processes of a sandbox together; what exceeds them ends, and nothing else."""

from __future__ import annotations

import hashlib
import os
import queue
import subprocess
import sys
from pathlib import Path

import pytest

from datasources_agents.sandbox import supervisor
from datasources_agents.sandbox.cgroups import ControlGroups
from datasources_agents.sandbox.models import RunLimits
from tests.sandbox.hosts import WITH_BUBBLEWRAP, Host

MIB = 1 << 20

FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
MANY_PROCESSES = """
import os, time
for _ in range(32):
    if os.fork() == 0:
        taken = b"x" * (6 << 20)
        time.sleep(60)
time.sleep(60)
"""
FILES_IN_MEMORY = """
import time
for folder in ("/tmp", "/dev/shm"):
    with open(f"{folder}/file", "wb") as file:
        try:
            while file.write(bytes(1 << 20)):
                file.flush()
        except OSError as error:
            print(folder, error.errno)
"""
SHARED_MEMORY = """
import mmap, time
shared = mmap.mmap(-1, 200 << 20)
for start in range(0, 200 << 20, 4096):
    shared[start] = 1
time.sleep(60)
"""
FULL_DISK = """
import os, time
for number in range(100):
    with open(f"file{number}", "wb") as file:
        file.write(bytes(1 << 20))
    time.sleep(0.05)
time.sleep(60)
"""
SPARSE_FILE = """
import time
with open("sparse", "wb") as file:
    file.truncate(3 << 20)
    print("sparse")
    try:
        file.truncate(1 << 40)
    except OSError as error:
        print(error.errno)
for number in range(4):
    with open(f"sparse{number}", "wb") as file:
        file.truncate(3 << 20)
time.sleep(60)
"""
MANY_FILES = """
import time
for number in range(10_000):
    open(f"file{number}", "wb").close()
time.sleep(60)
"""
DEEP_FOLDERS = """
import os, time
for _ in range(2000):
    os.mkdir("d")
    os.chdir("d")
time.sleep(60)
"""
LONG_NAMES = """
import os, time
for _ in range(70):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
os.chmod(".", 0o500)
time.sleep(60)
"""
HIDDEN_FILES = """
import os, time
os.mkdir("d", 0o300)
for number in range(100):
    with open(f"d/file{number}", "wb") as file:
        file.write(bytes(1 << 20))
time.sleep(60)
"""
DELETED_FILES = """
import os, time
files = []
for _ in range(100):
    files.append(open("file", "wb", 0))
    os.unlink("file")
    files[-1].write(bytes(1 << 20))
time.sleep(60)
"""
GIGABYTE_OF_OUTPUT = """
import os
for _ in range(1 << 14):
    os.write(1, b"x" * 65536)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here")
while True:
    time.sleep(1)
"""
CLOSED_OUTPUT = """
import os, time
os.close(1), os.close(2)
open("done", "w").write("yes")
"""
LEFT_SESSION = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
print("gone")
"""
SUICIDE = "import os; os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    ("code", "reason", "limits"),
    [
        pytest.param(FORK_BOMB, "timeout", {"processes": 24, "timeout": 2}, id="fork bomb"),
        pytest.param(MANY_PROCESSES, "memory", {"memory": 96 * MIB}, id="32 processes"),
        pytest.param(SHARED_MEMORY, "memory", {"memory": 96 * MIB}, id="shared memory"),
        pytest.param(FULL_DISK, "disk", {"disk": 4 * MIB}, id="full disk"),
        pytest.param(SPARSE_FILE, "disk", {"disk": 4 * MIB}, id="sparse files"),
        pytest.param(MANY_FILES, "disk", {"files": 1000}, id="many files"),
        pytest.param(DEEP_FOLDERS, "disk", {}, id="deep folders"),
        pytest.param(LONG_NAMES, "disk", {}, id="deep folders of long names"),
        pytest.param(HIDDEN_FILES, "disk", {"disk": 4 * MIB}, id="hidden files"),
        pytest.param(DELETED_FILES, "disk", {"disk": 4 * MIB}, id="deleted files"),
        pytest.param(GIGABYTE_OF_OUTPUT, "output", {}, id="a gigabyte of output"),
        pytest.param(STUBBORN, "timeout", {"timeout": 2}, id="SIGTERM ignored"),
        pytest.param(SUICIDE, "killed", {}, id="killed"),
    ],
)
def test_run_that_exceeds_a_limit_ends_with_its_reason(
    host: Host, code: str, reason: str, limits: dict[str, float]
) -> None:
    result = host.run(code, **{"timeout": 120, **limits})
    assert (result["reason"], result["exit_code"]) == (reason, None), result
    assert len(result["output"]) <= MIB


def test_deleted_files_are_found_though_other_programs_free_as_much_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "free_bytes", lambda _: 1 << 40)
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    os.unlink(tmp_path / "file")
    os.posix_fallocate(descriptor, 0, 8 * MIB)
    reasons: queue.SimpleQueue[str] = queue.SimpleQueue()
    limits = RunLimits(disk=4 * MIB)
    groups = ControlGroups([], limits.memory, limits.processes)
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
    )
    watching = supervisor.Supervisor(process.pid, [], str(tmp_path), limits, groups, reasons.put)
    try:
        watching.start()
        assert reasons.get(timeout=60) == "disk"
    finally:
        watching.stop()
        process.communicate()
        os.close(descriptor)


@pytest.mark.parametrize("code", [CLOSED_OUTPUT, LEFT_SESSION], ids=["closed", "left"])
def test_run_ends_when_its_script_ends_whatever_it_leaves(host: Host, code: str) -> None:
    result = host.run(code, timeout=120)
    assert (result["reason"], result["exit_code"]) == ("ok", 0)


@pytest.mark.parametrize("host", WITH_BUBBLEWRAP, indirect=True)
def test_files_in_memory_are_bounded(host: Host) -> None:
    result = host.run(FILES_IN_MEMORY, memory=256 * MIB, timeout=120)
    assert result["output"] == "/tmp 28\n/dev/shm 28\n"


def test_files_that_changed_are_reported_with_size_and_hash(host: Host) -> None:
    code = "open('a b', 'wb').write(b'text'); import os; os.symlink('/etc/passwd', 'link')"
    result = host.run(code)
    assert result["files"] == {"a b": [4, hashlib.sha256(b"text").hexdigest()]}


def test_memory_that_one_process_asks_for_in_vain_is_an_error_of_the_script(host: Host) -> None:
    result = host.run("bytearray(500 << 20)", memory=100 * MIB)
    assert (result["reason"], result["exit_code"]) == ("ok", 1)
    assert "MemoryError" in result["output"]


HIDDEN = """
import os, time
os.makedirs("a/b")
open("a/b/file", "w").write("text")
for path in ("a/b/file", "a/b", "a", "."):
    os.chmod(path, 0)
time.sleep(0.2)  # meanwhile, the folders are looked at
"""


def test_workspace_that_the_code_has_closed_is_opened_again(host: Host) -> None:
    result = host.run(HIDDEN, timeout=120)
    assert set(result["files"]) == {"a/b/file"}
