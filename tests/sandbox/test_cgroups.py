"""Control groups count for a whole sandbox, where a host may make them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasources import WorkspaceSession
from datasources_agents.sandbox import Runner

pytestmark = pytest.mark.usefixtures("sandbox")

ROOT = Path("/sys/fs/cgroup")
PIDS, UNIFIED = ROOT / "pids", ROOT / "unified"


def is_above_all(controller: str) -> bool:
    """Return True if this process is in the group above all others, and may make groups in it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    groups = [line.split(":", 2)[1:] for line in lines]
    is_own = any(controller in names.split(",") and path == "/" for names, path in groups)
    return is_own and os.access(ROOT / controller, os.W_OK)


@pytest.fixture
def parent() -> Iterator[Path]:
    """A group of processes of this test alone, which has no groups in it at the end."""
    folder = PIDS / f"tests-{os.urandom(8).hex()}"
    folder.mkdir()
    yield folder
    folder.rmdir()


@pytest.mark.skipif(not is_above_all("pids"), reason="no group of processes can be made here")
async def test_group_is_found(session: WorkspaceSession) -> None:
    result = await Runner().run("print(1)", session)
    assert result.held_by["processes"] == "cgroup"


@pytest.mark.skipif(not is_above_all("pids"), reason="no group of processes can be made here")
async def test_group_counts_processes_and_is_removed(
    session: WorkspaceSession, parent: Path
) -> None:
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        made += 1\n"
        "except OSError: print(made)\n"
    )
    result = await Runner(cgroups=[str(parent)]).run(code, session, processes=10)
    assert result.held_by["processes"] == "cgroup"
    assert (result.reason, result.output) == ("ok", b"9\n")


@pytest.mark.skipif(not is_above_all("pids"), reason="no group of processes can be made here")
async def test_group_has_every_process_of_the_sandbox(
    session: WorkspaceSession, parent: Path
) -> None:
    counts = []

    def look(_: bytes) -> None:
        if not Path(session.path, "go").exists():  # the end of the line may come by itself
            (group,) = parent.glob("datasources-*")
            counts.append(len((group / "cgroup.procs").read_text().split()))
            Path(session.path, "go").touch()

    code = "import os, time\nprint(1)\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    for _ in range(5):
        await Runner(cgroups=[str(parent)]).run(code, session, on_output=look)
        Path(session.path, "go").unlink()
    assert set(counts) == {2}  # the first one is bubblewrap's


@pytest.mark.skipif(not is_above_all("memory"), reason="no group of memory can be made here")
async def test_group_of_memory_ends_the_run_that_exceeds_it(session: WorkspaceSession) -> None:
    code = (
        "import os, time\n"
        "for _ in range(32):\n"
        "    if os.fork() == 0:\n"
        "        taken = b'x' * (6 << 20)\n"
        "        time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    result = await Runner().run(code, session, memory=96 << 20)
    assert (result.reason, result.held_by["memory"]) == ("memory", "cgroup")


@pytest.mark.skipif(not os.access(UNIFIED, os.W_OK), reason="no hierarchy of version 2 is there")
async def test_group_that_counts_nothing_is_not_kept(session: WorkspaceSession) -> None:
    if {"memory", "pids"} & set((UNIFIED / "cgroup.controllers").read_text().split()):
        pytest.skip("groups of version 2 count here")
    result = await Runner(cgroups=[str(UNIFIED)]).run("print(1)", session)
    assert result.held_by == {"memory": "supervisor", "processes": "supervisor"}


FINDS = """
import os, sys
from datasources_agents.sandbox.cgroups import find_own_groups
folder = sys.argv[1]
with open(f"{folder}/cgroup.procs", "w") as file:
    file.write("0")
print(folder in find_own_groups())
os.setxattr(folder, "trusted.delegate", b"1")
print(folder in find_own_groups())
with open("/sys/fs/cgroup/pids/cgroup.procs", "w") as file:
    file.write("0")
"""


@pytest.mark.skipif(
    not is_above_all("pids") or os.geteuid() != 0, reason="no group of processes can be made here"
)
def test_group_of_a_manager_is_used_only_where_it_is_delegated(parent: Path) -> None:
    command = [sys.executable, "-c", FINDS, str(parent)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    assert process.stdout.split() == ["False", "True"]


@pytest.mark.skipif(not is_above_all("pids"), reason="no group of processes can be made here")
async def test_empty_group_of_a_host_that_was_killed_is_removed(
    session: WorkspaceSession, parent: Path
) -> None:
    for name in ("datasources-abandoned", "datasources-new"):
        (parent / name).mkdir()
    os.utime(parent / "datasources-abandoned", (0, 0))
    await Runner(cgroups=[str(parent)]).run("print(1)", session)
    assert [path.name for path in parent.glob("datasources-*")] == ["datasources-new"]
    (parent / "datasources-new").rmdir()


async def test_folder_that_is_none_of_the_host_is_left_alone(
    session: WorkspaceSession, tmp_path: Path
) -> None:
    runner = Runner(cgroups=[str(tmp_path / "missing"), "/proc"])
    result = await runner.run("print(1)", session)
    assert result.output == b"1\n"
    assert result.held_by == {"memory": "supervisor", "processes": "supervisor"}
