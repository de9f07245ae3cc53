"""Turn this process into a server: record its id, drop root, die with the parent, exec.

A script of its own, because a ``preexec_fn`` is not safe in a process with threads. It is run with
``python -I -S`` and these arguments: pid file, user id (-1 keeps the present one), id of the
parent (0 outlives it), signal at the parent's death, command...
"""

import ctypes
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(pid_file: str, uid: str, parent: str, death_signal: str, *command: str) -> None:
    """Replace this process by `command`."""
    libc = ctypes.CDLL(None)
    Path(pid_file).write_text(f"{os.getpid()}\n")
    if int(uid) >= 0:
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    # After the change of user, which clears it.
    if int(parent) and sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):  # it died before we asked
            return
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
