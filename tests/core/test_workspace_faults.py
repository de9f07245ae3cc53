"""Workspaces under kills, full disks and rivals: a final path is whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.subprocesses import run_python

KILLS = """
import json, os, random, signal, sys, time
from datasources import Workspace

root, kills = sys.argv[1], int(sys.argv[2])
choices = random.Random(int(sys.argv[3]))
contents = [bytes([n]) * (1 << 20) for n in range(1, 4)]

def fetch_for_ever():
    workspace = Workspace(root)
    while True:
        for content in contents:
            with workspace.create("folder/item.bin") as file:
                for start in range(0, len(content), 1 << 16):
                    file.write(content[start : start + (1 << 16)])

counts = {"whole": 0, "absent": 0}
for number in range(kills):
    child = os.fork()
    if not child:
        fetch_for_ever()
    time.sleep(choices.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    path = os.path.join(root, "folder", "item.bin")
    if os.path.exists(path):
        with open(path, "rb") as file:
            assert file.read() in contents, "a final path holds half a file"
        counts["whole"] += 1
        if number % 3 == 0:
            os.unlink(path)
    else:
        counts["absent"] += 1
left = [name for name in os.listdir(root) if name != "folder"]
for name in left:
    os.utime(os.path.join(root, name), (0, 0))
removed = Workspace(root).clean()
assert sorted(removed) == sorted(left), (removed, left)
assert os.listdir(root) == ["folder"]
assert set(os.listdir(os.path.join(root, "folder"))) <= {"item.bin"}
print(json.dumps({**counts, "left": len(left)}))
"""

CUTS = """
import json, os, resource, signal, sys
from datasources import DataFetchError, Workspace

root, cuts = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
whole, step, hard = bytes(1 << 20), (1 << 20) // cuts, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
workspace = Workspace(root)
refused = 0
for cut in range(cuts):
    resource.setrlimit(resource.RLIMIT_FSIZE, (cut * step, hard))
    try:
        with workspace.create("item.bin") as file:
            for start in range(0, len(whole), 10_000):
                file.write(whole[start : start + 10_000])
    except DataFetchError as exc:
        assert str(exc) == "cannot write 'item.bin' to the workspace: File too large", exc
        refused += 1
    assert os.listdir(root) == ["item.bin"], os.listdir(root)
    with open(os.path.join(root, "item.bin"), "rb") as file:
        assert file.read() == b"old"
print(refused)
"""

RIVALS = """
import os, sys
from datasources import Workspace

root, rounds = sys.argv[1], int(sys.argv[2])
contents = [bytes([n]) * 300_000 for n in range(2)]
children = []
for content in contents:
    child = os.fork()
    if not child:
        workspace = Workspace(root)
        for _ in range(rounds):
            with workspace.create("item.bin") as file:
                for start in range(0, len(content), 1 << 16):
                    file.write(content[start : start + (1 << 16)])
        os._exit(0)
    children.append(child)
seen, alive = 0, set(children)
while alive:
    for child in list(alive):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            alive.discard(child)
    try:
        with open(os.path.join(root, "item.bin"), "rb") as file:
            assert file.read() in contents, "two writers made one file"
        seen += 1
    except FileNotFoundError:
        pass
assert os.listdir(root) == ["item.bin"]
print(seen)
"""

CHILDREN = """
import os, sys
from datasources import DataFetchError, Workspace

workspace = Workspace(sys.argv[1])
pid = 1
try:
    with workspace.create("item.bin") as file:
        file.write_at(0, b"half")
        pid = os.fork()
        if not pid:
            if sys.argv[2] == "raises":
                raise RuntimeError
        else:
            assert os.waitpid(pid, 0)[1] == 0
            file.write_at(4, b" and half")
except (RuntimeError, DataFetchError) as exc:
    if pid:
        raise
    assert sys.argv[2] == "raises" or "belongs to the process" in str(exc), exc
    os._exit(0)
assert pid, "the child put the file of its parent in place"
print(open(os.path.join(workspace, "item.bin")).read())
"""


def test_a_fetch_killed_a_hundred_times_leaves_whole_files_or_none(tmp_path: Path) -> None:
    counts = json.loads(run_python(KILLS, str(tmp_path), "100", "1"))
    assert counts["whole"] + counts["absent"] == 100
    assert counts["left"] > 0, "no kill came in the middle of a file"


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_a_fetch_killed_a_thousand_times_leaves_whole_files_or_none(
    tmp_path: Path, seed: int
) -> None:
    counts = json.loads(run_python(KILLS, str(tmp_path), "1000", str(seed)))
    print(counts)
    assert counts["whole"] + counts["absent"] == 1000


def test_a_disk_that_is_full_at_any_point_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "item.bin").write_bytes(b"old")
    assert run_python(CUTS, str(tmp_path), "256") == "256\n"


def test_two_processes_that_fetch_one_item_never_mix(tmp_path: Path) -> None:
    assert int(run_python(RIVALS, str(tmp_path), "200")) > 0


@pytest.mark.parametrize("how", ["raises", "leaves"])
def test_a_child_that_leaves_its_parents_file_does_not_touch_it(tmp_path: Path, how: str) -> None:
    assert run_python(CHILDREN, str(tmp_path), how) == "half and half\n"
    assert [path.name for path in tmp_path.iterdir()] == ["item.bin"]
