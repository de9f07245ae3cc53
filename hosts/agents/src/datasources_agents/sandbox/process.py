"""One sandbox: its processes from the start to the end, and its output.

The states: *started* is the sandbox, which waits for a byte of its input; *released* is the code;
*ended* is everything, which is known by descriptors of the outer process and of the first process
inside, since the kernel ends all others of its namespace before it. Whoever starts a sandbox closes
it, which ends all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

from datasources_agents.sandbox.environment import scrubbed_environment
from datasources_agents.sandbox.errors import SandboxUnavailableError

_CHUNK = 1 << 16
_START_SECONDS = 30.0


class SandboxProcess:
    """The processes of one sandbox, on the event loop that starts it.

    Args:
        receive: Called with output as it arrives, on the event loop; it must not raise.
        end_signal: Ends the sandbox.
    """

    def __init__(self, receive: Callable[[bytes], None], end_signal: signal.Signals) -> None:
        self.first = 0
        """The id of the first process, from which the others descend."""
        self.code = 0
        """The id of the process that starts the code, or of one above it in the sandbox."""
        self.folder: str | None = None
        """A folder of files for the sandbox, deleted at its end."""
        self._receive = receive
        self._end_signal = end_signal
        self._loop = asyncio.get_running_loop()
        self._outer: subprocess.Popen[bytes] | None = None
        self._output = self._input = self._status = -1
        self._status_text = b""
        self._ends: dict[int, asyncio.Future[None]] = {}  # by the descriptors of processes

    async def start(
        self, make_command: Callable[[int], Sequence[str]], descriptors: Sequence[int]
    ) -> None:
        """Start the sandbox.

        Args:
            make_command: Returns the command; called with the descriptor for its status.
            descriptors: More descriptors that it inherits.

        Raises:
            SandboxUnavailableError: It cannot be started; the text has what it has printed.
        """
        inherited = []
        try:
            self._output, output = os.pipe2(os.O_CLOEXEC)
            inherited.append(output)
            inside, self._input = os.pipe2(os.O_CLOEXEC)
            inherited.append(inside)
            self._status, status = os.pipe2(os.O_CLOEXEC)
            inherited.append(status)
            # On this thread: the sandbox ends with the thread that has started it.
            self._outer = subprocess.Popen(  # noqa: S603, ASYNC220  (returns when it has begun)
                make_command(status),
                stdin=inside,
                stdout=output,
                stderr=output,
                env=scrubbed_environment(),
                pass_fds=(*descriptors, status),
                cwd="/",
                start_new_session=True,
            )
        except OSError as exc:
            raise SandboxUnavailableError(f"the sandbox does not start: {exc.strerror}") from None
        finally:
            for descriptor in inherited:
                os.close(descriptor)
        os.set_blocking(self._output, False)
        self._watch(self._outer.pid)
        await self._wait_for_status()
        self._loop.add_reader(self._output, self._read)

    async def _wait_for_status(self) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while b"\n" not in self._status_text:
                    await self._readable(self._status)
                    part = os.read(self._status, _CHUNK)
                    if not part:
                        break
                    self._status_text += part
        except TimeoutError:
            raise SandboxUnavailableError("the sandbox does not start in time") from None
        if b"\n" not in self._status_text:
            text = (self._read_output() or b"").decode("utf-8", "replace").strip()
            raise SandboxUnavailableError(f"the sandbox does not start: {text}")
        values = json.loads(self._status_text.partition(b"\n")[0])
        self.first = values["child-pid"]
        self.code = values.get("code-pid", self.first)
        self._watch(self.first)

    def release(self) -> None:
        """Start the code."""
        with suppress(BrokenPipeError):  # it has ended already
            os.write(self._input, b"\n")

    async def wait(self) -> int:
        """Wait until the code has ended; return its exit code, or 128 and a signal's number."""
        assert self._outer is not None
        await asyncio.wait([next(iter(self._ends.values()))])
        code = self._outer.wait()  # it has ended: returns at once
        return 128 - code if code < 0 else code

    async def close(self) -> None:
        """End every process of the sandbox, and take the rest of its output; returns when it is done."""
        if self._outer is not None and not self.first:  # its start was cancelled
            # bubblewrap, killed before it has told its first process to begin, would leave it waiting
            # for ever.
            with suppress(SandboxUnavailableError):
                await self._wait_for_status()
        for descriptor in self._ends:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, self._end_signal)
        if self._ends:
            await asyncio.wait(self._ends.values())
        if self._outer is not None:
            self._outer.wait()
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            while data := self._read_output():  # a pipe may hold more than one chunk
                self._receive(data)
        for descriptor in (self._output, self._input, self._status, *self._ends):
            if descriptor >= 0:
                os.close(descriptor)
        self._output = self._input = self._status = -1
        self._ends.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _watch(self, process: int) -> None:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process)
            self._ends[descriptor] = self._loop.create_future()
            self._loop.add_reader(descriptor, self._set_ended, descriptor)

    def _set_ended(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        self._ends[descriptor].set_result(None)

    async def _readable(self, descriptor: int) -> None:
        readable = self._loop.create_future()

        def set_readable() -> None:
            self._loop.remove_reader(descriptor)
            if not readable.done():
                readable.set_result(None)

        self._loop.add_reader(descriptor, set_readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(descriptor)

    def _read(self) -> None:
        data = self._read_output()
        if data:
            self._receive(data)
        elif data is not None:
            self._loop.remove_reader(self._output)

    def _read_output(self) -> bytes | None:
        """Return output that is there: no bytes at its end, and None if there is none now."""
        try:
            return os.read(self._output, _CHUNK)
        except BlockingIOError:
            return None
