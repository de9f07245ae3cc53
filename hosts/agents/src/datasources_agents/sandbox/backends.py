"""The sandboxes of this machine, and the first of them that works."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Protocol

from datasources import OptionError
from datasources_agents.sandbox.bubblewrap import Bubblewrap
from datasources_agents.sandbox.errors import SandboxUnavailableError
from datasources_agents.sandbox.interpreter import Interpreter
from datasources_agents.sandbox.jobs import Job
from datasources_agents.sandbox.landlock import Sandlock
from datasources_agents.sandbox.models import RunLimits
from datasources_agents.sandbox.process import SandboxProcess
from datasources_agents.sandbox.seccomp import is_known_machine

_PROBE_USER = 1_879_999_999


class Backend(Protocol):
    """A kind of sandbox."""

    name: str
    end_signal: signal.Signals
    """Sent to the processes that this one watches, to end the sandbox."""
    folders_in_memory: Sequence[str]
    """Folders of the sandbox that are file systems of its own, in memory."""

    async def start(self, process: SandboxProcess, job: Job) -> None:
        """Start a job, which then waits to be released.

        Raises:
            SandboxUnavailableError: It cannot be started.
        """
        ...


_BACKENDS: dict[str, type[Backend]] = {"bubblewrap": Bubblewrap, "sandlock": Sandlock}
_working: dict[tuple[str, Interpreter], Backend] = {}


async def choose_backend(name: str | None, interpreter: Interpreter) -> Backend:
    """Return the sandbox of a name, or the first one that works, which is tried once.

    Raises:
        OptionError: There is no sandbox of the name.
        SandboxUnavailableError: It does not work, or none does; the text says why.
    """
    if name is not None and name not in _BACKENDS:
        raise OptionError(f"there is no sandbox {name!r}; there are {', '.join(_BACKENDS)}")
    if sys.platform != "linux" or not is_known_machine():
        raise SandboxUnavailableError("code is run in a sandbox on Linux only, on x86-64 and ARM64")
    reasons = []
    for candidate in _BACKENDS if name is None else [name]:
        key = candidate, interpreter
        if key not in _working:
            try:
                _working[key] = await _probe(_BACKENDS[candidate](), interpreter)
            except SandboxUnavailableError as exc:
                reasons.append(f"{candidate}: {exc}")
                continue
        return _working[key]
    raise SandboxUnavailableError(
        f"code is not run, as no sandbox works on this machine; {'; '.join(reasons)}"
    )


async def _probe(backend: Backend, interpreter: Interpreter) -> Backend:
    """Return a sandbox that has run an empty script."""
    output = bytearray()
    process = SandboxProcess(output.extend, backend.end_signal)
    job = Job(
        interpreter=interpreter,
        code=b"",
        workspace=None,
        socket=None,
        libraries={},
        environment={},
        arguments=(),
        limits=RunLimits(),
        user=_PROBE_USER if os.geteuid() == 0 else None,
    )
    try:
        await backend.start(process, job)
        process.release()
        async with asyncio.timeout(30):
            code = await process.wait()
    except TimeoutError:
        raise SandboxUnavailableError("an empty script does not end in it") from None
    finally:
        await process.close()
    if code:
        text = output.decode("utf-8", "replace").strip().splitlines()
        raise SandboxUnavailableError(f"an empty script fails in it: {' '.join(text)}")
    return backend
