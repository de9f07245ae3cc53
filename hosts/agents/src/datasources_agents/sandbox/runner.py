"""Run code of others in a sandbox, with the sources of a workspace session and no credential."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

import datasources_client
from datasources import OptionError, RegistryError, WorkspaceSession, run_in_thread
from datasources_agents.sandbox.backends import Backend, choose_backend
from datasources_agents.sandbox.cgroups import ControlGroups
from datasources_agents.sandbox.interpreter import find_interpreter
from datasources_agents.sandbox.jobs import Job
from datasources_agents.sandbox.models import Reason, RunLimits, RunResult
from datasources_agents.sandbox.process import SandboxProcess
from datasources_agents.sandbox.processes import processes_of
from datasources_agents.sandbox.supervisor import Supervisor
from datasources_agents.sandbox.workspace import Snapshot, find_changes, take_snapshot
from datasources_server import serve_workspace

_USERS = range(1_880_000_000, 1_980_000_000)  # ids that no system gives to people or services
_KILLED = 137  # 128 and the number of SIGKILL
_running: set[tuple[int, int]] = set()  # devices and inodes of workspaces


class Runner:
    """Runs code in sandboxes.

    Args:
        python: The path of the interpreter; by default that of this process.
        packages: Folders with packages that the code may import, besides those of the interpreter.
        environment: More variables of the code. They must hold nothing secret.
        cgroups: Folders below `/sys/fs/cgroup` that this process may manage. Groups that count
            memory and processes are made there. By default, the groups of this process that are
            delegated to it, or that stand above all others.
        sandbox: `bubblewrap` or `sandlock`; by default the first one that works.
    """

    def __init__(
        self,
        *,
        python: str | None = None,
        packages: Sequence[str | os.PathLike[str]] = (),
        environment: Mapping[str, str] | None = None,
        cgroups: Sequence[str] | None = None,
        sandbox: str | None = None,
    ) -> None:
        self._python = python or sys.executable
        self._packages = [os.path.realpath(package) for package in packages]
        self._environment = dict(environment or {})
        self._cgroups = cgroups
        self._sandbox = sandbox

    async def run(
        self,
        code: str,
        session: WorkspaceSession,
        *,
        arguments: Sequence[str] = (),
        on_output: Callable[[bytes], None] | None = None,
        **limits: Any,
    ) -> RunResult:
        """Run a Python script in the workspace of a session.

        The script reads the sources of the session with `datasources_client`. It has no network, and
        sees no file of this machine but the interpreter, libraries and the workspace. All of its
        processes have ended when this returns, or raises, or is cancelled.

        Args:
            code: The script.
            session: An open session, whose principal is no administrator.
            arguments: Those of the script.
            on_output: Called with output as it arrives, on the event loop. What it raises ends the
                run, and is raised again.
            limits: Fields of `RunLimits`, such as `timeout`, `memory` and `processes`.

        Raises:
            SandboxUnavailableError: There is no sandbox on this machine; the script is not run.
            OptionError: A limit is no number, or the session is not one that can be served.
            RegistryError: Another run is in the workspace.
        """
        try:
            bounds = RunLimits(**limits)
        except TypeError:
            raise _unknown_limit(limits) from None
        interpreter = await asyncio.to_thread(find_interpreter, self._python)
        backend = await choose_backend(self._sandbox, interpreter)
        async with AsyncExitStack() as stack:
            stack.enter_context(_alone_in(session))
            user = _own_workspace(str(session.path)) if os.geteuid() == 0 else None
            endpoint = await stack.enter_async_context(serve_workspace(session, allow_uid=user))
            job = Job(
                interpreter,
                code.encode(),
                str(session.path),
                endpoint.socket,
                self._libraries(),
                self._environment,
                arguments,
                bounds,
                user,
            )
            return await _Run(backend, job, on_output, self._cgroups).finish()

    def _libraries(self) -> dict[str, str]:
        client = os.path.dirname(datasources_client.__file__)
        folders = {"client/datasources_client": client}
        return folders | {str(number): path for number, path in enumerate(self._packages)}


class _Run:
    """One run of a job, from its start to its end."""

    def __init__(
        self,
        backend: Backend,
        job: Job,
        on_output: Callable[[bytes], None] | None,
        cgroups: Sequence[str] | None,
    ) -> None:
        assert job.workspace is not None
        self._backend = backend
        self._job = job
        self._workspace = job.workspace
        self._on_output = on_output
        self._output = bytearray()
        self._reason: Reason | None = None
        self._failure: Exception | None = None  # of `on_output`
        self._ending = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._groups = ControlGroups(cgroups, job.limits.memory, job.limits.processes)
        self._process = SandboxProcess(self._receive, backend.end_signal)

    async def finish(self) -> RunResult:
        """Run the code to its end, and return how it has ended."""
        started = time.monotonic()
        try:
            before = await run_in_thread(take_snapshot, self._workspace)
            code = await self._execute()
        finally:
            await _to_the_end(self._clean_up())
        if self._failure is not None:
            raise self._failure
        return await self._result(code, before, time.monotonic() - started)

    async def _execute(self) -> int | None:
        await self._backend.start(self._process, self._job)
        # The first alone at first: what it starts from then on is in its groups.
        self._groups.add([self._process.code])
        self._groups.add(processes_of(self._process.code, is_fresh=True))
        supervisor = Supervisor(
            self._process.first,
            self._backend.folders_in_memory,
            self._workspace,
            self._job.limits,
            self._groups,
            self._report,
        )
        supervisor.start()
        code = asyncio.create_task(self._process.wait())
        ending = asyncio.create_task(self._ending.wait())
        try:
            self._process.release()
            done, _ = await asyncio.wait(
                [code, ending],
                timeout=self._job.limits.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            supervisor.stop()
            code.cancel()
            ending.cancel()
        if not done:
            self._end("timeout")
        return code.result() if code in done else None

    async def _clean_up(self) -> None:
        await self._process.close()
        if self._groups.has_run_out_of_memory():
            self._end("memory")
        await run_in_thread(self._groups.remove)

    async def _result(self, code: int | None, before: Snapshot, duration: float) -> RunResult:
        limits = self._job.limits
        # It changes the workspace, and so it has ended when this returns or is cancelled.
        files = await run_in_thread(
            find_changes, self._workspace, before, limits.files, limits.disk
        )
        if code == _KILLED:
            self._end("killed")
        return RunResult(
            exit_code=code if self._reason is None else None,
            reason=self._reason or "ok",
            output=bytes(self._output),
            files=files,
            duration=duration,
            sandbox=self._backend.name,
            held_by={
                name: "cgroup" if name in self._groups.controllers else "supervisor"
                for name in ("memory", "processes")
            },
        )

    def _report(self, reason: Reason) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end, reason)

    def _end(self, reason: Reason) -> None:
        """End the run for a reason, unless it has another one."""
        self._reason = self._reason or reason
        self._ending.set()

    def _receive(self, data: bytes) -> None:
        room = self._job.limits.output - len(self._output)
        if len(data) > room:
            self._end("output")
        kept = data[:room]
        self._output += kept
        if kept and self._on_output is not None and self._failure is None:
            try:
                self._on_output(kept)
            except Exception as exc:  # noqa: BLE001  (raised again at the end of the run)
                self._failure = exc
                self._ending.set()


@contextmanager
def _alone_in(session: WorkspaceSession) -> Iterator[None]:
    """Keep other runs out of a workspace: files are looked at when no code runs there.

    Raises:
        OptionError: The session is not open.
        RegistryError: A run is there.
    """
    if session.closed:
        raise OptionError(f"workspace {session.id!r} is not open; enter its block first")
    status = os.stat(session.path)
    place = status.st_dev, status.st_ino
    if place in _running:
        raise RegistryError(f"another run is in workspace {session.id!r}; wait for its end")
    _running.add(place)
    try:
        yield
    finally:
        _running.discard(place)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work to end, even if this task is cancelled meanwhile, once or more."""
    task = asyncio.create_task(work)
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    task.result()
    if cancelled is not None:
        raise cancelled


def _own_workspace(path: str) -> int:
    """Give a workspace to an id that nobody else has, and return the id; one of before stays."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = os.fstat(folder).st_uid
        if owner not in _USERS:
            owner = random.SystemRandom().choice(_USERS)
            os.fchown(folder, owner, owner)
        os.fchmod(folder, stat.S_IMODE(os.fstat(folder).st_mode) | 0o700)
    finally:
        os.close(folder)
    return owner


def _unknown_limit(limits: Mapping[str, Any]) -> OptionError:
    names = ", ".join(RunLimits.__dataclass_fields__)
    unknown = next(name for name in limits if name not in RunLimits.__dataclass_fields__)
    return OptionError(f"unknown limit {unknown!r}; limits: {names}")
