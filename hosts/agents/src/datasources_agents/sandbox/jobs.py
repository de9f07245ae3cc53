"""One run as a sandbox is given it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasources_agents.sandbox.environment import scrubbed_environment
from datasources_agents.sandbox.interpreter import Interpreter
from datasources_agents.sandbox.models import RunLimits


@dataclass(frozen=True, slots=True)
class Job:
    """The code of one run, and what it may see."""

    interpreter: Interpreter
    code: bytes
    workspace: str | None
    """The directory that it may write to."""
    socket: str | None
    """The socket of the endpoint, which is alone in its directory."""
    libraries: Mapping[str, str]
    """Folders to import from, by the relative path to show each at."""
    environment: Mapping[str, str]
    """Variables that the host adds."""
    arguments: Sequence[str]
    limits: RunLimits
    user: int | None
    """The id that the code runs as, if this process is root's."""

    def variables(self, workspace: str, socket: str, libraries: str) -> dict[str, str]:
        """Return the environment of the code, with the paths at which the sandbox shows things."""
        folders = dict.fromkeys(name.partition("/")[0] for name in self.libraries)
        return scrubbed_environment(
            {
                "HOME": "/tmp",  # noqa: S108  (in the sandbox)
                "PYTHONPATH": ":".join(f"{libraries}/{folder}" for folder in folders),
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **self.environment,
                "DATASOURCES_SOCKET": socket,
                "DATASOURCES_WORKSPACE": workspace,
            }
        )


def process_limits(limits: RunLimits) -> dict[str, int]:
    """Return the limits that the kernel keeps for each process, or for each user."""
    return {
        "DATA": limits.memory,
        "NPROC": limits.processes,
        "FSIZE": limits.disk,
        "NOFILE": limits.open_files,
        "CORE": 0,
        "MEMLOCK": 1 << 16,
        "MSGQUEUE": 0,
    }
