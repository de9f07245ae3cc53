"""A host that is killed in the middle of a run leaves no process, and the next one cleans up."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from datasources_agents.sandbox.cgroups import find_own_groups
from datasources_agents.sandbox.processes import processes_of
from tests.sandbox.conftest import make_host
from tests.sandbox.hosts import WITH_BUBBLEWRAP
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("sandbox")

LEAVES_ITS_SESSION = """
import datasources_client as ds, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("started", "w").close()
while True:
    ds.fetch("lake", "orders.csv")
    time.sleep(0.01)
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    "name",
    [
        *WITH_BUBBLEWRAP,
        "sandlock-ordinary-user",
        pytest.param("sandlock-own-user", marks=pytest.mark.soak),
    ],
)
async def test_host_that_is_killed_leaves_no_process_and_the_next_one_cleans_up(
    name: str, stack: ExitStack
) -> None:
    killed = make_host(name, stack)
    folder = killed.directory
    process = killed.begin(code=LEAVES_ITS_SESSION, limits={"timeout": 600})
    await wait_until(lambda: any(folder.glob("datasources-work-*/started")), timeout=120)
    sandboxed = processes_of(process, is_fresh=True)[1:]
    groups = groups_of(sandboxed)
    descriptors = [os.pidfd_open(one) for one in sandboxed]
    assert len(descriptors) >= 3
    os.kill(process, signal.SIGKILL)
    await wait_until(
        lambda: len(select.select(descriptors, [], [], 0)[0]) == len(descriptors), timeout=60
    )
    for descriptor in descriptors:
        os.close(descriptor)
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    for workspace in folder.glob("datasources-work-*"):  # which stays, with the files of the code
        shutil.rmtree(workspace)
    for left in (*folder.glob("datasources-*"), *groups):
        os.utime(left, (0, 0))  # what is new is not deleted
    follower = make_host(name, stack, folder)
    assert follower.run("print(1)")["output"] == "1\n"
    assert not any(group.exists() for group in groups)


def groups_of(processes: list[int]) -> list[Path]:
    """Return the folders of the control groups that runs have made for processes."""
    ids = set(map(str, processes))
    groups = [group for parent in find_own_groups() for group in Path(parent).glob("datasources-*")]
    return [group for group in groups if ids & set(read_processes(group))]


def read_processes(group: Path) -> list[str]:
    try:
        return (group / "cgroup.procs").read_text().split()
    except OSError:  # of a run of another test, which has ended
        return []
