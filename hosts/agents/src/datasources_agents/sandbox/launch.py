"""Set the limits of the code in a sandbox, give up root, and start the code.

It is the first program in the sandbox, run as `python -I -S launch.py JSON COMMAND…`, and imports
nothing that is not in the standard library. The JSON has `limits`, values of `RLIMIT_…` by name,
`user`, the id to become, or null, `folder`, the one to start in, and `seccomp`, a program for seccomp
in hexadecimal, or null. It waits for a byte of its input first: a host that is gone sends none, and
the code is not started.
"""

from __future__ import annotations

import json
import os
import resource
import sys


def main(settings: str, *command: str) -> None:
    if os.read(0, 1) != b"\n":
        return
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, 64)
    values = json.loads(settings)
    if values["user"] is not None:
        os.setgroups([])
        os.setresgid(*[values["user"]] * 3)
        os.setresuid(*[values["user"]] * 3)  # the kernel takes all capabilities with it
    os.chdir(values["folder"])  # which root without its capabilities may not enter
    for name, value in values["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if values["seccomp"] is not None:
        refuse_calls(bytes.fromhex(values["seccomp"]))
    os.execv(command[0], command)  # noqa: S606  (the command is the runner's)


def refuse_calls(program: bytes) -> None:
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    call = ctypes.CDLL(None, use_errno=True).prctl
    if call(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0):  # PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), "the code is not started without seccomp")


if __name__ == "__main__":
    main(*sys.argv[1:])
