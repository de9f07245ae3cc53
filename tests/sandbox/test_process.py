"""Processes of a sandbox, with programs that stand for it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from datasources_agents.sandbox.process import SandboxProcess
from tests.waiting import wait_until

# As bubblewrap does, it starts the first process and tells its id later, in more than one piece.
TELLS_LATE = """
import os, sys, time
status, folder = int(sys.argv[1]), sys.argv[2]
first = os.fork()
if first == 0:
    while True:
        time.sleep(60)
with open(f"{folder}/new", "w") as file:
    file.write(str(first))
os.rename(f"{folder}/new", f"{folder}/first")
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.01)
os.write(status, b'{"child-pid": %d' % first)
os.write(status, b"}\\n")
os.waitpid(first, 0)
"""
WAITS = """
import os, sys
os.write(int(sys.argv[1]), b'{"child-pid": %d}\\n' % os.getpid())
sys.exit(os.read(0, 1) != b"\\n")
"""

FILLS_A_PIPE = """
import fcntl, os, sys
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
os.write(1, b"x" * (1 << 20))
os.write(int(sys.argv[1]), b'{"child-pid": %d}\\n' % os.getpid())
"""


async def test_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    process = SandboxProcess(lambda _: None, signal.SIGKILL)
    command = [sys.executable, "-c", TELLS_LATE]
    start = asyncio.create_task(
        process.start(lambda status: [*command, str(status), str(tmp_path)], ())
    )
    await wait_until((tmp_path / "first").exists)
    first = os.pidfd_open(int((tmp_path / "first").read_text()))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    close = asyncio.create_task(process.close())
    await asyncio.sleep(0)
    (tmp_path / "go").touch()
    await close
    try:
        assert select.select([first], [], [], 0)[0]
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(first, signal.SIGKILL)
        os.close(first)


async def test_wait_that_is_cancelled_leaves_the_others_waiting() -> None:
    process = SandboxProcess(lambda _: None, signal.SIGKILL)
    command = [sys.executable, "-c", WAITS]
    await process.start(lambda status: [*command, str(status)], ())
    waits = [asyncio.create_task(process.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    waits[0].cancel()
    process.release()
    assert await asyncio.wait_for(waits[1], 60) == 0
    await process.close()


async def test_output_that_is_in_the_pipe_at_the_end_is_not_lost() -> None:
    output = bytearray()
    process = SandboxProcess(output.extend, signal.SIGKILL)
    command = [sys.executable, "-c", FILLS_A_PIPE]
    await process.start(lambda status: [*command, str(status)], ())
    os.waitid(os.P_PID, process.first, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  (nothing is read)
    await process.close()
    assert len(output) == 1 << 20
