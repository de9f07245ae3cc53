"""The system calls that code in a sandbox may not make, as a program for seccomp.

Refused is what reaches beyond the namespaces of the sandbox, or takes memory that no limit counts:
new namespaces, the kernel's keyrings, BPF, performance counters, io_uring, memory files and System V
memory, and sockets of families that a network namespace does not contain, such as AF_VSOCK.

Code that is not in namespaces of its own may also not touch what belongs to its user: the limits and
the priority of other processes, POSIX message queues, and names and attributes of files. Changes of
the mode, owner and time of a file have no effect there, since programs make them for their own files
too, and end where these are refused.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import NamedTuple


class _Machine(NamedTuple):
    audit_arch: int
    clone: int
    socket: int
    prlimit: int
    refused: tuple[int, ...]
    refused_outside: tuple[int, ...]
    ignored_outside: tuple[int, ...]


# The numbers from 424 on are the same on all machines.
_COMMON = (425, 426, 427, 447)  # io_uring_setup, io_uring_enter, io_uring_register, memfd_secret
_CLONE3 = 435
# unshare, setns, add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd, memfd_create,
# shmget, msgget, ptrace, process_vm_readv, process_vm_writev, open_by_handle_at, personality
_X86_64 = (272, 308, 248, 249, 250, 321, 298, 323, 319, 29, 68, 101, 310, 311, 304, 135)
_AARCH64 = (97, 268, 217, 218, 219, 280, 241, 282, 279, 194, 186, 117, 270, 271, 265, 92)
# setxattrat, removexattrat, file_setattr, process_madvise, process_mrelease, pidfd_getfd
_COMMON_OUTSIDE = (463, 466, 469, 440, 448, 438)
# setxattr, lsetxattr, fsetxattr, removexattr, lremovexattr, fremovexattr, inotify_add_watch,
# fanotify_init, setpriority, ioprio_set, sched_setparam, sched_setscheduler, sched_setaffinity,
# sched_setattr, mq_open, semget, kcmp, migrate_pages, move_pages
_X86_64_OUTSIDE = (
    *(188, 189, 190, 197, 198, 199, 254, 300, 141, 251),
    *(142, 144, 203, 314, 240, 64, 312, 256, 279),
)
_AARCH64_OUTSIDE = (
    *(5, 6, 7, 14, 15, 16, 27, 262, 140, 30),
    *(118, 119, 122, 274, 180, 190, 272, 238, 239),
)
# fchmodat2, fchmod, fchmodat, fchown, fchownat, utimensat; and on x86-64 chmod, chown, lchown, utime,
# utimes, futimesat
_X86_64_IGNORED = (452, 91, 268, 93, 260, 280, 90, 92, 94, 132, 235, 261)
_AARCH64_IGNORED = (452, 52, 53, 55, 54, 88)
_MACHINES = {
    "x86_64": _Machine(
        audit_arch=0xC000003E,
        clone=56,
        socket=41,
        prlimit=302,
        refused=_COMMON + _X86_64,
        refused_outside=_COMMON_OUTSIDE + _X86_64_OUTSIDE,
        ignored_outside=_X86_64_IGNORED,
    ),
    "aarch64": _Machine(
        audit_arch=0xC00000B7,
        clone=220,
        socket=198,
        prlimit=261,
        refused=_COMMON + _AARCH64,
        refused_outside=_COMMON_OUTSIDE + _AARCH64_OUTSIDE,
        ignored_outside=_AARCH64_IGNORED,
    ),
}
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_NEW_NAMESPACES = 0x7E020000  # the flags CLONE_NEW…
_OTHER_ABI = 0x40000000  # the bit of x32 calls, which have numbers of their own

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in `struct seccomp_data`
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def is_known_machine() -> bool:
    """Return True if the numbers of system calls are known for this machine."""
    return platform.machine() in _MACHINES


def seccomp_program(*, has_namespaces: bool = True) -> bytes:
    """Return the program for this machine, an array of `struct sock_filter`."""
    machine = _MACHINES[platform.machine()]
    program = [
        _do(_LOAD, _ARCH),
        _do(_EQUAL, machine.audit_arch, 1, 0),
        _do(_RETURN, _KILL),
        _do(_LOAD, _NUMBER),
        *_refuse(_AT_LEAST, _OTHER_ABI, errno.EPERM),
        *_refuse(_EQUAL, _CLONE3, errno.ENOSYS),  # libraries take `clone` then, whose flags show
    ]
    for number in machine.refused:
        program += _refuse(_EQUAL, number, errno.EPERM)
    if not has_namespaces:
        program += _outside(machine)
    program += [
        _do(_EQUAL, machine.clone, 0, 4),
        _do(_LOAD, _FIRST_ARGUMENT),
        *_refuse(_ANY_BIT, _NEW_NAMESPACES, errno.EPERM),
        _do(_RETURN, _ALLOW),
        _do(_EQUAL, machine.socket, 0, len(_FAMILIES) + 2),
        _do(_LOAD, _FIRST_ARGUMENT),
        *(_do(_EQUAL, family, len(_FAMILIES) - i, 0) for i, family in enumerate(_FAMILIES)),
        _do(_RETURN, _ERROR | errno.EAFNOSUPPORT),
        _do(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _outside(machine: _Machine) -> list[bytes]:
    program = []
    for number in machine.refused_outside:
        program += _refuse(_EQUAL, number, errno.EPERM)
    for number in machine.ignored_outside:
        program += _refuse(_EQUAL, number, 0)
    return [
        *program,
        _do(_EQUAL, machine.prlimit, 0, 4),
        _do(_LOAD, _FIRST_ARGUMENT),
        _do(_EQUAL, 0, 1, 0),  # the limits of the process itself
        _do(_RETURN, _ERROR | errno.EPERM),
        _do(_RETURN, _ALLOW),
    ]


def _refuse(comparison: int, value: int, error: int) -> list[bytes]:
    return [_do(comparison, value, 0, 1), _do(_RETURN, _ERROR | error)]


def _do(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
