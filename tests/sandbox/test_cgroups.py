"""Control groups count for a whole sandbox, where a host may make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasources import WorkspaceSession
from datasources_agents.sandbox import Runner

pytestmark = pytest.mark.usefixtures("sandbox")

# Of version 1, where this process is in the group above all others, so that none is left by moving.
PIDS = Path("/sys/fs/cgroup/pids")


def own_group(controller: str) -> str | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return None


@pytest.mark.skipif(
    not os.access(PIDS, os.W_OK) or own_group("pids") != "/",
    reason="no control group of processes can be made here",
)
async def test_control_group_counts_processes_and_is_removed(session: WorkspaceSession) -> None:
    before = set(os.listdir(PIDS))
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        made += 1\n"
        "except OSError: print(made)\n"
    )
    result = await Runner(cgroups=[str(PIDS)]).run(code, session, processes=10)
    assert result.held_by["processes"] == "cgroup"
    assert result.held_by["memory"] == "supervisor"
    assert (result.reason, result.output) == ("ok", b"9\n")
    assert set(os.listdir(PIDS)) == before


async def test_folder_that_is_none_of_the_host_is_left_alone(
    session: WorkspaceSession, tmp_path: Path
) -> None:
    runner = Runner(cgroups=[str(tmp_path / "missing"), "/proc"])
    result = await runner.run("print(1)", session)
    assert result.output == b"1\n"
    assert result.held_by == {"memory": "supervisor", "processes": "supervisor"}
